"""The paper's tables for any network on any dataset: the loop over batches and methods.

Every map is made once and measured at once; what is measured is on disk before the loop goes on.
"""

import itertools
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

import dmbp_jax
from dmbp_jax.data.loading import Loaded, load_pictures
from dmbp_jax.data.samples import Dataset, Picture, Skipped, Target, choose_targets
from dmbp_jax.errors import DataError, ImageError, InputError, InputTypeError
from dmbp_jax.experiments import gallery
from dmbp_jax.experiments.contenders import TABLES, Contender
from dmbp_jax.experiments.journal import Journal, Key, Record, open_journal
from dmbp_jax.experiments.measuring import Batch, Subject, measure, target_key
from dmbp_jax.experiments.page import Evaluated, make_page
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.experiments.tables import ResultTable, as_csv, as_text, make_tables
from dmbp_jax.files import replacing
from dmbp_jax.graph.model import ApplyFn, bind

TEXT, CSV, PAGE, SKIPPED = "tables.md", "tables.csv", "evaluation.html", "skipped.txt"
_FORMAT = 1  # raised when records of an older version cannot be continued

See = Callable[[Image.Image], Any]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      tables: the paper's tables with our numbers.
      records: what was measured on each map.
      skipped: pictures left out, with the reason of each.
      folder: where `tables.md`, `tables.csv` and `evaluation.html` are.
    """

    tables: tuple[ResultTable, ...]
    records: tuple[Record, ...]
    skipped: tuple[Skipped, ...]
    folder: Path

    def table(self, number: int) -> ResultTable:
        """Table 1, 2 or 3."""
        return next(table for table in self.tables if table.number == number)

    def __str__(self) -> str:
        """The tables as aligned Markdown."""
        return "\n".join(map(as_text, self.tables))


class Plan(NamedTuple):
    """What is to be done: batches of targets, and the methods with the measures of each."""

    batches: list[tuple[Target, ...]]
    contenders: tuple[Contender, ...]
    measures: Mapping[str, tuple[str, ...]]
    others: int  # room for the other labels of a picture


def evaluate(
    params: Any,
    dataset: Dataset,
    out: str | Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    apply_fn: ApplyFn | None = None,
    preprocess: See | None = None,
    crop: See | None = None,
    force: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Reproduce the paper's tables: faithfulness of attribution methods, measured.

    A target is a picture with one of its ground-truth labels. For each target and method the map
    is made once; IM, cIM, rank correlation and localisation are taken from it. The score of an
    image is the mean over its targets, and tables show mean, standard error and number of images.

    Partial results are appended to `out`. A run that was stopped, by a kill too, is continued by
    the same call, and ends with the same tables; a run with other settings is refused.

    Args:
      params: with `apply_fn`, any pytree; without, a callable pytree (`dmbp_jax.Network`, ...).
      dataset: of `dmbp_jax.data`, such as `list_voc(root)` or `list_generated(size=200)`.
      out: folder for the results, made if missing.
      settings: tables, methods, their options, number of images, ...
      apply_fn: `(params, x) -> logits`.
      preprocess: from an RGB picture to x (H, W, C), of equal size for all; None takes
        `params.preprocess`.
      crop: from an RGB picture to what of it the network sees, of the size of x; for the gallery
        and for localisation. None takes `params.crop` if there is one; without, there is neither.
      force: delete earlier results in `out`.
      progress: show a bar with the time left.

    Returns:
      `Evaluation`. Written to `out`: `tables.md`, `tables.csv`, `evaluation.html` (a page that
      needs nothing else), `skipped.txt`; and what a later call continues from.

    Raises:
      ResumeError: `out` holds an evaluation with other settings; the message names the field.
      DataError: not one picture could be read.
      InputError, InputTypeError: arguments that do not fit each other.
      The errors of the methods, for a network that is not supported.

    Example:
      >>> import dmbp_jax, tempfile
      >>> from dmbp_jax.data import list_generated
      >>> from dmbp_jax.experiments import Settings, evaluate
      >>> settings = Settings(tables=(1,), methods=["gradient"], limit=2, points=5)
      >>> result = evaluate(dmbp_jax.load("builtin"), list_generated(size=4),
      ...                   tempfile.mkdtemp(), settings)
      >>> result.table(1).cell("gradient", "im").images
      2
    """
    folder = Path(out)
    preprocess = _given_or_own(params, "preprocess", preprocess)
    if preprocess is None:
        raise InputTypeError(
            "preprocess: Expected a function from a picture to x, "
            f"since {type(params).__name__} has no `preprocess`; got None."
        )
    crop = _given_or_own(params, "crop", crop)
    classes = _check_classes(dataset, params)
    tables = settings.contenders()
    plan = make_plan(dataset, settings, tables)
    network = str(getattr(params, "name", getattr(apply_fn, "__name__", "network")))
    configuration = _configure(params, apply_fn, network, dataset, settings, plan)
    with open_journal(folder, configuration, force=force) as journal:
        if force:
            _clear(folder)
        subject = Subject(params, apply_fn)
        views = Views(preprocess, crop)
        unread = _run(journal, folder, subject, plan, settings, views, progress)
        wanted = [r for r in _wanted(plan) if r in journal.records]
        records = tuple(journal.records[key] for key in wanted)
        skipped = (*dataset.skipped, *unread)
        if not records:
            first = f"{skipped[0].name}: {skipped[0].reason}" if skipped else "no targets"
            raise DataError(f"dataset: Expected at least one picture that can be read; {first}.")
        made = make_tables(records, tables, dataset.name, network)
        page = Evaluated(made, records, skipped, configuration, classes, settings.gallery)
        _write(folder / TEXT, "\n".join(map(as_text, made)))
        _write(folder / CSV, as_csv(made))
        _write(folder / SKIPPED, "".join(f"{s.name}: {s.reason}\n" for s in skipped))
        _write(folder / PAGE, make_page(folder, page))
    return Evaluation(made, records, skipped, folder)


class Views(NamedTuple):
    """How the network sees a picture: as numbers, and if known as a picture."""

    preprocess: See
    crop: See | None


def make_plan(
    dataset: Dataset, settings: Settings, tables: Mapping[int, Sequence[Contender]]
) -> Plan:
    """Targets in batches of nearly equal size, always the same; every method once."""
    targets = choose_targets(dataset, settings.images_per_class, settings.seed)
    if settings.limit is not None and settings.limit < len(targets):
        places = [i * len(targets) // settings.limit for i in range(settings.limit)]
        targets = tuple(targets[i] for i in places)
    count = math.ceil(len(targets) / settings.batch_size)
    size = math.ceil(len(targets) / count) if count else 1
    batches = [targets[first : first + size] for first in range(0, len(targets), size)]
    contenders: dict[str, Contender] = {}
    measures: dict[str, tuple[str, ...]] = {}
    for table, rows in tables.items():
        for row in rows:
            contenders.setdefault(row.name, row)
            known = measures.get(row.name, ())
            new = tuple(m for m in TABLES[table].measures if m not in known)
            measures[row.name] = known + new
    others = max((len(target.others) for target in targets), default=0)
    return Plan(batches, tuple(contenders.values()), measures, others)


def _wanted(plan: Plan) -> Iterator[Key]:
    """The maps of the whole evaluation."""
    for batch in plan.batches:
        for contender in plan.contenders:
            for target in batch:
                yield target.picture.name, target.label, contender.name


def _run(
    journal: Journal,
    folder: Path,
    subject: Subject,
    plan: Plan,
    settings: Settings,
    views: Views,
    progress: bool,
) -> tuple[Skipped, ...]:
    """Measure what is missing; returns the pictures that could not be read."""
    from tqdm.auto import tqdm

    pending = [(batch, _missing(journal, batch, plan)) for batch in plan.batches]
    pending = [(batch, contenders) for batch, contenders in pending if contenders]
    total = sum(1 for _ in _wanted(plan))
    left = sum(len(batch) * len(contenders) for batch, contenders in pending)
    pictures = [_pictures(batch) for batch, _ in pending]
    unread: dict[str, Skipped] = {}
    names = [contender.name for contender in plan.contenders]
    shown = "dmbp" if "dmbp" in names else names[0]
    with (
        closing(load_pictures(itertools.chain(*pictures), views.preprocess)) as loading,
        tqdm(
            total=total, initial=total - left, unit="map", smoothing=0, disable=not progress
        ) as bar,
    ):
        for (targets, contenders), needed in zip(pending, pictures, strict=True):
            seen: dict[str, np.ndarray] = {}
            for item in itertools.islice(loading, len(needed)):
                if isinstance(item, Loaded):
                    seen[item.picture.name] = item.x
                else:
                    unread[item.name] = item
            batch = make_batch(targets, seen, len(plan.batches[0]), plan.others, settings, views)
            good = batch.targets if batch else ()
            still = _missing(journal, good, plan)
            bar.update(len(targets) * len(contenders) - len(good) * len(still))
            if batch is None or not still:
                continue
            crops = _crops(good, views) if settings.gallery else {}
            gallery.save_crops(folder, crops)
            for contender in still:
                bar.set_postfix_str(contender.name)
                measures = plan.measures[contender.name]
                records, maps = measure(subject, batch, contender, measures, settings)
                gallery.save_maps(folder, contender, crops, maps)
                journal.append(records)
                bar.update(len(good))
            ranked = gallery.rank_targets(journal.records, names, shown)
            gallery.prune(folder, ranked, settings.gallery)
    return tuple(unread.values())


def _missing(journal: Journal, batch: Sequence[Target], plan: Plan) -> list[Contender]:
    """The methods that have not been measured on every target of a batch."""
    return [
        contender
        for contender in plan.contenders
        if any((t.picture.name, t.label, contender.name) not in journal.records for t in batch)
    ]


def _pictures(targets: Sequence[Target]) -> list[Picture]:
    """The pictures of some targets, each once."""
    return list({target.picture.name: target.picture for target in targets}.values())


def make_batch(
    targets: Sequence[Target],
    seen: Mapping[str, np.ndarray],
    size: int,
    others: int,
    settings: Settings,
    views: Views,
) -> Batch | None:
    """The targets whose pictures could be read, filled up to `size`; None if there are none.

    Raises:
      InputError: `preprocess` made arrays of different shapes.
    """
    good = [target for target in targets if target.picture.name in seen]
    if not good:
        return None
    rows = [*good, *good[:1] * (size - len(good))]
    inputs = [np.asarray(seen[target.picture.name]) for target in rows]
    for target, x in zip(rows, inputs, strict=True):
        if x.shape != inputs[0].shape:
            raise InputError(
                f"preprocess: Expected arrays of one shape, got {inputs[0].shape} and {x.shape} "
                f"for {target.picture.name}."
            )
    filled = [[*target.others, *[-1] * (others - len(target.others))] for target in rows]
    return Batch(
        good,
        jnp.asarray(np.stack(inputs)),
        jnp.asarray([target.label for target in rows], jnp.int32),
        np.array(filled, np.int32).reshape(len(rows), others),
        _masks(rows, inputs[0].shape[:2], views.crop),
        [target_key(settings.seed, target) for target in rows],
    )


def _masks(rows: Sequence[Target], shape: tuple[int, ...], crop: See | None) -> np.ndarray | None:
    """Where each target is, in the pixels of x; None where no picture says so."""
    if crop is None:
        return None
    drawn = [target.picture.mask(target.label) for target in rows]
    if all(mask is None for mask in drawn):
        return None
    masks = np.zeros((len(rows), *shape), bool)
    for i, mask in enumerate(drawn):
        if mask is not None:
            seen = np.asarray(crop(mask.convert("RGB")))[..., 0]
            if seen.shape != shape:
                raise InputError(f"crop: Expected pictures of x's {shape} pixels: {seen.shape}.")
            masks[i] = seen > 127
    return masks


def _crops(targets: Iterable[Target], views: Views) -> dict[gallery.TargetName, Image.Image]:
    """What the network sees of each target; empty if that is not known."""
    if views.crop is None:
        return {}
    seen: dict[str, Image.Image] = {}
    for target in targets:
        if target.picture.name not in seen:
            try:
                picture = target.picture.open()
            except ImageError as error:
                raise DataError(f"{target.picture.name} changed during the run: {error}") from error
            seen[target.picture.name] = views.crop(picture)
    return {(t.picture.name, t.label): seen[t.picture.name] for t in targets}


def _given_or_own(params: Any, name: str, given: See | None) -> See | None:
    own = given if given is not None else getattr(params, name, None)
    if own is not None and not callable(own):
        raise InputTypeError(f"{name}: Expected a function, got {type(own).__name__}.")
    return own


def _check_classes(dataset: Dataset, params: Any) -> tuple[str, ...]:
    """Class names, of the network or else of the dataset."""
    own = tuple(getattr(params, "labels", ()))
    if own and dataset.classes and len(own) != len(dataset.classes):
        raise InputError(
            f"dataset: Expected the {len(own)} classes of {getattr(params, 'name', 'the network')},"
            f" {dataset.name} has {len(dataset.classes)}."
        )
    return own or dataset.classes


def _configure(
    params: Any,
    apply_fn: ApplyFn | None,
    network: str,
    dataset: Dataset,
    settings: Settings,
    plan: Plan,
) -> dict[str, Any]:
    """Everything that the numbers depend on; compared when an evaluation is continued."""
    digest = sha256()
    for array in bind(params, apply_fn).arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    chosen = sha256()
    for target in itertools.chain(*plan.batches):
        named = f"{target.picture.name}\n{target.label}\n{target.picture.labels}\n"
        chosen.update(named.encode(errors="surrogateescape"))
    return {
        "format": _FORMAT,
        "version": dmbp_jax.__version__,
        "tables": list(settings.tables),
        "dataset": dataset.name,
        "network": network,
        "weights": digest.hexdigest(),
        "images per class": settings.images_per_class,
        "limit": settings.limit,
        "seed": settings.seed,
        "targets": sum(map(len, plan.batches)),
        "chosen targets": chosen.hexdigest(),
        "batch size": settings.batch_size,
        "step": settings.step,
        "points": settings.points,
        "activation": settings.activation,
        "last layer": settings.last_layer,
        "methods": [contender.name for contender in plan.contenders],
    } | {f"options of {contender.name}": contender.describe() for contender in plan.contenders}


def _clear(folder: Path) -> None:
    """Delete what an evaluation writes beside its journal, and nothing else."""
    for name in (TEXT, CSV, PAGE, SKIPPED):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / gallery.FOLDER, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, "utf-8", errors="backslashreplace")  # names of files may be anything
