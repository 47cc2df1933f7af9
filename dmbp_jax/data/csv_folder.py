"""Any folder of pictures with a table of their labels."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dmbp_jax.data.folders import check_root, list_folder
from dmbp_jax.data.samples import Dataset, FilePicture, Skipped
from dmbp_jax.data.tables import find_name, read_table
from dmbp_jax.errors import DataError
from dmbp_jax.networks.class_names import find_label


def list_csv_folder(
    root: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] = (),
) -> Dataset:
    """List the pictures named in a table, with their labels.

        file,labels
        kitchen/table.jpg,3;17
        dog.png,golden retriever

    Args:
      root: the folder of the pictures; file names start from it, or from the table's own folder.
      table: the file, as `dmbp_jax.data.tables.read_table` describes it; None is `labels.csv` in
        `root`. A picture has the labels of all its rows.
      classes: class names in the order of the logits, `net.labels`.

    Returns:
      `Dataset`. Files in the folder that the table does not name are in `skipped`, and so are
      named files outside of `root`; a named file that is missing is found out when decoded.

    Raises:
      DataError: no such folder or table, missing columns, an unknown label, a row without
        label, a file and label named twice; the message gives the line.
    """
    folder = check_root(root, "pictures and a table with the columns file,label")
    table = folder / "labels.csv" if table is None else Path(table)
    listing = list_folder(folder)
    known = {path.relative_to(folder).as_posix() for path in listing.files}
    labels: dict[str, set[int]] = {}
    for line, file, label in read_table(table, partial(find_label, tuple(classes))).rows:
        if label is None:
            raise DataError(f"{table}, line {line}: Expected at least one label, got none.")
        labels.setdefault(find_name(file, known, folder, table), set()).add(label)
    outside = [name for name in labels if Path(name).is_absolute() or ".." in Path(name).parts]
    skipped = [Skipped(name, f"lies outside of {folder}") for name in outside]
    pictures = tuple(
        FilePicture(name, folder / name, tuple(sorted(labels[name])))
        for name in sorted(labels.keys() - set(outside))
    )
    for path in listing.files:
        name = path.relative_to(folder).as_posix()
        if name not in labels and path.resolve() != table.resolve():
            skipped.append(Skipped(name, f"not named in {table.name}"))
    if not pictures:
        raise DataError(f"{table}: Expected pictures in {folder}, got none.")
    return Dataset("csv", pictures, tuple(skipped + listing.skipped), tuple(classes))
