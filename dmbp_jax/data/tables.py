"""The one reader of tables of labels: which class, or classes, each picture is explained for.

Whatever wrote the table: commas, semicolons or tabs, any case, quotes, byte-order mark or line end.
"""

import csv
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dmbp_jax.errors import DataError, InputError
from dmbp_jax.files import read_text

SUFFIXES = (".csv", ".tsv", ".tab")
_FILE_COLUMNS = ("file", "filename", "image", "path", "name")
_LABEL_COLUMNS = ("label", "labels", "class", "classes")
_EXPECTED = "a table with the columns file,label"

Resolve = Callable[..., int]  # index of a class: `net.label_index`, or `find_label` of its names


class Row(NamedTuple):
    """A line of a table."""

    line: int  # from 1
    file: str  # name of a picture, with forward slashes
    label: int | None  # None where the network's first choice is asked for


class Table(NamedTuple):
    """A table: its rows, the names of its columns, and whether one of them has labels."""

    rows: list[Row]
    columns: tuple[str, ...]
    labelled: bool


def is_table(name: str) -> bool:
    """Whether a name is that of a table rather than of a picture or a class."""
    return Path(name).suffix.lower() in SUFFIXES


def find_name(file: str, known: Collection[str], root: Path, table: Path) -> str:
    """The name among `known`, which start from `root`, that a table means by `file`.

    It starts from there, or from the table's own folder; as it is where neither is known.
    """
    if file in known:
        return file
    below = Path(os.path.relpath(table.absolute().parent / file, root)).as_posix()
    return below if below in known else file


def read_table(table: Path, resolve: Resolve, *, needed: bool = True) -> Table:
    """The rows of a table of labels, as `list_csv_folder` shows one; a file may have several.

    Args:
      table: a file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark. Its first line names
        the columns `file` (or `filename`, `image`, `path`, `name`) and `label` (or `labels`,
        `class`, `classes`), in any order and case; other columns are ignored. What separates them
        is a comma, a semicolon or a tab. Blank lines do not count, nor do lines before the names
        of the columns that begin with "#".
      resolve: from a label as it is written to the index of its class. A label is a number or the
        whole name of a class; several are separated by semicolons. None, or "top1", is the
        network's first choice.
      needed: whether a table without a column of labels is refused.
    """
    rows: list[Row] = []
    seen: set[tuple[str, int | None]] = set()
    names, file_column, label_column, lines = _read_head(table)
    if needed and label_column is None:
        raise DataError(f"{table}: Expected the columns file,label, got {','.join(names)}.")
    labels_of = cache(lambda text: _labels(text, resolve))  # a table has few different ones
    for line, cells in lines:
        where = f"{table}, line {line}"
        if len(cells) <= max(file_column, label_column or 0) or any(cells[len(names) :]):
            raise DataError(
                f"{where}: Expected {','.join(names)}, got {len(cells)} cells {cells}; quote a "
                "cell that has the separator in it."
            )
        file = cells[file_column]
        name = Path(file).as_posix() if file else ""
        try:
            labels = labels_of("" if label_column is None else cells[label_column])
        except InputError as error:
            raise DataError(f"{where}: {error}") from error
        for label in labels:
            if not name or (name, label) in seen:
                raise DataError(
                    f"{where}: Expected a file and label not named before, got {file!r}."
                )
            seen.add((name, label))
            rows.append(Row(line, name, label))
    if not rows:
        raise DataError(f"{table}: Expected {_EXPECTED} and at least one row, got none.")
    return Table(rows, tuple(names), label_column is not None)


def _labels(text: str, resolve: Resolve) -> list[int | None]:
    """The classes of a cell, each once; a class may have a semicolon in its name."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts or text.casefold() == "top1":
        return [None]
    try:
        return list(dict.fromkeys(resolve(part, exact=True) for part in parts))
    except InputError as error:
        try:
            return [resolve(text, exact=True)]
        except InputError:
            raise error from None


def _read_head(
    table: Path,
) -> tuple[list[str], int, int | None, Iterator[tuple[int, list[str]]]]:
    """Names of the columns, places of file and label, and the rows below.

    The separator is the one with which there is a column of files.
    """
    lines = read_text(table, _EXPECTED).split("\n")
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped][0] == "#"):
        skipped += 1
    best: list[str] = []
    for delimiter in (",", ";", "\t"):
        rows = _split(table, lines, skipped, delimiter)
        names = next(rows, (0, []))[1]
        file_column = _column(names, _FILE_COLUMNS, table)
        if file_column is not None:
            return names, file_column, _column(names, _LABEL_COLUMNS, table), rows
        best = max(best, names, key=len)
    raise DataError(f"{table}: Expected the columns file,label, got {','.join(best) or 'none'}.")


def _split(
    table: Path, lines: Sequence[str], first: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Number and stripped cells of every line that is not blank."""
    reader = csv.reader(
        (f"{line}\n" for line in lines[first:]),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield first + reader.line_num, stripped
    except csv.Error as error:
        line = first + reader.line_num
        raise DataError(f"{table}, line {line}: Expected {_EXPECTED}: {error}") from error


def _column(names: Sequence[str], known: Sequence[str], table: Path) -> int | None:
    """The place of the only column with one of these names; the first of them wins over others."""
    found = [i for i, name in enumerate(names) if name.lower() in known]
    first = [i for i in found if names[i].lower() == known[0]] or found
    if len(first) > 1:
        raise DataError(
            f"{table}: Expected one column {known[0]}, got {' and '.join(names[i] for i in first)}."
        )
    return first[0] if first else None
