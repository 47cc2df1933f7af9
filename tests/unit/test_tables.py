"""One reader of tables of labels and one of class names, whatever program wrote the file."""

import codecs
import json
from functools import partial
from pathlib import Path

import pytest

from dmbp_jax.data.tables import read_table
from dmbp_jax.errors import DataError, InputError, InputTypeError
from dmbp_jax.networks.class_names import dataset_labels, find_label, read_labels

CLASSES = ("cat", "dog", "hot dog", "crane", "crane", "猫")
RESOLVE = partial(find_label, CLASSES)
PLAIN = "file,label\na.jpg,1\nb.jpg,crane\n".replace("crane", "猫")


def rows(path: Path, content: str | bytes, **options) -> list[tuple[str, int | None]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(row.file, row.label) for row in read_table(path, RESOLVE, **options).rows]


SPELLINGS = {
    "plain": PLAIN.encode(),
    "space in the head": PLAIN.replace("file,label", "file, label").encode(),
    "spaces in the rows": PLAIN.replace(",", " , ").encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "upper case": PLAIN.replace("file,label", "File,LABEL").encode(),
    "other names": PLAIN.replace("file,label", "Image,Class").encode(),
    "quotes": b'"file","label"\n"a.jpg","1"\n"b.jpg","\xe7\x8c\xab"\n',
    "carriage returns": PLAIN.replace("\n", "\r\n").encode(),
    "old carriage returns": PLAIN.replace("\n", "\r").encode(),
    "no last line end": PLAIN.rstrip().encode(),
    "blank lines": ("\n\n" + PLAIN.replace("\n", "\n\n , \n")).encode(),
    "comment above": b"# made by hand\n" + PLAIN.encode(),
    "mark of UTF-8": codecs.BOM_UTF8 + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "other columns": "width,label,file,note\n3,1,a.jpg,x\n3,猫,b.jpg,\n".encode(),
    "columns in another order": "label,file\n1,a.jpg\n猫,b.jpg\n".encode(),
    "empty cells at the end": PLAIN.replace("1\n", "1,,\n").encode(),
    "names in other cases": PLAIN.replace("1", " DOG ").encode(),
}


@pytest.mark.parametrize("content", SPELLINGS.values(), ids=SPELLINGS)
def test_the_same_table_in_every_spelling(tmp_path, content):
    assert rows(tmp_path / "t.csv", content) == [("a.jpg", 1), ("b.jpg", 5)]


def test_several_labels_of_a_file(tmp_path):
    table = "file,labels\nx/a.jpg,0; hot dog ;1;0\nb.jpg,2\n./b.jpg,0\nc.jpg,top1\nd.jpg,\n"
    assert rows(tmp_path / "t.csv", table) == [
        *[("x/a.jpg", label) for label in (0, 2, 1)],
        *[("b.jpg", 2), ("b.jpg", 0), ("c.jpg", None), ("d.jpg", None)],
    ]


REFUSED = {
    "no label column": ("file,width\na.jpg,3\n", "Expected the columns file,label, got file,width"),
    "files alone": ("file\na.jpg\n", "Expected the columns file,label, got file"),
    "a typing mistake": ("file,lable\na.jpg,3\n", "got file,lable"),
    "no names of columns": ("a.jpg,3\n", "Expected the columns file,label, got a.jpg,3"),
    "empty": ("", "Expected the columns file,label, got none"),
    "head alone": ("file,label\n", "at least one row"),
    "two columns of labels": ("file,label,label\na.jpg,1,2\n", "one column label, got label and"),
    "two columns of files": ("image,path,label\na.jpg,b.jpg,2\n", "got image and path"),
    "two classes": ("file,label\na.jpg,crane\n", r"line 2: .* crane \(3\), crane \(4\)"),
    "part of a name": ("file,label\na.jpg,ca\n", "line 2: label: Expected a class name"),
    "unknown name": ("file,label\na.jpg,bird\n", "line 2: label: Expected a class name"),
    "number too high": ("file,label\n\na.jpg,6\n", "line 3: label: Expected 0 <= label < 6, got 6"),
    "below 0": ("file,label\na.jpg,-1\n", "line 2: label: Expected a class name or an index"),
    "a fraction": ("file,label\na.jpg,1.5\n", "line 2"),
    "a row cut short": ("file,label\na.jpg\n", "line 2: Expected file,label, got 1 cells"),
    "the separator in a name": ("file,label\na,b.jpg,1\n", "line 2: .* got 3 cells"),
    "comment below": ("file,label\n# a,b\na.jpg,1\n", "line 2"),
    "no file": ("file,label\n,1\n", "line 2: Expected a file and label not named before, got ''"),
    "twice": ("file,label\na.jpg,1\n./a.jpg,dog\n", "line 3: Expected a file and label not named"),
    "open quote": ('file,label\n"a.jpg,1\nb.jpg,2\n', "Expected a table"),
    "Latin-1": ("file,label\né.jpg,1\n".encode("latin-1"), "Expected a table"),
    "UTF-16 without its mark": (PLAIN.encode("utf-16-le"), "Expected a table"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        rows(tmp_path / "t.csv", content)


def test_a_table_may_have_no_labels_where_they_are_not_needed(tmp_path):
    assert rows(tmp_path / "t.csv", "File\na.jpg\n", needed=False) == [("a.jpg", None)]
    with pytest.raises(DataError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv", RESOLVE)


def test_names_that_differ_in_case_alone():
    imagenet = dataset_labels("imagenet")
    assert [find_label(imagenet, one) for one in ("Cardigan", " cardigan ")] == [264, 474]
    with pytest.raises(InputError, match=r"Cardigan \(264\), cardigan \(474\)"):
        find_label(imagenet, "CARDIGAN")


def test_a_number_that_is_also_a_name():
    digits = tuple("0123456789")
    assert [find_label(digits, one) for one in ("3", 3, " 3 ")] == [3, 3, 3]
    assert find_label(("10", "20"), "20") == 1  # the number of no class
    with pytest.raises(InputError, match=r"'1', which fits 2 \(1\), 1 \(0\)"):
        find_label(("1", "2"), "1")
    assert find_label((), "7") == 7
    with pytest.raises(InputError, match="label: Expected"):
        find_label(("a", "b"), "9" * 5000)


NAMES = {
    "text": "cat\n猫\n".encode(),
    "mark of UTF-8": codecs.BOM_UTF8 + "cat\n猫\n".encode(),
    "UTF-16": "cat\n猫\n".encode("utf-16"),
    "carriage returns": "cat\r\n猫".encode(),
    "blank lines": "\ncat\n\n 猫 \n\n".encode(),
    "list": json.dumps(["cat", "猫"]).encode(),
    "names by number": '{"1": "猫", "0": "cat"}'.encode(),
    "WordNet ids and names": '{"0": ["n1", "cat"], "1": ["n2", "猫"]}'.encode(),
    "numbers by name": codecs.BOM_UTF8 + '\n{"猫": 1, "cat": 0}'.encode(),
}


@pytest.mark.parametrize("content", NAMES.values(), ids=NAMES)
def test_class_names_in_every_spelling(tmp_path, content):
    (tmp_path / "names").write_bytes(content)
    assert read_labels(tmp_path / "names") == ("cat", "猫")


@pytest.mark.parametrize(
    "content",
    [
        *["", " \n\n", "[]", "{}", "[1, 2]", '["cat"', '{"1": "cat", "2": "dog"}', "[[]]"],
        *['{"0": "a", "0": "b"}', '{"a": 0, "b": 0}', '{"0": {"name": "cat"}}', '["cat", " "]'],
    ],
)
def test_what_are_no_class_names(tmp_path, content):
    (tmp_path / "names").write_text(content)
    with pytest.raises((InputError, InputTypeError), match=r"labels: .*names: Expected"):
        read_labels(tmp_path / "names")


def test_equal_names_are_two_classes(tmp_path):
    (tmp_path / "names").write_text("crane\ncrane\n")
    assert read_labels(tmp_path / "names") == ("crane", "crane")
