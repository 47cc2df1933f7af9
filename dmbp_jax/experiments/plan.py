"""What an evaluation does, and how: settings, the targets in batches, what decides what continues.

All of it is made from the arguments alone, so that a run that continues makes the same batches.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from PIL import Image

from dmbp_jax.catalogue import Method
from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.data.samples import Dataset, Target, choose_targets
from dmbp_jax.engine.batches import equal_size
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.experiments.results import Key
from dmbp_jax.experiments.rows import TABLES, TableRow, choose_rows
from dmbp_jax.graph.model import ApplyFn, bind
from dmbp_jax.metrics.curves import ACTIVATIONS, Activation
from dmbp_jax.networks.network import Network
from dmbp_jax.runs.fingerprint import describe, fingerprint
from dmbp_jax.runs.manifest import describe_network
from dmbp_jax.version import __version__

FORMAT = 5  # raised when results of an older version cannot be continued
# Dataset -> targets drawn for each class, where not all are taken. The paper's Table 1 has a
# subset of ImageNet alone; the generated dataset is ours and has no end.
IMAGES_PER_CLASS = {"imagenet": 5, "generated": 4}


@dataclass(frozen=True)
class Settings:
    """Settings of one evaluation, checked when made.

    Attributes:
      tables: which of the paper's tables, of 1, 2 and 3.
      methods: rows of every table: names, `dmbp_jax.catalogue.Method`s of your own, or
        other rows (`MethodRow`, `open_maps`); None takes the paper's rows.
      options: method -> option -> value, such as
        `{"rise": {"n_masks": 500}, "dmbp": {"steps": 50}}`.
      nonaffine: as in `dmbp_jax.attribute`, of every method that looks into the network; "freeze"
        for networks with gates, such as normalisation and attention.
      images_per_class: targets drawn for each class, or "all"; None is what the dataset asks for:
        5 for ImageNet (the paper's Table 1), 4 for generated pictures, all for every other.
      limit: at most so many targets, spread evenly over those drawn; None is no limit.
      seed: of the choice of targets, of noise, and of the re-drawn layers.
      redraws: new last layers that Table 3 averages over.
      step: pixels inserted at a time; 224 when neither `step` nor `points` is given.
      points: number of points of a curve, instead of `step`.
      activation: "softmax" or "sigmoid"; None takes the network's own, else softmax.
      last_layer: path of the last layer's weights where it cannot be found (Table 3).
      batch_size: images at once.
      gallery: number of best and of worst images in the page.

    Raises:
      InputError, InputTypeError: a field has a wrong type or range.

    Example:
      >>> Settings(tables=(1, 3), options={"dmbp": {"steps": 50}}).batch_size
      8
    """

    tables: tuple[int, ...] = (1, 2, 3)
    methods: Sequence[str | Method | TableRow] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nonaffine: str = "refuse"
    images_per_class: int | Literal["all"] | None = None
    limit: int | None = None
    seed: int = 0
    redraws: int = 5
    step: int | None = None
    points: int | None = None
    activation: Activation | None = None
    last_layer: str | None = None
    batch_size: int = 8
    gallery: int = 4

    def __post_init__(self) -> None:
        if self.images_per_class not in (None, "all"):
            check_count(self.images_per_class, "images_per_class")
        for name in ("limit", "step"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        if self.points is not None:
            check_count(self.points, "points", minimum=2)
            if self.step is not None:
                raise InputError("points: Expected step or points, got both.")
        check_count(self.seed, "seed", minimum=0)
        check_count(self.redraws, "redraws")
        check_count(self.batch_size, "batch_size")
        check_count(self.gallery, "gallery", minimum=0)
        if self.activation is not None and self.activation not in ACTIVATIONS[:2]:
            raise InputError(
                f"activation: Expected one of {ACTIVATIONS[:2]} or None, got {self.activation!r}."
            )
        check_choice(self.nonaffine, "nonaffine", ("refuse", "freeze"))
        self.rows()

    def rows(self, network: str = "") -> dict[int, tuple[TableRow, ...]]:
        """Table -> its rows, for a network of this name."""
        return choose_rows(self, network)

    def per_class(self, dataset: str) -> int | None:
        """Targets drawn for each class of a dataset of this name; None takes all."""
        if self.images_per_class is None:
            return IMAGES_PER_CLASS.get(dataset)
        return None if self.images_per_class == "all" else self.images_per_class


Transform = Callable[[Image.Image], Any]


class Evaluated(NamedTuple):
    """The network whose maps are measured: logits = apply_fn(params, x), or params(x)."""

    params: Any
    apply_fn: ApplyFn | None
    preprocess: Transform  # from an RGB picture to x
    crop: Transform | None  # to the part of the picture that x shows, where it is known

    @property
    def name(self) -> str:
        """Of the network, or else of the function."""
        return str(getattr(self.params, "name", getattr(self.apply_fn, "__name__", "network")))


def find_evaluated(
    params: Any, apply_fn: ApplyFn | None, preprocess: Transform | None, crop: Transform | None
) -> Evaluated:
    """The network, with the transforms that are given or else its own.

    Raises:
      InputTypeError: a transform is no function, or there is no `preprocess`.
    """
    preprocess = preprocess if preprocess is not None else getattr(params, "preprocess", None)
    crop = crop if crop is not None else getattr(params, "crop", None)
    for name, transform in (("preprocess", preprocess), ("crop", crop)):
        if transform is not None and not callable(transform):
            raise InputTypeError(f"{name}: Expected a function, got {type(transform).__name__}.")
    if preprocess is None:
        raise InputTypeError(
            "preprocess: Expected a function from a picture to x, "
            f"since {type(params).__name__} has no `preprocess`; got None."
        )
    return Evaluated(params, apply_fn, preprocess, crop)


class Plan(NamedTuple):
    """Batches of targets, and the rows with the measures of each."""

    batches: list[tuple[Target, ...]]  # of nearly equal size
    rows: tuple[TableRow, ...]  # of all tables, each once
    measures: Mapping[str, tuple[str, ...]]  # name of a row -> what is measured on its maps
    others: int  # the largest number of other labels that a picture has

    @property
    def targets(self) -> list[Target]:
        """All of them, in order."""
        return list(itertools.chain(*self.batches))

    @property
    def size(self) -> int:
        """Targets of a batch; the last one may have fewer."""
        return len(self.batches[0]) if self.batches else 0

    @property
    def shown(self) -> str:
        """The row by which the gallery chooses images: DMBP, or else the first."""
        names = [row.name for row in self.rows]
        return "dmbp" if "dmbp" in names else names[0]

    def keys(self) -> list[Key]:
        """The maps of the whole evaluation, in the order in which they are made."""
        return [
            (*target.key, row.name) for batch in self.batches for row in self.rows for target in batch
        ]

    def missing(self, records: Collection[Key], batch: Sequence[Target]) -> list[TableRow]:
        """The rows that are not recorded for every target of a batch."""
        return [
            row for row in self.rows if any((*one.key, row.name) not in records for one in batch)
        ]


def make_plan(
    dataset: Dataset, settings: Settings, tables: Mapping[int, Sequence[TableRow]]
) -> Plan:
    """Choose the targets, cut them into batches, and join the rows of all tables."""
    targets = choose_targets(dataset, settings.per_class(dataset.name), settings.seed)
    if settings.limit is not None and settings.limit < len(targets):
        places = [i * len(targets) // settings.limit for i in range(settings.limit)]
        targets = tuple(targets[i] for i in places)
    size = equal_size(len(targets), settings.batch_size)
    batches = [targets[first : first + size] for first in range(0, len(targets), size)]
    rows: dict[str, TableRow] = {}
    measures: dict[str, tuple[str, ...]] = {}
    for table, of_table in tables.items():
        for row in of_table:
            rows.setdefault(row.name, row)
            both = (*measures.get(row.name, ()), *TABLES[table].measures)
            measures[row.name] = tuple(dict.fromkeys(both))
    others = max((len(target.others) for target in targets), default=0)
    return Plan(batches, tuple(rows.values()), measures, others)


def configure(
    evaluated: Evaluated, dataset: Dataset, settings: Settings, plan: Plan
) -> dict[str, Any]:
    """Name -> value; compared entry by entry when an evaluation is continued.

    Long values, such as weights and code, are there as SHA-256 of what `describe` says of them.
    """
    chosen = [(target.key, target.picture.labels) for target in plan.targets]
    return {
        "format": FORMAT,
        "version": __version__,
        "jax": jax.__version__,
        "device": next(iter(jnp.zeros(()).devices())).device_kind,
        "tables": list(settings.tables),
        "dataset": dataset.name,
        **_describe_network(evaluated),
        "preprocess": _describe_transform(evaluated.preprocess),
        "crop": _describe_transform(evaluated.crop),
        "images per class": settings.per_class(dataset.name),
        "limit": settings.limit,
        "seed": settings.seed,
        "redraws": settings.redraws,
        "targets": len(chosen),
        "chosen targets": fingerprint(chosen),
        "batch size": settings.batch_size,
        "step": settings.step,
        "points": settings.points,
        "activation": settings.activation,
        "last layer": settings.last_layer,
        "methods": [row.name for row in plan.rows],
        "code of methods": fingerprint([row.identity for row in plan.rows]),
    } | {f"options of {row.name}": describe(dict(row.options)) for row in plan.rows}


def _describe_network(evaluated: Evaluated) -> dict[str, Any]:
    """As a run describes it; one of another library by its code, since x has no known shape yet."""
    if isinstance(evaluated.params, Network) and evaluated.apply_fn is None:
        return describe_network(evaluated.params)
    model = bind(evaluated.params, evaluated.apply_fn)
    return {
        "network": evaluated.name,
        "weights": fingerprint(model.arrays),
        "network without weights": fingerprint((model.apply_fn, model.skeleton)),
    }


def _describe_transform(transform: Transform | None) -> Any:
    """By content; of a network's own method, its preprocessing without the weights."""
    owner = getattr(transform, "__self__", None)
    return describe(getattr(owner, "preprocessing", transform))
