"""Reading what a large run has stored: rows in order of the inputs, maps by index or name."""

import operator
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from dmbp_jax.errors import InputError, StoreError
from dmbp_jax.runs import arrays, manifest, records
from dmbp_jax.runs.inputs import Inputs, read_lines
from dmbp_jax.runs.store import Store

WHOLE = (("heatmap",), ("map",), ("positive", "negative"))  # any of these makes the whole map
_AT_ONCE = 64  # commit records read at the same time


def open(url: str | os.PathLike[str]) -> "Run":
    """Open the store of a run that is finished or not; nothing but its manifest is read.

    Raises:
      StoreError: it is not there, or no store of `dmbp run`.

    Example:
      >>> run = open("maps.zarr")  # doctest: +SKIP
      >>> run.rows[0]["file"], run.maps("heatmap")["dog.jpg"].shape  # doctest: +SKIP
      ('cat.jpg', (224, 224))
    """
    return Run(Store(url))


class Run:
    """A stored run.

    Attributes:
      store: where it lies.
      configuration: what its numbers depend on.
      labels: class names of the network.
      root: folder of the pictures when the run was made.
      save: names of the stored maps.
    """

    def __init__(self, store: Store) -> None:
        stored = manifest.read_manifest(store)
        self.store = store
        self.fingerprint: str = stored["fingerprint"]
        self.configuration: dict[str, Any] = stored["configuration"]
        self.labels: list[str] = stored["about"]["labels"]
        self._metadata: dict[str, str] = stored["about"].get("metadata", {})
        self.root = Path(stored["about"]["root"])
        self.save: tuple[str, ...] = tuple(self.configuration["save"])
        self.shard_size: int = self.configuration["shard_size"]
        self.shards = -(-len(self) // self.shard_size)
        self._opened: dict[str, Maps] = {}
        self._record: records.Record | None = None  # the one read last

    def __len__(self) -> int:
        """Number of rows, done or not."""
        return self.configuration["images"]["rows"]

    @cached_property
    def inputs(self) -> Inputs:
        """Files, sizes and given labels of all rows."""
        try:
            inputs = read_lines(self.store.get(manifest.INPUTS) or b"", self.root)
            if len(inputs) != len(self):
                raise ValueError(f"Expected {len(self)} rows, got {len(inputs)}")
        except (ValueError, LookupError, TypeError) as error:
            raise self._damaged(manifest.INPUTS, f": {error}") from error
        return inputs

    def check_metadata(self, key: str) -> None:
        """Refuse a `zarr.json` that is not the one that was written.

        Raises:
          StoreError: it is damaged or missing.
        """
        found = sha256(self.store.get(key) or b"").hexdigest()
        if self._metadata.get(key, found) != found:  # unknown in stores of dmbp-jax 0.2
            raise self._damaged(key)

    def _damaged(self, key: str, why: str = "") -> StoreError:
        return StoreError(
            f"{self.store.url}: {key} is damaged or missing{why}. Delete it, and the same dmbp run "
            "command writes it anew."
        )

    @property
    def rows(self) -> "Rows":
        """The rows as dicts, in order of the inputs; read shard by shard."""
        return Rows(self)

    def maps(self, name: str = "heatmap") -> "Maps":
        """The stored maps called `name`, in order of the inputs; read when indexed.

        Raises:
          InputError: the run has not stored them.
        """
        if name not in self.save:
            raise InputError(f"name: Expected one of {', '.join(self.save)}, got {name!r}.")
        if name not in self._opened:
            self._opened[name] = Maps(self, name)
        return self._opened[name]

    def heatmap(self, row: int) -> np.ndarray:
        """The map of a row summed over channels, (H, W), from whatever is stored of it."""
        names = next((one for one in WHOLE if set(one) <= set(self.save)), self.save)
        maps = [self.maps(name)[row] for name in names]
        heat = np.sum([one.sum(-1) if one.ndim == 3 else one for one in maps], axis=0)
        if not np.isfinite(heat).all():
            raise StoreError(
                f"{self.store.url}: {self.inputs.files[row]} has a map, but it cannot be read; "
                "dmbp verify names what is damaged."
            )
        return heat

    @property
    def missing(self) -> list[int]:
        """Rows whose shard is not done."""
        done = records.committed(self.store)
        return [row for row in range(len(self)) if row // self.shard_size not in done]

    def commits(self) -> Iterator[records.Record]:
        """The commit records in order, many read at a time."""
        done = sorted(records.committed(self.store))
        for first in range(0, len(done), _AT_ONCE):
            shards = done[first : first + _AT_ONCE]
            found = records.read_records(self.store, self.fingerprint, shards)
            yield from (record for record in found if record is not None)

    def failures(self) -> Iterator[dict[str, Any]]:
        """The rows without a map, each with its reason."""
        for record in self.commits():
            yield from (row for row in record.rows if row["status"] == records.FAILED)

    def verify(self) -> list[records.Problem]:
        """Read every object of every committed shard and compare its size and SHA-256.

        Finds maps that were damaged, lost, or overwritten by a second writer. Changes nothing.

        Raises:
          StoreError: the store cannot be read, or what describes it is damaged.
        """
        for key in self._metadata:
            self.check_metadata(key)
        _ = self.inputs
        done = sorted(records.committed(self.store))
        found = (records.find_problem(self.store, self.fingerprint, shard) for shard in done)
        return [problem for problem in found if problem is not None]

    @cached_property
    def _index(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, file in enumerate(self.inputs.files):
            found.setdefault(file, []).append(row)
        return found

    def index(self, file: str, label: int | None = None) -> int:
        """The row of a file, and of a label if the file has several rows.

        Raises:
          KeyError: no such file, no row with this label, or several.
        """
        found = self._index.get(file, [])
        if label is not None:
            found = [row for row in found if self.rows[row]["label"] == label]
        if len(found) != 1:
            several = "several rows; give (file, label)" if found else "no such row"
            raise KeyError(f"{file}: {several}.")
        return found[0]

    def shard_rows(self, shard: int) -> tuple[dict[str, Any], ...]:
        """The rows of a shard; those not done yet have status "missing"."""
        if self._record is None or self._record.shard != shard:
            (self._record,) = records.read_records(self.store, self.fingerprint, [shard])
        if self._record is not None:
            return self._record.rows
        first = shard * self.shard_size
        rows = range(first, min(first + self.shard_size, len(self)))
        return tuple(records.new_row(self.inputs, row, records.MISSING) for row in rows)


class Rows(Sequence[dict[str, Any]]):
    """file, sha256, label, y, y_positive, y_negative, y_nuisance, probability, status, error.

    `status` is "ok", "failed" (with the reason in `error`) or "missing" (its shard is not done).
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __len__(self) -> int:
        return len(self._run)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = _check_index(index, len(self))
        size = self._run.shard_size
        return dict(self._run.shard_rows(row // size)[row % size])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for shard in range(self._run.shards):
            yield from map(dict, self._run.shard_rows(shard))


class Maps:
    """Maps of one kind, float32, in the units of the network's logits.

    `maps[i]` is one map by index, `maps["dog.jpg"]` by file name, `maps["dog.jpg", 207]` by name
    and label, `maps[2:9]` several. A row that failed or is not done is NaN everywhere.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        names = [name, name + arrays.SCALE][: 1 + (run.configuration["dtype"] == "float16")]
        for one in names:
            run.check_metadata(f"{one}/zarr.json")
        self._arrays = [run.store.array(one) for one in names]

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, H, W) or (rows, H, W, C)."""
        return tuple(self._arrays[0].shape)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._run)

    def __getitem__(self, index: int | slice | str | tuple[str, int]) -> np.ndarray:
        """One map or several."""
        if isinstance(index, slice):
            first, stop, step = index.indices(len(self))
            # TensorStore takes no slice that ends before it begins.
            return self._read(slice(first, stop, step) if range(first, stop, step) else slice(0, 0))
        if isinstance(index, str):
            index = self._run.index(index)
        elif isinstance(index, tuple):
            index = self._run.index(*index)
        return self._read(_check_index(index, len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All maps, in memory."""
        return self[:].astype(dtype or np.float32)

    def _read(self, index: int | slice) -> np.ndarray:
        values, *scales = self._run.store.read_rows(self._arrays, index)
        result = np.asarray(values, np.float32)
        for factors in scales:
            result = result * factors.reshape(*factors.shape, *[1] * (len(self.shape) - 1))
        return result


def _check_index(index: SupportsIndex, length: int) -> int:
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"Expected an index below {length}, got {index}.")
    return index % length
