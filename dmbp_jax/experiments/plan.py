"""What an evaluation does: the network, the targets in batches, and what decides what continues.

All of it is made from the arguments alone, so that a run that continues makes the same batches.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from PIL import Image

from dmbp_jax.data.samples import Dataset, Target, choose_targets
from dmbp_jax.engine.batches import equal_size
from dmbp_jax.errors import InputTypeError
from dmbp_jax.experiments.results import Key
from dmbp_jax.experiments.rows import TABLES, TableRow
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.graph.model import ApplyFn, bind
from dmbp_jax.networks.network import Network
from dmbp_jax.runs.configuration import describe_network
from dmbp_jax.runs.fingerprint import describe, fingerprint
from dmbp_jax.version import __version__

FORMAT = 5  # raised when results of an older version cannot be continued
_APART = ("methods", "options", "nonaffine", "gallery")  # rows say the first three; of the page

Transform = Callable[[Image.Image], Any]


class Evaluated(NamedTuple):
    """The network whose maps are measured: logits = apply_fn(params, x), or params(x)."""

    params: Any
    apply_fn: ApplyFn | None
    preprocess: Transform  # from an RGB picture to x
    crop: Transform | None  # to the part of the picture that x shows, where it is known

    @property
    def name(self) -> str:
        """The name of the network, or else of the function."""
        return str(getattr(self.params, "name", getattr(self.apply_fn, "__name__", "network")))


def find_evaluated(
    params: Any, apply_fn: ApplyFn | None, preprocess: Transform | None, crop: Transform | None
) -> Evaluated:
    """The network, with the transforms that are given or else its own."""
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

    def map_keys(self) -> list[Key]:
        """The maps of the whole evaluation, in the order in which they are made."""
        return [
            (*target.key, row.name)
            for batch in self.batches
            for row in self.rows
            for target in batch
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
    given = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _APART}
    given["images_per_class"] = settings.per_class(dataset.name)
    return {
        "format": FORMAT,
        "version": __version__,
        "jax": jax.__version__,
        "device": next(iter(jnp.zeros(()).devices())).device_kind,
        "dataset": dataset.name,
        **_describe_network(evaluated),
        "preprocess": _describe_transform(evaluated.preprocess),
        "crop": _describe_transform(evaluated.crop),
        **{name.replace("_", " "): value for name, value in given.items()},
        "targets": len(chosen),
        "chosen targets": fingerprint(chosen),
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
