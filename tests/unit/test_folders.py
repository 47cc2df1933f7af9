"""Folders and patterns: links followed without end, every picture's suffix, nothing left out."""

from pathlib import Path

import pytest
from dataset_folders import paint

from dmbp_jax.data.folders import list_folder, list_pictures, picture_suffixes
from dmbp_jax.errors import InputError
from dmbp_jax.runs.inputs import describe_left_out, list_inputs


@pytest.fixture(name="folder")
def folder_with_links(tmp_path: Path) -> Path:
    """Pictures here and behind links; two folders that link to each other and to themselves."""
    folder = tmp_path / "photos"
    paint(folder / "a.JFIF")
    paint(folder / "one" / "b.Jpg")
    paint(tmp_path / "elsewhere" / "deep" / "c.jpeg")
    (folder / "two").symlink_to(tmp_path / "elsewhere")
    (folder / "one" / "up").symlink_to("..")
    (folder / "one" / "self").symlink_to(".")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "deep" / "c.jpeg")
    (folder / "notes.TXT").touch()
    (folder / "README").touch()
    paint(folder / ".hidden.jpg")
    paint(folder / ".cache" / "d.jpg")
    return folder


PICTURES = ["a.JFIF", "link.png", "one/b.Jpg", "two/deep/c.jpeg"]


def test_a_folder_with_links(folder):
    pictures, left_out = list_pictures(folder)
    assert [path.relative_to(folder).as_posix() for path in pictures] == PICTURES
    assert {one.name: one.reason for one in left_out} == {
        ".hidden.jpg": "hidden",
        ".cache": "hidden",
        "notes.TXT": "no picture by its suffix .txt",
        "README": "no suffix",
        "one/up": "link to a folder it lies in",
        "one/self": "link to a folder it lies in",
        "two/back": "link to a folder it lies in",
    }
    assert len(list_folder(folder).files) == len(PICTURES) + 2


def test_a_run_says_what_it_leaves_out(folder):
    inputs = list_inputs(folder, None, None)
    assert list(inputs.files) == PICTURES
    assert describe_left_out(inputs.left_out) == (
        "left out 7 (link to a folder it lies in: 3, hidden: 2, no picture by its suffix .txt: 1, "
        "no suffix: 1)"
    )
    assert describe_left_out(()) == ""
    (folder / "empty").mkdir()
    (folder / "empty" / "a.txt").touch()
    with pytest.raises(InputError, match=r"left out 1 \(no picture by its suffix \.txt: 1\)"):
        list_inputs(folder / "empty", None, None)


def test_patterns(folder):
    every = list_inputs(str(folder / "**" / "*.*p*g"), None, None)
    assert list(every.files) == PICTURES[1:]
    assert len(every.left_out) == 3  # the links that lead back
    here = list_inputs(str(folder / "*"), None, None)
    assert list(here.files) == ["README", "a.JFIF", "link.png", "notes.TXT"]
    assert [one.reason for one in here.left_out] == ["folder", "folder"]
    deep = list_inputs(str(folder / "**" / "deep" / "**"), None, None)
    assert list(deep.files) == ["c.jpeg"]


def test_several_folders_and_files(folder, tmp_path):
    inputs = list_inputs([folder / "two" / "deep", folder / "a.JFIF"], None, None)
    assert (inputs.root, inputs.files) == (folder, ("two/deep/c.jpeg", "a.JFIF"))


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    from dmbp_jax.data import folders

    paint(tmp_path / "a.jpg")

    def walk(folder, followlinks, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "locked")))
        yield str(folder), [], ["a.jpg"]

    monkeypatch.setattr(folders.os, "walk", walk)
    assert list_folder(tmp_path).skipped == [
        ("locked", "folder that cannot be read: Permission denied")
    ]


def test_every_suffix_that_pillow_decodes_by_itself():
    suffixes = picture_suffixes()
    assert {".jpg", ".jfif", ".webp", ".jpx", ".psd", ".mpo", ".qoi", ".apng"} <= suffixes
    assert not {".eps", ".ps", ".pdf", ".h5", ".mpg", ".wmf"} & suffixes
