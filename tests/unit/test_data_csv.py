"""The CSV reader: labels by index and by name, and every mistake with its line."""

from pathlib import Path

import pytest
from dataset_folders import labels, paint

from dmbp_jax.data import Skipped, list_csv_folder
from dmbp_jax.errors import DataError


def test_csv_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        paint(tmp_path / name)
    table = "\ufefffile,note,labels\nsub/b.jpg,hello,3\na.jpg,,1; 0;1\nabsent.jpg,,2\n"
    (tmp_path / "labels.csv").write_text(table, "utf-8")
    dataset = list_csv_folder(tmp_path)
    assert labels(dataset) == {"a.jpg": (0, 1), "absent.jpg": (2,), "sub/b.jpg": (3,)}
    assert dataset.skipped == (Skipped("c.jpg", "not named in labels.csv"),)


def test_csv_class_names(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg")
    table = tmp_path / "my.csv"
    table.write_text('image,class\na.jpg,"Crane, bird;dog;1"\n')
    classes = ("crane, bird", "cat", "dog", "crane", "crane")
    dataset = list_csv_folder(tmp_path, table, classes=classes)
    assert labels(dataset) == {"a.jpg": (0, 1, 2)}
    table.write_text("image,class\na.jpg,crane\n")
    with pytest.raises(DataError, match=r"my\.csv, line 2: Two classes are called 'crane'"):
        list_csv_folder(tmp_path, table, classes=classes)


def test_csv_cannot_reach_out_of_its_folder(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "labels.csv").write_text(
        "file,labels\na.jpg,0\n../b.jpg,0\n/etc/passwd,0\nsub/../../b.jpg,0\n"
    )
    dataset = list_csv_folder(tmp_path / "in")
    assert [p.name for p in dataset] == ["a.jpg"]
    assert len(dataset.skipped) == 3 and all("outside" in s.reason for s in dataset.skipped)


@pytest.mark.parametrize(
    "table, message",
    [
        (None, r"labels\.csv: Expected a CSV file with the columns file,labels"),
        ("", "Expected a column 'file', got columns"),
        ("a.jpg,3\n", "Expected a column 'file'"),
        ("file,x\na.jpg,3\n", "Expected a column 'labels'"),
        ("file,labels\n", "Expected at least one row"),
        ("file,labels\na.jpg,\n", "line 2: Expected at least one label"),
        ("file,labels\na.jpg\n", "line 2: Expected at least one label"),
        ("file,labels\na.jpg,dog\n", "line 2: Expected a class index, got 'dog'"),
        ("file,labels\na.jpg,-1\n", "line 2: Expected a class index, got '-1'"),
        ("file,labels\na.jpg,1\na.jpg,2\n", "line 3: Expected a file that was not named before"),
        ("file,labels\n,1\n", "line 2: Expected a file that was not named before, got ''"),
    ],
)
def test_wrong_tables_are_explained(tmp_path: Path, table: str | None, message: str) -> None:
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        list_csv_folder(tmp_path)


def test_indices_are_checked_against_the_classes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,labels\na.jpg,2\n")
    with pytest.raises(DataError, match="line 2: Expected an index below 2 or a class name"):
        list_csv_folder(tmp_path, classes=("cat", "dog"))
