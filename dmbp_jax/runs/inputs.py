"""What a large run explains: rows of (file, label) from a folder, a pattern, files or a CSV table.

Nothing is opened here; the size of each file is noted, so that a changed list is noticed.
"""

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmbp_jax.data.folders import files_below, read_text
from dmbp_jax.errors import DataError, InputError

_FORMATS = "jpg jpeg jpe png gif bmp tif tiff webp ppm pgm pbm pnm jp2 j2k tga ico"
SUFFIXES = frozenset(
    f".{name}" for name in _FORMATS.split()
)  # of files taken from a folder; a pattern or a table takes whatever it names
_MISSING = -1  # size of a file that is named in a table and is not there

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Label = int | str | os.PathLike[str] | None
Resolve = Callable[[int | str], int]  # index of a class, `net.label_index`


@dataclass(frozen=True)
class Inputs:
    """Rows in their order: `files[i]` below `root`, size in bytes, label or None (top-1)."""

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int | None, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.files)

    def path(self, row: int) -> Path:
        """Where the picture of a row lies."""
        return self.root / self.files[row]

    def lines(self) -> bytes:
        """One JSON object a line; its hash is the fingerprint of the list."""
        rows = zip(self.files, self.sizes, self.labels, strict=True)
        return "".join(
            f'{{"file": {json.dumps(file)}, "size": {size}, "label": {json.dumps(label)}}}\n'
            for file, size, label in rows
        ).encode()


def list_inputs(images: Paths, labels: Label, resolve: Resolve) -> Inputs:
    """The rows of a run.

    Args:
      images: a folder (searched recursively, in order of the paths), a glob pattern, picture
        files, or a CSV file with columns `file,label` (names start from its own folder; several
        rows a file are allowed; an empty label, or no such column, is top-1).
      labels: None or "top1"; a class by number or name for all; or a CSV file with the columns
        `file,label` that names every picture at least once.
      resolve: from number or name to the index of a class.

    Raises:
      InputError: nothing matches, or a label that is no class.
      DataError: a table that cannot be used; the message gives the line.
    """
    table = _table(images)
    if table is not None:
        root, rows = table.parent, list(_rows(table, resolve))
        if labels is not None and labels != "top1":
            raise InputError(f"label: Expected none beside the labels of {table}, got {labels!r}.")
    else:
        root, files = _list_files(images)
        rows = list(_with_labels(files, labels, resolve))
    files = [file for file, _ in rows]
    sizes = {file: _size(os.path.join(root, file)) for file in dict.fromkeys(files)}
    return Inputs(
        root.absolute(),
        tuple(files),
        tuple(sizes[file] for file in files),
        tuple(label for _, label in rows),
    )


def read_lines(data: bytes, root: Path) -> Inputs:
    """What `Inputs.lines` wrote."""
    rows = [json.loads(line) for line in data.splitlines()]
    return Inputs(root, *(tuple(row[name] for row in rows) for name in ("file", "size", "label")))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return _MISSING


def _table(images: Paths) -> Path | None:
    """The CSV file, if that is what `images` is."""
    if isinstance(images, (str, os.PathLike)):
        images = [images]
    if len(images) == 1 and Path(images[0]).suffix.lower() == ".csv":
        return Path(images[0])
    return None


def _list_files(images: Paths) -> tuple[Path, list[str]]:
    """A folder, and the names of the pictures below it."""
    many = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    if len(many) == 1 and Path(many[0]).is_dir():
        root = Path(many[0]).absolute()
        found = [path for path in files_below(root) if path.suffix.lower() in SUFFIXES]
        expected = "a folder with pictures (.jpg, .png, …)"
    else:
        found = [path for one in many for path in _match(os.fspath(one))]
        found = [path.absolute() for path in dict.fromkeys(found)]
        root = Path(os.path.commonpath([path.parent for path in found] or ["."]))
        expected = "a folder, a pattern, pictures or a .csv file"
    if not found:
        got = f"{os.fspath(many[0])!r}" if many else "nothing"
        raise InputError(f"images: Expected {expected}, got {got}: no picture is there.")
    # Cut as text: a list of a million paths takes seconds less than by `Path.relative_to`.
    start = len(os.path.join(root, ""))
    return root, [path.as_posix()[start:] for path in found]


def _match(pattern: str) -> list[Path]:
    """The file of this name, else what the pattern matches, in order."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    found = sorted(glob.glob(pattern, recursive=True))
    files = [Path(name) for name in found if Path(name).is_file()]
    if not files:
        raise InputError(f"images: Expected pictures, got {pattern!r}: no such file.")
    return files


def _with_labels(
    files: Iterable[str], labels: Label, resolve: Resolve
) -> Iterator[tuple[str, int | None]]:
    if labels is None or labels == "top1":
        yield from ((file, None) for file in files)
        return
    path = None if isinstance(labels, int) else Path(labels)
    if path is None or path.suffix.lower() != ".csv":
        one = resolve(labels if isinstance(labels, int) else _number_or_name(os.fspath(labels)))
        yield from ((file, one) for file in files)
        return
    named: dict[str, list[int | None]] = {}
    for file, label in _rows(path, resolve):
        named.setdefault(file, []).append(label)
    for file in files:
        if file not in named:
            raise DataError(f"{path}: Expected a row for every picture, got none for {file}.")
        yield from ((file, label) for label in named.pop(file))
    if named:
        raise DataError(f"{path}: Expected only pictures of the run, got {next(iter(named))}.")


def _rows(table: Path, resolve: Resolve) -> Iterator[tuple[str, int | None]]:
    """File and label of every row of a CSV file."""
    reader = csv.DictReader(io.StringIO(read_text(table, "a CSV file"), newline=""))
    if "file" not in (reader.fieldnames or ()):
        names = list(reader.fieldnames or ())
        raise DataError(f"{table}: Expected the columns file,label, got {names}.")
    seen: set[tuple[str, int | None]] = set()
    for row in reader:
        where = f"{table}, line {reader.line_num}"
        text = (row.get("label") or "").strip()
        try:
            label = resolve(_number_or_name(text)) if text and text != "top1" else None
        except InputError as error:
            raise DataError(f"{where}: {error}") from error
        file = Path((row["file"] or "").strip()).as_posix()
        if file == "." or (file, label) in seen:
            raise DataError(f"{where}: Expected a file and label not named before, got {file!r}.")
        seen.add((file, label))
        yield file, label
    if not seen:
        raise DataError(f"{table}: Expected at least one row, got none.")


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
