"""What a large run explains: rows of (file, label) from a folder, a pattern, files or a CSV table.

Nothing is opened here; the size of each file is noted, so that a changed list is noticed.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from dmbp_jax.data.folders import Listing, list_folder, list_pictures
from dmbp_jax.data.samples import Skipped
from dmbp_jax.data.tables import Resolve, find_name, is_table, read_table
from dmbp_jax.errors import DataError, InputError
from dmbp_jax.files import file_size, read_json_lines, write_json

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Label = int | str | os.PathLike[str] | None


@dataclass(frozen=True)
class Inputs:
    """Rows in their order: `files[i]` below `root`, size in bytes, label or None (top-1).

    A file that is named in a table and is not there has no size.
    `left_out` are the files of a folder or pattern that are no rows, each with its reason.
    """

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int | None, ...]
    labels: tuple[int | None, ...]
    left_out: tuple[Skipped, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.files)

    def path(self, row: int) -> Path:
        """Where the picture of a row lies."""
        return self.root / self.files[row]

    def lines(self) -> bytes:
        """One JSON object a line; `read_lines` reads them."""
        rows = zip(self.files, self.sizes, self.labels, strict=True)
        return b"".join(
            write_json({"file": file, "size": size, "label": label}) for file, size, label in rows
        )


def list_inputs(images: Paths, labels: Label, resolve: Resolve) -> Inputs:
    """The rows of a run.

    Images are a folder (searched recursively, links followed, in order of the paths), a glob
    pattern, picture files, several of these, or a table with columns `file,label` whose names start
    from its own folder; an empty label is top-1, and so are all of a table without labels. Labels
    are as in `label_files`.
    """
    many = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    if len(many) == 1 and is_table(os.fspath(many[0])) and not Path(many[0]).is_dir():
        root, left_out = Path(many[0]).parent, []
        rows = _rows_of_table(Path(many[0]), labels, resolve)
    else:
        root, files, left_out = _list_files(many)
        rows = list(label_files(root, files, labels, resolve))
    files = [file for file, _ in rows]
    sizes = {file: file_size(os.path.join(root, file)) for file in dict.fromkeys(files)}
    return Inputs(
        root.absolute(),
        tuple(files),
        tuple(sizes[file] for file in files),
        tuple(label for _, label in rows),
        tuple(left_out),
    )


def describe_left_out(left_out: Iterable[Skipped]) -> str:
    """How many files were left out for each reason, in words; "" if none was."""
    counts = Counter(one.reason for one in left_out)
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in ordered)
    return f"left out {counts.total():,} ({reasons})" if reasons else ""


def read_lines(data: bytes, root: Path) -> Inputs:
    """What `Inputs.lines` wrote."""
    rows = read_json_lines(data)
    return Inputs(root, *(tuple(row[name] for row in rows) for name in ("file", "size", "label")))


def _rows_of_table(path: Path, labels: Label, resolve: Resolve) -> list[tuple[str, int | None]]:
    """The rows of a table of images, whose labels may be given apart from it."""
    table = read_table(path, resolve, needed=False)
    if not table.labelled:
        if labels is None and [name.lower() for name in table.columns] != ["file"]:
            raise DataError(
                f"{path}: Expected the columns file,label, got {','.join(table.columns)}; for the "
                "network's first choice, say so: label top1."
            )
        return list(label_files(path.parent, [row.file for row in table.rows], labels, resolve))
    if labels is not None:
        raise InputError(f"label: Expected none beside the labels of {path}, got {labels!r}.")
    return [(row.file, row.label) for row in table.rows]


def _list_files(many: Sequence[str | os.PathLike[str]]) -> tuple[Path, list[str], list[Skipped]]:
    """A folder, the names of the pictures below it, and what was left out."""
    roots, found, left_out = [], [], []
    for one in many:
        if not os.fspath(one) or (is_table(os.fspath(one)) and Path(one).is_file()):
            raise InputError(
                "images: Expected a table alone, or folders with pictures, patterns and pictures, "
                f"got {os.fspath(one)!r} among {len(many)}."
            )
        if Path(one).is_dir():
            listing = list_pictures(Path(one).absolute())
            roots.append(Path(one).absolute())
        else:
            listing = _match(os.fspath(one))
            roots += [path.absolute().parent for path in listing.files]
        found += [path.absolute() for path in listing.files]
        left_out += listing.left_out
    if not found:
        got = f"{os.fspath(many[0])!r}: no picture is there" if many else "nothing"
        but = describe_left_out(left_out)
        raise InputError(
            "images: Expected a folder with pictures, a pattern, pictures or a .csv file, got "
            f"{got}{f'; {but}' if but else ''}."
        )
    root = os.path.commonpath(roots)
    # Cut as text: a list of a million paths takes seconds less than by `Path.relative_to`.
    start = len(os.path.join(root, ""))
    return Path(root), [path.as_posix()[start:] for path in dict.fromkeys(found)], left_out


def _match(pattern: str) -> Listing:
    """The file of this name, else what the pattern matches, in order."""
    if Path(pattern).is_file():
        return Listing([Path(pattern)], [])
    if "**" in Path(pattern).parts:
        listing = _match_recursively(Path(pattern))
    else:
        found = [Path(name) for name in sorted(glob.glob(pattern))]
        folders = [Skipped(path.as_posix(), "folder") for path in found if path.is_dir()]
        listing = Listing([path for path in found if path.is_file()], folders)
    if not listing.files:
        raise InputError(f"images: Expected pictures, got {pattern!r}: no such file.")
    return listing


def _match_recursively(pattern: Path) -> Listing:
    """What a pattern with ** matches; unlike `glob`, in no link twice that leads to its folder."""
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:fixed]), parts[fixed:]
    listing = list_folder(root) if root.is_dir() else Listing([], [])
    files = [path for path in listing.files if _fits(path.relative_to(root).parts, rest)]
    return Listing(files, listing.skipped)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern, where ** is any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def label_files(
    root: Path, files: Sequence[str], labels: Label, resolve: Resolve
) -> Iterator[tuple[str, int | None]]:
    """Every file with its label, or with each of its labels; None is the network's first choice.

    Labels are None or "top1"; a class by number or name for all; or a table `file,label` that names
    every file. Its names start from `root`, as `files` do, or from the table's own folder.
    """
    if labels is None or labels == "top1":
        yield from ((file, None) for file in files)
        return
    if isinstance(labels, int) or (isinstance(labels, str) and not is_table(labels)):
        one = resolve(labels)
        yield from ((file, one) for file in files)
        return
    path = Path(labels)
    known = set(files)
    named: dict[str, list[int | None]] = {}
    for row in read_table(path, resolve).rows:
        file = find_name(row.file, known, root, path)
        given = named.setdefault(file, [])
        if row.label in given:
            where = f"{path}, line {row.line}"
            raise DataError(f"{where}: Expected a file and label not named before, got {file!r}.")
        given.append(row.label)
    for file in files:
        if file not in named:
            raise DataError(f"{path}: Expected a row for every picture, got none for {file}.")
        yield from ((file, label) for label in named.pop(file))
    if named:
        raise DataError(f"{path}: Expected only pictures of the run, got {next(iter(named))}.")
