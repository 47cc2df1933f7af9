"""The paper's tables for any network on any dataset: the loop over batches and methods.

Every map is made once and measured at once; what is measured is on disk before the loop goes on.
"""

import itertools
import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from dmbp_jax.data.loading import ReadAhead, skip
from dmbp_jax.data.samples import Dataset, Skipped, Target
from dmbp_jax.errors import DataError, ImageError, InputError
from dmbp_jax.experiments.measuring import Decoded, decode, make_batch, measure
from dmbp_jax.experiments.page import Ends, TargetName, keep_ends, make_page, save_crops, save_maps
from dmbp_jax.experiments.plan import (
    Evaluated,
    Plan,
    Transform,
    configure,
    find_evaluated,
    make_plan,
)
from dmbp_jax.experiments.results import (
    CSV,
    PAGE,
    SKIPPED,
    TEXT,
    Key,
    Record,
    ResultFolder,
    open_folder,
)
from dmbp_jax.experiments.rows import Batch, check_stored
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.experiments.tables import Evaluation, as_csv, make_tables
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.networks.registry import find_entry


def evaluate(
    params: Any,
    dataset: Dataset,
    out: str | Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    apply_fn: ApplyFn | None = None,
    preprocess: Transform | None = None,
    crop: Transform | None = None,
    published: str | None = None,
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
      out: folder for the results, made if missing. What a later call continues from is in its
        folder `dmbp-evaluation`, which is the tool's alone; other files in `out` are left alone.
      settings: tables, methods, their options, number of images, ...
      apply_fn: `(params, x) -> logits`.
      preprocess: from an RGB picture to x (H, W, C), of equal size for all; None takes
        `params.preprocess`.
      crop: from an RGB picture to the part of it that x shows, of the size of x; for the gallery
        and for localisation. None takes `params.crop` if there is one; without, there is neither.
      published: name of the network ("resnet50", "vgg16_voc", ...), if `params` holds its
        published weights, unchanged. Only then the paper's numbers stand beside ours.
      force: remove the evaluation in `out`, and no other files, and start over.
      progress: show a bar with the time left.

    Returns:
      `Evaluation`. Written to `out`: `tables.md`, `tables.csv`, `evaluation.html` (a page that
      needs nothing else) and `skipped.txt`.

    Raises:
      ResumeError: `out` holds an evaluation with other settings; the message names the field.
      DataError: not one picture could be read.
      InputError, InputTypeError: arguments that do not fit each other; `out` holds one of these
        files, but no evaluation; stored maps of another network or of other pictures.
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
    if published is not None:
        find_entry(published)
    evaluated = find_evaluated(params, apply_fn, preprocess, crop)
    classes = _check_classes(dataset, params)
    rows = settings.rows(evaluated.name)
    plan = make_plan(dataset, settings, rows)
    failed = check_stored(plan.rows, params, plan.targets)
    configuration = configure(evaluated, dataset, settings, plan)
    with open_folder(Path(out), configuration, force=force) as folder:
        folder.check_sizes(target.picture for target in plan.targets)
        unread, ends = _measure_missing(folder, evaluated, plan, settings, progress=progress)
        records = tuple(folder.records[key] for key in plan.map_keys() if key in folder.records)
        skipped = (*dataset.skipped, *unread, *failed)
        if not records:
            first = f"{skipped[0].name}: {skipped[0].reason}" if skipped else "no targets"
            raise DataError(f"dataset: Expected at least one picture that can be read; {first}.")
        title = f"{evaluated.name} on {dataset.name}"
        tables = make_tables(records, rows, title, dataset.name, published)
        result = Evaluation(tables, records, skipped, folder.path)
        folder.write_text(TEXT, str(result))
        folder.write_text(CSV, as_csv(tables))
        folder.write_text(SKIPPED, "".join(f"{one.name}: {one.reason}\n" for one in skipped))
        page = make_page(result, folder, configuration, classes, plan.shown, ends)
        folder.write_text(PAGE, page)
    return result


def _measure_missing(
    folder: ResultFolder,
    evaluated: Evaluated,
    plan: Plan,
    settings: Settings,
    *,
    progress: bool,
) -> tuple[tuple[Skipped, ...], Ends]:
    """Measure what is missing; the pictures that could not be read, and the ends of the gallery."""
    if progress:
        from tqdm.auto import tqdm
    else:  # without importing what warns in a notebook that has no widgets
        from tqdm import tqdm

    keys = plan.map_keys()
    done = sum(key in folder.records for key in keys)
    unread: dict[str, Skipped] = {}
    scores = _score_targets(plan, folder.records, plan.targets)
    ends = keep_ends(folder, scores, settings.gallery)
    with (
        closing(_read_batches(folder, evaluated, plan, settings, unread)) as batches,
        tqdm(total=len(keys), initial=done, unit="map", smoothing=0, disable=not progress) as bar,
    ):
        for batch in batches:
            save_crops(folder, batch.crops)
            for row in plan.missing(folder.records, batch.targets):
                bar.set_postfix_str(row.name)
                records, maps = measure(evaluated, batch, row, plan.measures[row.name], settings)
                save_maps(folder, row, batch.crops, maps)
                bar.update(folder.append(records))
            scores |= _score_targets(plan, folder.records, batch.targets)
            ends = keep_ends(folder, scores, settings.gallery)
    return tuple(unread.values()), ends


def _score_targets(
    plan: Plan, records: Mapping[Key, Record], targets: Iterable[Target]
) -> dict[TargetName, float]:
    """The score of each target that is measured in all rows, by the map of the row that is shown.

    It is the IM, or where there is none minus the absolute rank correlation.
    """
    scores = {}
    for target in targets:
        if all((*target.key, row.name) in records for row in plan.rows):
            values = records[(*target.key, plan.shown)].values
            scores[target.key] = values.get("im", -abs(values.get("rank", math.nan)))
    return scores


def _read_batches(
    folder: ResultFolder,
    evaluated: Evaluated,
    plan: Plan,
    settings: Settings,
    unread: dict[str, Skipped],
) -> Generator[Batch, None, None]:
    """The batches of which something is missing; pictures that cannot be read go to `unread`."""
    pending = [batch for batch in plan.batches if plan.missing(folder.records, batch)]
    pictures = [
        list({one.picture.name: one.picture for one in batch}.values()) for batch in pending
    ]
    one = partial(decode, evaluated, settings.gallery > 0, plan.rows)
    with ReadAhead(itertools.chain(*pictures), one) as reading:
        found = iter(reading)
        for targets, needed in zip(pending, pictures, strict=True):
            decoded: dict[str, Decoded] = {}
            for picture, item in itertools.islice(found, len(needed)):
                if isinstance(item, ImageError):
                    unread[picture.name] = skip(picture, item)
                else:
                    decoded[picture.name] = item
            batch = make_batch(targets, decoded, plan, settings.seed, evaluated.crop)
            if batch is not None and plan.missing(folder.records, batch.targets):
                yield batch


def _check_classes(dataset: Dataset, params: Any) -> tuple[str, ...]:
    """Class names, of the network or else of the dataset."""
    own = tuple(getattr(params, "labels", ()))
    if own and dataset.classes and len(own) != len(dataset.classes):
        raise InputError(
            f"dataset: Expected the {len(own)} classes of {getattr(params, 'name', 'the network')},"
            f" {dataset.name} has {len(dataset.classes)}."
        )
    return own or dataset.classes
