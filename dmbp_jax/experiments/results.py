"""What an evaluation leaves on disk: a folder of its own in OUT, and four files for readers in OUT.

The folder of its own holds the settings, small pictures, and what was measured: a log whose parts
are written whole, each only once, and before the next batch starts. Nothing else in OUT is touched.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmbp_jax.data.samples import FilePicture, Picture
from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.files import file_size, read_json, write_json
from dmbp_jax.runs.arrays import encode
from dmbp_jax.runs.manifest import KEY as MANIFEST
from dmbp_jax.runs.manifest import check_same
from dmbp_jax.runs.store import Store

try:
    import fcntl
except ImportError:  # Windows has no such lock: two evaluations in one folder are not refused
    fcntl = None

OWN = "dmbp-evaluation"  # the folder in OUT that is the tool's alone
RECORDS, PICTURES = "records/", "pictures"  # in it
_PART = re.compile(r"records/\d{8,}\.jsonl")
TEXT, CSV, PAGE, SKIPPED = "tables.md", "tables.csv", "evaluation.html", "skipped.txt"

_OUTPUTS = (TEXT, CSV, PAGE, SKIPPED)
_TOOL = "dmbp evaluate"
_LOCK, _WRITTEN = "lock", "outputs"  # empty files; the second says whose the outputs are
_ADVICE = "Choose another folder, or start over with force=True (--force)."
_FOREIGN = "Choose another folder; files that this tool did not write are left as they are."

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
      size: bytes of the picture's file, None of one that is no file.
    """

    picture: str
    label: int
    method: str
    pixels: int
    values: Mapping[str, float]
    curves: Mapping[str, np.ndarray]
    size: int | None = None

    @property
    def key(self) -> Key:
        """Picture, label and method; no two records share them."""
        return self.picture, self.label, self.method


def _encode(record: Record) -> bytes:
    values = {name: None if np.isnan(v) else float(v) for name, v in record.values.items()}
    curves = {name: [round(float(s), 5) for s in scores] for name, scores in record.curves.items()}
    return write_json(record._asdict() | {"values": values, "curves": curves})


def _decode(line: bytes, where: str) -> Record:
    try:
        stored = read_json(line)
        return Record(
            str(stored["picture"]),
            int(stored["label"]),
            str(stored["method"]),
            int(stored["pixels"]),
            {name: np.nan if v is None else float(v) for name, v in stored["values"].items()},
            {name: np.asarray(v, np.float32) for name, v in stored["curves"].items()},
            stored.get("size"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeError(f"{where}: not a record. {_ADVICE}") from error


def picture_size(picture: Picture) -> int | None:
    """Bytes of a picture's file; None of one that is no file, or is not there."""
    return file_size(picture.path) if isinstance(picture, FilePicture) else None


class ResultFolder:
    """A locked folder that holds one evaluation; the same map is never recorded twice.

    Attributes:
      path: OUT, where the files for readers go.
      own: the folder in it that is the tool's alone.
      records: what was measured, in the order in which it was.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self.path, self.own, self._store = path, path / OWN, store
        self.records: dict[Key, Record] = {}
        self._next = 0
        parts = [key for key in store.keys(RECORDS) if _PART.fullmatch(key)]
        for key, data in zip(parts, store.get_many(parts), strict=True):
            self._next = 1 + int(key.removeprefix(RECORDS).removesuffix(".jsonl"))
            for number, line in enumerate((data or b"").splitlines(), 1):
                record = _decode(line, f"{store.url}/{key}, line {number}")
                self.records.setdefault(record.key, record)

    def check_sizes(self, pictures: Iterable[Picture]) -> None:
        """Refuse to go on with other pictures of the same names, such as those of ImageNet-C.

        Pictures that are no longer there are no others: what was measured on them stays.
        """
        sizes = {picture.name: picture_size(picture) for picture in pictures}
        for record in self.records.values():
            size = sizes.get(record.picture)
            if None not in (size, record.size) and size != record.size:
                raise ResumeError(
                    f"{self.own}: Expected the pictures of the results that are there, got another "
                    f"{record.picture}: measured {record.size} bytes, now {size}. {_ADVICE}"
                )

    def append(self, records: Iterable[Record]) -> int:
        """Store the new ones among `records`, on disk when it returns; how many they were."""
        new = {record.key: record for record in records if record.key not in self.records}
        if new:
            data = b"".join(map(_encode, new.values()))
            if not self._store.put_new(f"{RECORDS}{self._next:08d}.jsonl", data):
                raise InputError(
                    f"out: Expected a free folder, {self._store.url} is being written to."
                )
            self._next += 1
        self.records |= new
        return len(new)

    def write_text(self, name: str, text: str) -> None:
        """Write one of the files for readers, whole or not at all."""
        (self.own / _WRITTEN).touch()
        part = self.own / name
        part.write_text(text, "utf-8", errors="backslashreplace")  # any name of a picture
        os.replace(part, self.path / name)


@contextmanager
def open_folder(
    path: Path, configuration: Mapping[str, Any], *, force: bool
) -> Iterator[ResultFolder]:
    """Start an evaluation in a folder, or continue the one that is there; `force` starts over."""
    own = path / OWN
    _refuse_foreign(path, own)
    try:
        own.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"out: Expected a folder, got the file {path}.") from error
    descriptor = os.open(own / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, path)
        store = Store(own)
        wanted = json.loads(json.dumps(configuration))
        if force or not store.keys(RECORDS):  # without a record, nothing can be stale
            _start_over(path, own)
            store.put(MANIFEST, encode({"tool": _TOOL, "configuration": wanted}))
        else:
            check_same(store, _read_manifest(own)["configuration"], wanted, _ADVICE)
        yield ResultFolder(path, store)
    finally:
        os.close(descriptor)


def _refuse_foreign(path: Path, own: Path) -> None:
    """Refuse files of somebody else where the tool writes, before anything is touched."""
    for name in _OUTPUTS:
        if os.path.lexists(path / name) and not (own / _WRITTEN).exists():
            raise InputError(
                f"{path / name}: Expected no such file, or one that this evaluation wrote. "
                f"{_FOREIGN}"
            )
    if own.is_dir() and not _read_manifest(own):
        foreign = set(Store(own).keys()) - {_LOCK}  # left by a kill before there was a manifest
        if foreign:
            raise InputError(
                f"{own}: Expected no such folder, or one with the {MANIFEST} of an evaluation, "
                f"got one with {min(foreign)}. {_FOREIGN}"
            )


def _start_over(path: Path, own: Path) -> None:
    """Remove what is there. The manifest stays until another one replaces it: a kill leaves a
    folder that is still the tool's.
    """
    for name in (RECORDS, PICTURES):
        if (own / name).exists():
            shutil.rmtree(own / name)
    if (own / _WRITTEN).exists():
        for name in _OUTPUTS:
            (path / name).unlink(missing_ok=True)
        (own / _WRITTEN).unlink()


def _read_manifest(own: Path) -> dict[str, Any]:
    """The manifest of an evaluation; empty if there is none."""
    try:
        manifest = read_json((own / MANIFEST).read_bytes())
        return manifest if manifest["tool"] == _TOOL and "configuration" in manifest else {}
    except (OSError, ValueError, TypeError, LookupError):
        return {}


def _lock(descriptor: int, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system on a kill
    except BlockingIOError as error:
        raise InputError(f"out: Expected a free folder, {path} is being written to.") from error
