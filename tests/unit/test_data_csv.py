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
    with pytest.raises(DataError, match=r"my\.csv, line 2: .*crane \(3\), crane \(4\)"):
        list_csv_folder(tmp_path, table, classes=classes)


def test_csv_cannot_reach_out_of_its_folder(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "labels.csv").write_text(
        "file,labels\na.jpg,0\n../b.jpg,0\n/etc/passwd,0\nsub/../../b.jpg,0\n"
    )
    dataset = list_csv_folder(tmp_path / "in")
    assert [p.name for p in dataset] == ["a.jpg"]
    assert len(dataset.skipped) == 3 and all("outside" in s.reason for s in dataset.skipped)


def test_names_start_from_the_pictures_or_from_the_table(tmp_path: Path) -> None:
    """As in `dmbp explain` and `dmbp run`: one table serves all commands."""
    paint(tmp_path / "in" / "a.jpg")
    paint(tmp_path / "in" / "b.jpg")
    (tmp_path / "t.csv").write_text(f"file,label\nin/a.jpg,0\n{tmp_path}/in/b.jpg,1\na.jpg,2\n")
    dataset = list_csv_folder(tmp_path / "in", tmp_path / "t.csv")
    assert labels(dataset) == {"a.jpg": (0, 2), "b.jpg": (1,)} and not dataset.skipped


def test_wrong_tables_are_explained(tmp_path: Path) -> None:
    for table, message in (
        (None, r"labels\.csv: Expected a table with the columns file,label: .*No such file"),
        ("file,labels\na.jpg,\n", "line 2: Expected at least one label"),
        ("file,labels\na.jpg,dog\n", "line 2: .*Expected an index, got 'dog'"),
        ("file,labels\n../a.jpg,1\n", "Expected pictures in .*, got none"),
    ):
        if table is not None:
            (tmp_path / "labels.csv").write_text(table)
        with pytest.raises(DataError, match=message):
            list_csv_folder(tmp_path)


def test_a_picture_has_the_labels_of_all_its_rows(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,labels\na.jpg,2\nb.jpg,1\na.jpg,0\n")
    assert labels(list_csv_folder(tmp_path)) == {"a.jpg": (0, 2), "b.jpg": (1,)}


def test_linked_folders_are_followed_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "a.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "labels.csv").write_text("file,labels\nlink/a.jpg,2\n")
    dataset = list_csv_folder(root)
    assert labels(dataset) == {"link/a.jpg": (2,)}
    assert dataset.skipped == (Skipped("loop", "link to a folder it lies in"),)
