"""The folder of an evaluation: which settings it holds, and which files the tool wrote there.

The tool never overwrites, empties or removes a file that it did not write, `force` or not.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmbp_jax.errors import InputError
from dmbp_jax.experiments.journal import RECORDS, part_keys
from dmbp_jax.files import PART, replacing
from dmbp_jax.runs.arrays import encode
from dmbp_jax.runs.manifest import KEY as MANIFEST
from dmbp_jax.runs.manifest import check_same
from dmbp_jax.runs.store import Store

try:
    import fcntl
except ImportError:  # Windows has no such lock: two evaluations in one folder are not refused
    fcntl = None

WRITTEN = "files.txt"
TEXT, CSV, PAGE, SKIPPED = "tables.md", "tables.csv", "evaluation.html", "skipped.txt"
PICTURES = "pictures"
FORMAT = 3  # raised when results of an older version cannot be continued

_TOOL = "dmbp evaluate"
_OUTPUTS = (TEXT, CSV, PAGE, SKIPPED)
_PICTURE = re.compile(rf"{PICTURES}/[0-9a-f]{{20}}/[A-Za-z0-9_-]+\.png")
_LOCK = ".__lock"  # end of the names under which the store writes
_ADVICE = "Choose another folder, or start over with force=True (--force)."
_FOREIGN = "Choose another folder; files that this tool did not write are left as they are."


@dataclass(frozen=True)
class ResultFolder:
    """A locked folder that holds one evaluation, and nothing that the tool could mistake for it.

    Attributes:
      path: the folder.
      store: the same folder as a store, for the manifest and the records.
      written: names of the files that the tool wrote, relative to `path`, with forward slashes;
        the same as the lines of `files.txt`.
    """

    path: Path
    store: Store
    written: set[str]

    def claim(self, names: Iterable[str]) -> None:
        """Put names on the list of written files, on disk before the files exist.

        Raises:
          InputError: a file of this name exists and the tool did not write it.
        """
        new = [name for name in dict.fromkeys(names) if name not in self.written]
        for name in new:
            if os.path.lexists(self.path / name):
                raise InputError(
                    f"{self.path / name}: Expected no such file, or one that this evaluation "
                    f"wrote. {_FOREIGN}"
                )
        if new:
            with (self.path / WRITTEN).open("ab") as stream:
                stream.write("".join(f"{name}\n" for name in new).encode())
                stream.flush()
                os.fsync(stream.fileno())
            self.written.update(new)

    def write_text(self, name: str, text: str) -> None:
        """Write one of the outputs, whole or not at all."""
        self.claim([name])
        with replacing(self.path / name) as part:
            part.write_text(text, "utf-8", errors="backslashreplace")  # any name of a picture

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that the tool wrote, and the folders of pictures that are then empty."""
        for name in names:
            if name in self.written:
                (self.path / name).unlink(missing_ok=True)
                _remove_empty(self.path, Path(name).parent)


@contextmanager
def open_folder(
    path: Path, configuration: Mapping[str, Any], *, force: bool
) -> Iterator[ResultFolder]:
    """Start an evaluation in a folder, or continue the one that is there.

    Args:
      path: made if missing; empty, or the folder of an evaluation.
      configuration: everything that the numbers depend on, as JSON.
      force: remove the files of the evaluation that is there, and no others.

    Raises:
      ResumeError: the evaluation there has another configuration (the message names the field).
      InputError: `path` is a file, holds files but no manifest of this tool or a file with the
        name of an output that the tool did not write, or another process writes there.
    """
    _make_or_check(path)
    descriptor = os.open(path / WRITTEN, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _lock(descriptor, path)
        store = Store(path)
        folder = ResultFolder(path, store, _read_written(path / WRITTEN))
        _remove_parts(path)
        parts = part_keys(store)
        over = force or not parts  # without a record, nothing can be stale
        if over:
            # The manifest comes last: until then a kill leaves a folder that is still the tool's.
            folder.remove(list(folder.written))
            for key in parts:
                store.delete(key)
            os.ftruncate(descriptor, 0)
            folder.written.clear()
        _check_outputs(folder)
        wanted = json.loads(json.dumps(configuration))
        if over:
            store.put(MANIFEST, encode({"tool": _TOOL, "configuration": wanted}))
        else:
            check_same(store, _read_manifest(path)["configuration"], wanted, _ADVICE)
        yield folder
    finally:
        os.close(descriptor)


def _make_or_check(path: Path) -> None:
    """Make the folder; refuse one that holds anything but an evaluation, before it is touched."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"out: Expected a folder, got the file {path}.") from error
    foreign = sorted(entry.name for entry in path.iterdir() if not _is_beginning(entry))
    if foreign and not _read_manifest(path):
        first = MANIFEST if MANIFEST in foreign else foreign[0]
        raise InputError(
            f"out: Expected an empty folder, or one with the {MANIFEST} of an evaluation, got "
            f"{path} with {first}. {_FOREIGN}"
        )


def _is_beginning(entry: Path) -> bool:
    """What a kill leaves before the manifest is there: an empty list, or half a manifest."""
    if entry.name == MANIFEST + _LOCK:
        return True
    return entry.name == WRITTEN and entry.is_file() and not entry.stat().st_size


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an evaluation; empty if there is none."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
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


def _read_written(path: Path) -> set[str]:
    """The list of written files; a name that was cut short is dropped, its file does not exist."""
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    names = whole.decode(errors="replace").splitlines()
    return {name for name in names if name in _OUTPUTS or _PICTURE.fullmatch(name)}


def _check_outputs(folder: ResultFolder) -> None:
    """Refuse a foreign file where an output will go, before hours are spent on it."""
    for name in _OUTPUTS:
        if name not in folder.written and os.path.lexists(folder.path / name):
            folder.claim([name])
    pictures = folder.path / PICTURES
    if os.path.lexists(pictures) and not pictures.is_dir():
        raise InputError(f"{pictures}: Expected a folder or nothing, got a file. {_FOREIGN}")


def _remove_parts(path: Path) -> None:
    """Remove files of the tool that a kill left half-written, under a name of their own."""
    for entry in (path / f"{MANIFEST}{_LOCK}", *path.glob(f"{RECORDS}*.jsonl{_LOCK}")):
        entry.unlink(missing_ok=True)
    for folder in (path, *path.glob(f"{PICTURES}/*/")):
        for entry in folder.glob(f"{PART}*"):
            entry.unlink(missing_ok=True)


def _remove_empty(path: Path, folder: Path) -> None:
    """Remove a folder of pictures, and `pictures` itself, if nothing is left in it."""
    while folder != Path("."):
        try:
            (path / folder).rmdir()
        except OSError:  # not empty, or not there
            return
        folder = folder.parent
