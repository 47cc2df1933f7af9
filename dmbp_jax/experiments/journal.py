"""What was measured, on disk: a log whose parts are written whole, and each only once.

A part is on disk before the next batch starts. It is an object of the store of large runs, so a
kill leaves whole parts alone.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.runs.store import Store

RECORDS = "records/"
_PART = re.compile(rf"{RECORDS}\d{{8}}\.jsonl")

Key = tuple[str, int, str]  # picture, label, method


class Record(NamedTuple):
    """What was measured on one map: of one picture, for one of its labels, by one method.

    Attributes:
      picture: name in its dataset.
      label: the target.
      method: name of the row, such as "dmbp-positive".
      pixels: H W of the map.
      values: measure -> number, NaN where it is undefined.
      curves: measure -> (S,) scores, empty where undefined.
    """

    picture: str
    label: int
    method: str
    pixels: int
    values: Mapping[str, float]
    curves: Mapping[str, np.ndarray]

    @property
    def key(self) -> Key:
        """Picture, label and method; no two records share them."""
        return self.picture, self.label, self.method


class Journal:
    """Records on disk in the order they were made; the same map is never recorded twice."""

    def __init__(self, store: Store) -> None:
        """Read the parts of a store.

        Raises:
          ResumeError: a line is not a record.
        """
        self._store = store
        self.records: dict[Key, Record] = {}
        parts = part_keys(store)
        self._next = 1 + max((int(key[len(RECORDS) : -len(".jsonl")]) for key in parts), default=-1)
        for key, data in zip(parts, store.get_many(parts), strict=True):
            for number, line in enumerate((data or b"").splitlines(), 1):
                record = _decode(line, f"{store.url}/{key}, line {number}")
                self.records.setdefault(record.key, record)

    def append(self, records: Iterable[Record]) -> list[Record]:
        """Store the new ones among `records`, wait until they are on disk, and return them.

        Raises:
          InputError: another process has written the next part.
        """
        new = [record for record in records if record.key not in self.records]
        if new:
            data = b"".join(map(_encode, new))
            if not self._store.put_new(f"{RECORDS}{self._next:08d}.jsonl", data):
                raise InputError(
                    f"out: Expected a free folder, {self._store.url} is being written to."
                )
            self._next += 1
        self.records |= {record.key: record for record in new}
        return new


def part_keys(store: Store) -> list[str]:
    """The parts of a store, in order."""
    return [key for key in store.keys(RECORDS) if _PART.fullmatch(key)]


def _encode(record: Record) -> bytes:
    values = {name: None if np.isnan(v) else float(v) for name, v in record.values.items()}
    curves = {name: [round(float(s), 5) for s in scores] for name, scores in record.curves.items()}
    line = record._asdict() | {"values": values, "curves": curves}
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _decode(line: bytes, where: str) -> Record:
    try:
        stored = json.loads(line)
        return Record(
            str(stored["picture"]),
            int(stored["label"]),
            str(stored["method"]),
            int(stored["pixels"]),
            {name: np.nan if v is None else float(v) for name, v in stored["values"].items()},
            {name: np.asarray(v, np.float32) for name, v in stored["curves"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeError(
            f"{where}: not a record. Choose another folder, or start over with force=True "
            "(--force)."
        ) from error
