"""Whose files are in OUT: `evaluate` never overwrites or removes what it did not write."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import jax_settings_as_before  # noqa: F401 - on for every test here
from PIL import Image
from tiny_evaluation import SHORT, log_of, preprocess, run, watched

from dmbp_jax.cli import main
from dmbp_jax.errors import InputError
from dmbp_jax.runs.store import Store

SHORT_ONE = dataclasses.replace(SHORT, limit=1)
PART = ".dmbp-01234567"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def put(folder: Path, *names: str) -> dict[str, bytes]:
    """Files of somebody else."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"mine: {name}\n".encode())
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        (
            "pictures/holiday.jpg",
            "tables.md",
            "tables.csv",
            "records/00000000.jsonl",
            "notes/a.txt",
        ),
        ("tables.md",),
        ("records/00000000.jsonl",),
        ("records.jsonl",),
        ("pictures/holiday.jpg",),
        ("manifest.json", "pictures/1/cat.png"),
        ("thesis.tex",),
        (".git/HEAD",),
    ],
)
def test_a_folder_of_somebody_else_is_refused(
    names: tuple[str, ...], force: bool, tmp_path: Path
) -> None:
    before = put(tmp_path, *names)
    with pytest.raises(InputError, match="out: Expected an empty folder") as refusal:
        run(tmp_path, SHORT, force=force)
    assert names[0].split("/")[0] in str(refusal.value) or len(names) > 1
    assert "\n" not in str(refusal.value)
    assert contents(tmp_path) == before


def test_the_command_refuses_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = put(tmp_path, "pictures/holiday.jpg", "tables.md")
    line = "evaluate --table 1 --methods gradient --limit 1 --points 3 --force --quiet"
    assert main([*line.split(), "--no-compilation-cache", "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "Expected an empty folder" in err and err.count("\n") == 1
    assert contents(tmp_path) == before


def test_another_tools_manifest_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "version": "0.1.0"}')
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"got .* with manifest\.json"):
        run(tmp_path, SHORT, force=True)
    assert contents(tmp_path) == before


def test_force_removes_its_own_files_and_no_others(tmp_path: Path) -> None:
    run(tmp_path, SHORT)
    first = set(contents(tmp_path))
    drawn = min(name for name in first if name.endswith("map-gradient.png")).rsplit("/", 1)[0]
    foreign = put(
        tmp_path, "mine.txt", "pictures/holiday.jpg", f"{drawn}/mine.png", "sub/tables.md"
    )
    result = run(tmp_path, SHORT_ONE, force=True)
    after = contents(tmp_path)
    assert len(result.records) == len(log_of(tmp_path).splitlines()) == 1
    assert {name: after[name] for name in foreign} == foreign
    clean = contents(run(tmp_path.parent / "clean", SHORT_ONE).folder)
    assert set(after) - set(foreign) == set(clean)
    assert len(clean) < len(first)  # fewer pictures, so some were removed


def test_the_list_names_every_file_that_is_written(tmp_path: Path) -> None:
    run(tmp_path, SHORT)
    written = (tmp_path / "files.txt").read_text().splitlines()
    assert len(set(written)) == len(written)
    own = {"manifest.json", "records/00000000.jsonl", "files.txt"}
    assert set(contents(tmp_path)) == {*written, *own}


def test_a_damaged_list_removes_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, SHORT)
    foreign = put(tmp_path, "precious.txt", "out/mine.txt", "out/pictures/holiday.jpg")
    with (out / "files.txt").open("a") as stream:
        stream.write("../precious.txt\nmine.txt\npictures/holiday.jpg\npictures\n")
        stream.write(f"{tmp_path / 'precious.txt'}\n" + "mine.txt")  # and a line cut short
    run(out, SHORT, force=True)
    after = contents(tmp_path)
    assert {name: after[name] for name in foreign} == foreign


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["tables.md", "evaluation.html", "skipped.txt", "pictures"])
def test_a_foreign_file_where_an_output_would_go_is_refused(
    name: str, force: bool, tmp_path: Path
) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, SHORT, dataset=watched(stop))
    foreign = put(tmp_path, name)
    with pytest.raises(InputError, match=f"{name}: Expected"):
        run(tmp_path, SHORT, force=force)
    assert contents(tmp_path)[name] == foreign[name]


def test_what_a_kill_leaves_is_cleaned_and_no_obstacle(tmp_path: Path) -> None:
    put(tmp_path, "manifest.json.__lock")  # before there was a manifest
    (tmp_path / "files.txt").touch()
    run(tmp_path, SHORT)
    assert not (tmp_path / "manifest.json.__lock").exists()
    drawn = next(tmp_path.glob("pictures/*/map-gradient.png")).relative_to(tmp_path)
    ours = [
        f"{PART}.md",
        "records/00000007.jsonl.__lock",
        f"{drawn.parent.as_posix()}/{PART}.png",
    ]
    put(tmp_path, *ours)
    foreign = put(tmp_path, ".hidden", ".01234567.thesis.tex", "records/mine.txt")
    run(tmp_path, SHORT)
    after = contents(tmp_path)
    assert not set(ours) & set(after)
    assert {name: after[name] for name in foreign} == foreign


def test_a_kill_while_starting_over_leaves_a_folder_of_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, SHORT)
    calls: list[Any] = []

    def killed(*arguments: Any) -> None:
        calls.append(arguments)
        raise KeyboardInterrupt

    for owner, place in ((Store, "delete"), (os, "ftruncate"), (Store, "put")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, place, killed)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path, SHORT_ONE, force=True)
    assert len(calls) == 3
    assert len(run(tmp_path, SHORT_ONE, force=True).records) == 1


def test_a_folder_without_a_record_takes_other_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="crop: Expected pictures of x's"):
        run(tmp_path, SHORT, crop=lambda picture: picture)
    assert len(run(tmp_path, SHORT).records) == 2  # with another crop, nothing was measured before


def test_a_folder_in_use_and_a_file_are_refused(tmp_path: Path) -> None:
    def nested(picture: Image.Image) -> np.ndarray:
        for force in (False, True):
            with pytest.raises(InputError, match="is being written to"):
                run(tmp_path / "out", SHORT_ONE, force=force)
        return preprocess(picture)

    pytest.importorskip("fcntl")
    run(tmp_path / "out", SHORT_ONE, preprocess=nested)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="got the file"):
        run(tmp_path / "file", SHORT_ONE)
