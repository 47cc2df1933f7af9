"""What was measured, on disk: append-only, safe against a kill at any moment.

A line for each map is on disk before the next batch starts; a line cut short is thrown away.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dmbp_jax.errors import ResumeError

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

    def __init__(self, descriptor: int, path: Path) -> None:
        """Read the records of a file; what a kill left of a last line is cut off.

        Args:
          descriptor: of the file, open for appending.
          path: of the file, to read it and to name it in errors.

        Raises:
          ResumeError: a line other than the last is not a record.
        """
        self._descriptor = descriptor
        self.records = _read(descriptor, path)

    def append(self, records: Iterable[Record]) -> list[Record]:
        """Write the new ones among `records`, wait until they are on disk, and return them."""
        new = [record for record in records if record.key not in self.records]
        data = memoryview(b"".join(map(_encode, new)))
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)
        self.records |= {record.key: record for record in new}
        return new


def _read(descriptor: int, path: Path) -> dict[Key, Record]:
    records: dict[Key, Record] = {}
    good = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            record = _decode(line)
            if record is None:
                if lines.read(1):
                    raise ResumeError(
                        f"{path}, line {number}: not a record. Choose another folder, or start "
                        "over with force=True (--force)."
                    )
                os.ftruncate(descriptor, good)
                break
            good += len(line)
            records.setdefault(record.key, record)
    return records


def _encode(record: Record) -> bytes:
    values = {name: None if np.isnan(v) else float(v) for name, v in record.values.items()}
    curves = {name: [round(float(s), 5) for s in scores] for name, scores in record.curves.items()}
    line = record._asdict() | {"values": values, "curves": curves}
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _decode(line: bytes) -> Record | None:
    """A record from its line; None for a line that is cut short or no record."""
    if not line.endswith(b"\n"):
        return None
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
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
