"""The results of an evaluation on disk: append-only, safe against a kill at any moment.

A line for each map is on disk before the next batch starts; a line cut short is thrown away.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.files import replacing

try:
    import fcntl
except ImportError:  # Windows: two evaluations in one folder are then the user's own care
    fcntl = None

MANIFEST = "manifest.json"
RECORDS = "records.jsonl"
_ADVICE = "Choose another folder, or start over with force=True (--force)."

Key = tuple[str, int, str]  # picture, label, method


class Record(NamedTuple):
    """What was measured on one map: of one picture, for one of its labels, by one method.

    Attributes:
      picture: name in its dataset.
      label: the target.
      method: name of the `Contender`.
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
        """What makes it one of its kind."""
        return self.picture, self.label, self.method


class Journal:
    """Records on disk in the order they were made; the same map is never recorded twice."""

    def __init__(self, descriptor: int, records: dict[Key, Record]) -> None:
        self._descriptor = descriptor
        self.records = records

    def append(self, records: Iterable[Record]) -> None:
        """Write the new ones among `records` and wait until they are on disk."""
        new = [record for record in records if record.key not in self.records]
        data = memoryview(b"".join(map(_encode, new)))
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)
        self.records |= {record.key: record for record in new}


@contextmanager
def open_journal(
    folder: Path, configuration: Mapping[str, Any], *, force: bool
) -> Iterator[Journal]:
    """Start an evaluation in `folder`, or continue the one that is there.

    Args:
      folder: made if missing.
      configuration: everything that the numbers depend on, as JSON.
      force: throw away what is there.

    Raises:
      ResumeError: the evaluation there has another configuration (the message names the field),
        or its files are damaged.
      InputError: `folder` is a file, or another process writes there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"out: Expected a folder, got the file {folder}.") from error
    descriptor = os.open(folder / RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _lock(descriptor, folder)
        if force:
            (folder / MANIFEST).unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
        _check_manifest(folder, json.loads(json.dumps(configuration)))
        yield Journal(descriptor, _read(descriptor, folder / RECORDS))
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system on a kill
    except BlockingIOError as error:
        raise InputError(f"out: Expected a free folder, {folder} is being written to.") from error


def _check_manifest(folder: Path, configuration: dict[str, Any]) -> None:
    path = folder / MANIFEST
    if not path.exists():
        if (folder / RECORDS).stat().st_size:
            raise ResumeError(f"{folder}: Expected {MANIFEST} beside {RECORDS}. {_ADVICE}")
        with replacing(path) as part:
            part.write_text(json.dumps(configuration, indent=1), "utf-8")
        return
    try:
        stored = json.loads(path.read_text("utf-8"))
        differing = [
            name
            for name in {**stored, **configuration}
            if stored.get(name) != configuration.get(name)
        ]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ResumeError(f"{path}: Expected the settings of an evaluation. {_ADVICE}") from error
    if differing:
        name = differing[0]
        raise ResumeError(
            f"{folder}: Expected the settings of the results that are there, got {name} = "
            f"{_short(configuration.get(name))}, there it is {_short(stored.get(name))}. {_ADVICE}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _read(descriptor: int, path: Path) -> dict[Key, Record]:
    """The records on disk; what a kill left of a last line is cut off."""
    records: dict[Key, Record] = {}
    good = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            record = _decode(line)
            if record is None:
                if lines.read(1):
                    raise ResumeError(f"{path}, line {number}: not a record. {_ADVICE}")
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
