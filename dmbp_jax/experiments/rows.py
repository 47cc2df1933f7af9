"""The rows of the paper's tables: methods with their options, or maps that are stored.

Methods are those of the catalogue, or your own. Stored maps are those of a large run, or of another
tool in such a store; its rows can be the dataset too: then the maps are scored for the labels that
they explain.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.data.samples import Dataset, FilePicture, Skipped, Target
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import check_images
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics.heatmaps import fit_heatmap
from dmbp_jax.networks.network import Network
from dmbp_jax.runs import records
from dmbp_jax.runs.configuration import describe_network
from dmbp_jax.runs.manifest import difference
from dmbp_jax.runs.reader import WHOLE, Run
from dmbp_jax.runs.store import Store
from dmbp_jax.version import __version__


class Table(NamedTuple):
    """One table of the paper: its title, its methods and its measures."""

    title: str
    methods: tuple[str, ...]
    measures: tuple[str, ...]


_ALL = tuple(method.name for method in CATALOGUE)
_VARIANTS = tuple(name for method in CATALOGUE if method.variants for name in method.rows)

TABLES: dict[int, Table] = {
    1: Table("what each term of the objective adds", ("gradient", *_VARIANTS), ("im", "cim")),
    2: Table("all methods", _ALL, ("im", "cim")),
    3: Table("rank correlation after the last layer is re-drawn", _ALL, ("rank", "rank_absolute")),
}


class Batch(NamedTuple):
    """Targets whose pictures could be read, filled up with the first to the compiled size N."""

    targets: Sequence[Target]  # without those that fill it up
    crops: Mapping[tuple[str, int], Image.Image]  # key of a target -> its crop, for the gallery
    x: jax.Array  # (N, H, W, C)
    labels: jax.Array  # (N,) int32
    others: np.ndarray  # (N, K) int32, the other labels of each picture, filled up with -1
    masks: np.ndarray  # (N, H, W) bool, where the target is; nowhere where no picture says so
    keys: jax.Array  # (N,) random keys


@dataclass(frozen=True)
class MethodRow:
    """A row of a table: a method with its options, ready to be called on a batch.

    Attributes:
      name: unique, in file names and records.
      function: `f(params, x, label, *, apply_fn, **options)` to maps, as in `dmbp_jax.methods`.
      title: in tables; "" is the name.
      options: keyword arguments of `function`.
      random: whether the map depends on `key=`, which then is (N,), a key for each image, so that
        its map does not depend on its batch.
      has_zero: whether zero means "no evidence"; if not, pictures are drawn around the mean.
    """

    name: str
    function: Callable[..., Any]
    title: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    random: bool = False
    has_zero: bool = True

    @property
    def identity(self) -> Any:
        """What makes the maps, for the check of a continued evaluation."""
        return self.function

    def of(self, batch: Batch) -> Callable[..., jax.Array]:
        """The maps of one batch: (params, x, label, *, apply_fn) -> (N, H, W), signed."""
        options = dict(self.options) | ({"key": batch.keys} if self.random else {})

        def maps(
            params: Any, x: jax.Array, label: jax.Array, *, apply_fn: ApplyFn | None = None
        ) -> jax.Array:
            found = self.function(params, x, label, apply_fn=apply_fn, **options)
            return fit_heatmap(found, *check_images(x))

        return maps


@dataclass(frozen=True)
class StoredRow:
    """A row of Tables 1 and 2 whose maps are read from a store; `open_maps` makes one.

    Attributes:
      run: the store, read.
      name: method and store, unique in an evaluation.
      title: in tables.
      identity: of the maps, SHA-256 over what all commit records say of them.
      places: (file, label) -> row of the store, with a map.
      failed: (file, label or None for an unknown top-1) -> why there is no map.
      digests: file -> SHA-256 of the picture that was explained, where it is known.
      has_zero: as in `MethodRow`.
    """

    run: Run = field(repr=False)
    name: str
    title: str
    identity: str
    places: Mapping[tuple[str, int], int] = field(repr=False)
    failed: Mapping[tuple[str, int | None], str] = field(repr=False)
    digests: Mapping[str, str] = field(repr=False)
    has_zero: bool = True

    @property
    def options(self) -> tuple[tuple[str, Any], ...]:
        """How the maps were made, as far as their store knows."""
        return tuple(self.run.configuration["options"].items())

    def of(self, batch: Batch) -> Callable[..., jax.Array]:
        """The maps of one batch, for whatever network; NaN where the store has none."""
        size = batch.x.shape[1:3]
        heat = np.stack([self._heatmap(target, size) for target in batch.targets])
        repeats = heat[:1].repeat(len(batch.x) - len(heat), axis=0)  # the rows that fill a batch
        maps = jnp.asarray(np.concatenate([heat, repeats]))
        return lambda params, x, label, *, apply_fn=None: maps

    def _heatmap(self, target: Target, size: tuple[int, ...]) -> np.ndarray:
        if target.key not in self.places:
            return np.full(size, np.nan, np.float32)
        heat = self.run.heatmap(self.places[target.key])
        if heat.shape != size:
            raise InputError(f"maps: {self.title}: Expected maps of {size}, got {heat.shape}.")
        return heat


TableRow = MethodRow | StoredRow


def open_maps(url: str | os.PathLike[str]) -> StoredRow:
    """The maps of a store, read with its rows: of `dmbp run`, or of `dmbp_jax.runs.store_maps`.

    Raises:
      StoreError: no store of a run, or it cannot be read.
      InputError: the run is not finished, or has stored only one of positive and negative.

    Example:
      >>> open_maps("maps.zarr").name  # doctest: +SKIP
      'dmbp@maps.zarr'
    """
    run = Run(Store(url))
    if not any(set(names) <= set(run.save) for names in WHOLE):
        raise InputError(
            f"maps: {url}: Expected heatmap, map, or positive and negative, got "
            f"{', '.join(run.save)} alone."
        )
    digest = sha256()
    places: dict[tuple[str, int], int] = {}
    failed: dict[tuple[str, int | None], str] = {}
    digests: dict[str, str] = {}
    if run.missing:
        raise InputError(
            f"maps: {url}: Expected a finished run, {len(run.missing):,} rows are to do; "
            "the same dmbp run command goes on with them."
        )
    for record in run.commits():
        digest.update(json.dumps(record.objects, sort_keys=True).encode())
        for row, values in enumerate(record.rows, start=record.shard * run.shard_size):
            key = values["file"], values["label"]
            if values["sha256"] is not None:
                digests[values["file"]] = values["sha256"]
            if values["status"] == records.OK:
                places[key] = row
            else:
                failed[key] = values["error"]
    method, store = run.configuration["method"], run.store.name
    known = next((one for one in CATALOGUE if one.name == method), None)
    title = f"{known.title if known else method} ({store})"
    has_zero = known.has_zero if known else True
    name = f"{method}@{store}"
    return StoredRow(run, name, title, digest.hexdigest(), places, failed, digests, has_zero)


def list_stored(stored: StoredRow, root: str | os.PathLike[str] | None = None) -> Dataset:
    """The pictures of a store with the labels that its maps explain; failed rows are skipped.

    Args:
      stored: as `open_maps` returns it.
      root: folder of the pictures; None is where they were when the maps were made.
    """
    folder = stored.run.root if root is None else Path(root)
    labels: dict[str, set[int]] = {}
    for file, label in stored.places:
        labels.setdefault(file, set()).add(label)
    pictures = tuple(
        FilePicture(file, folder / file, tuple(sorted(labels[file]))) for file in sorted(labels)
    )
    reasons = {file: reason for (file, _), reason in stored.failed.items()}
    skipped = tuple(Skipped(file, reason) for file, reason in reasons.items())
    return Dataset("stored", pictures, skipped, tuple(stored.run.labels))


def check_stored(
    rows: Iterable[Any], params: Any, targets: Sequence[Target]
) -> tuple[Skipped, ...]:
    """Refuse stored maps of another network or of other pictures; name those that failed."""
    failures: dict[str, Skipped] = {}
    for row in rows:
        if not isinstance(row, StoredRow):
            continue
        if not isinstance(params, Network):
            got = type(params).__name__
            raise InputTypeError(f"params: Expected a Network with stored maps, got {got}.")
        _check_network(row, params)
        absent = []
        for target in targets:
            name = target.picture.name
            reason = row.failed.get(target.key, row.failed.get((name, None)))
            if reason is not None:
                failures[name] = Skipped(name, f"{row.title}: {reason}")
            elif target.key not in row.places:
                absent.append(target.key)
        if absent:
            name, label = absent[0]
            raise InputError(
                f"maps: {row.title}: Expected a map of every target, got none of {len(absent):,}, "
                f"the first {name} with label {label}."
            )
    return tuple(failures.values())


def _check_network(row: StoredRow, net: Network) -> None:
    own, made = describe_network(net), row.run.configuration
    stored = {name: made.get(name) for name in own}
    if (made.get("package"), made.get("jax")) != (__version__, jax.__version__):
        stored.pop("architecture"), own.pop("architecture")  # written otherwise by other versions
    stored.pop("network"), own.pop("network")  # a name; the weights say which it is
    if found := difference(stored, own):
        raise InputError(f"maps: {row.title}: Expected maps of {net.name}, got another {found}.")
