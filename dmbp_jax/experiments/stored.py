"""Stored maps as a row of the tables: those of a large run, or of another tool in such a store.

Its rows can be the dataset too: then the maps are scored for the labels that they explain.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.data.samples import Dataset, FilePicture, Skipped, Target
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.experiments.rows import Batch
from dmbp_jax.networks.network import Network
from dmbp_jax.runs import records
from dmbp_jax.runs.manifest import describe_network, difference
from dmbp_jax.runs.reader import WHOLE, Run
from dmbp_jax.runs.store import Store
from dmbp_jax.version import __version__

_AT_ONCE = 64  # records read at the same time


@dataclass(frozen=True)
class StoredRow:
    """A row of Tables 1 and 2 whose maps are read from a store; `open_maps` makes one.

    Attributes:
      run: the store, read.
      name: method and store, unique in an evaluation.
      title: in tables.
      digest: SHA-256 over what all commit records say of the maps.
      places: (file, label) -> row of the store, with a map.
      failed: (file, label or None for an unknown top-1) -> why there is no map.
      has_zero: as in `MethodRow`.
    """

    run: Run = field(repr=False)
    name: str
    title: str
    digest: str
    places: Mapping[tuple[str, int], int] = field(repr=False)
    failed: Mapping[tuple[str, int | None], str] = field(repr=False)
    has_zero: bool = True

    repeatable = False

    @property
    def identity(self) -> Any:
        """The maps by content."""
        return self.digest

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
        key = target.picture.name, target.label
        if key not in self.places:
            return np.full(size, np.nan, np.float32)
        heat = self.run.heatmap(self.places[key])
        if heat.shape != size:
            raise InputError(f"maps: {self.title}: Expected maps of {size}, got {heat.shape}.")
        return heat


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
    for record in _read_all(run, url):
        digest.update(json.dumps(record.objects, sort_keys=True).encode())
        for row, values in enumerate(record.rows, start=record.shard * run.shard_size):
            key = values["file"], values["label"]
            if values["status"] == records.OK:
                places[key] = row
            else:
                failed[key] = values["error"]
    method, store = run.configuration["method"], run.store.name
    known = next((one for one in CATALOGUE if one.name == method), None)
    title = f"{known.title if known else method} ({store})"
    has_zero = known.has_zero if known else True
    name = f"{method}@{store}"
    return StoredRow(run, name, title, digest.hexdigest(), places, failed, has_zero)


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
    """Refuse stored maps of another network or of other pictures; name those that failed.

    Raises:
      InputTypeError: `params` is no `Network`.
      InputError: another network; a target that is in no row of the store.
    """
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
            reason = row.failed.get((name, target.label), row.failed.get((name, None)))
            if reason is not None:
                failures[name] = Skipped(name, f"{row.title}: {reason}")
            elif (name, target.label) not in row.places:
                absent.append(target)
        if absent:
            name, label = absent[0].picture.name, absent[0].label
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


def _read_all(run: Run, url: str | os.PathLike[str]) -> Iterable[records.Record]:
    """The records of all shards, in order."""
    for first in range(0, run.shards, _AT_ONCE):
        shards = list(range(first, min(first + _AT_ONCE, run.shards)))
        for record in records.read_records(run.store, shards):
            if record is None:
                raise InputError(
                    f"maps: {url}: Expected a finished run, {len(run.missing):,} rows are to do; "
                    "the same dmbp run command goes on with them."
                )
            yield record
