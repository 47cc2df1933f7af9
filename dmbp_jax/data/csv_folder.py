"""Any folder of pictures with a CSV file of their labels."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dmbp_jax.data.folders import check_root, files_below, read_text
from dmbp_jax.data.samples import Dataset, FilePicture, Skipped
from dmbp_jax.errors import DataError

_FILE_COLUMNS = ("file", "filename", "image", "path", "name")
_LABEL_COLUMNS = ("labels", "label", "class", "classes")
_EXPECTED = "a CSV file with the columns file,labels (labels separated by semicolons)"


def list_csv_folder(
    root: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] = (),
) -> Dataset:
    """List the pictures named in a CSV file, with their labels.

        file,labels
        kitchen/table.jpg,3;17
        dog.png,golden retriever

    Args:
      root: the folder that the file names start from.
      table: the CSV file; None is `labels.csv` in `root`. First line: a column `file` (or
        `filename`, `image`, `path`, `name`) and a column `labels` (or `label`, `class`,
        `classes`); others are ignored. Labels are class indices or, with `classes`, exact names
        in upper or lower case; several are separated by semicolons.
      classes: class names in the order of the logits, `net.labels`.

    Returns:
      `Dataset`. Files in the folder that the table does not name are in `skipped`, and so are
      named files outside of `root`; a named file that is missing is found out when decoded.

    Raises:
      DataError: no such folder or table, missing columns, an unknown label, a row without
        label, a file named twice; the message gives the line.
    """
    folder = check_root(root, _EXPECTED)
    table = folder / "labels.csv" if table is None else Path(table)
    known = _names(classes)
    pictures: dict[str, FilePicture] = {}
    skipped = []
    for line, file, text in _rows(table):
        where = f"{table}, line {line}"
        name = Path(file.strip()).as_posix()
        labels = _labels(text, known, len(classes), where)
        if name == "." or name in pictures:
            raise DataError(f"{where}: Expected a file that was not named before, got {file!r}.")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            skipped.append(Skipped(name, f"lies outside of {folder}"))
        else:
            pictures[name] = FilePicture(name, folder / name, labels)
    for path in files_below(folder):
        name = path.relative_to(folder).as_posix()
        if name not in pictures and path.resolve() != table.resolve():
            skipped.append(Skipped(name, f"not named in {table.name}"))
    if not pictures:
        raise DataError(f"{table}: Expected at least one row, got none.")
    ordered = tuple(pictures[name] for name in sorted(pictures))
    return Dataset("csv", ordered, tuple(skipped), tuple(classes))


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file and labels of every row."""
    rows = csv.DictReader(io.StringIO(read_text(table, _EXPECTED), newline=""))
    try:
        file_column = _column(rows.fieldnames, _FILE_COLUMNS, table)
        label_column = _column(rows.fieldnames, _LABEL_COLUMNS, table)
        for row in rows:
            yield rows.line_num, row[file_column] or "", row[label_column] or ""
    except csv.Error as error:
        raise DataError(f"{table}, line {rows.line_num}: Expected {_EXPECTED}: {error}") from error


def _column(columns: Sequence[str] | None, names: tuple[str, ...], table: Path) -> str:
    for column in columns or ():
        if column is not None and column.strip().lower() in names:
            return column
    raise DataError(f"{table}: Expected a column {names[0]!r}, got columns {list(columns or ())}.")


def _names(classes: Sequence[str]) -> dict[str, int | None]:
    """Class name -> index; None for a name that two classes share."""
    known: dict[str, int | None] = {}
    for i, name in enumerate(classes):
        key = name.strip().casefold()
        known[key] = None if key in known else i
    return known


def _labels(text: str, known: dict[str, int | None], classes: int, where: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        raise DataError(f"{where}: Expected at least one label, got none.")
    return tuple(sorted({_label(part, known, classes, where) for part in parts}))


def _label(part: str, known: dict[str, int | None], classes: int, where: str) -> int:
    index = known.get(part.casefold())
    if index is not None:
        return index
    if part.casefold() in known:
        raise DataError(f"{where}: Two classes are called {part!r}; give the index instead.")
    if part.isdecimal() and (not classes or int(part) < classes):
        return int(part)
    expected = f"an index below {classes} or a class name" if classes else "a class index"
    raise DataError(f"{where}: Expected {expected}, got {part!r}.")
