"""Whose files are in OUT: `evaluate` never overwrites or removes what it did not write."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import jax_settings_as_before  # noqa: F401 - on for every test here
from PIL import Image
from tiny_evaluation import SHORT, log_of, preprocess, run, watched

from dmbp_jax.cli import main
from dmbp_jax.errors import InputError
from dmbp_jax.experiments.results import OWN
from dmbp_jax.runs.store import Store

SHORT_ONE = dataclasses.replace(SHORT, limit=1)


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
    ("names", "words"),
    [
        (("tables.md", "thesis.tex"), r"tables\.md: Expected no such file"),
        (("evaluation.html",), r"evaluation\.html: Expected no such file"),
        (("manifest.json", "skipped.txt"), r"skipped\.txt: Expected no such file"),
        ((f"{OWN}/mine.txt",), r"with mine\.txt"),
        ((f"{OWN}/records/00000000.jsonl",), "with records"),
        ((f"{OWN}/manifest.json",), r"with manifest\.json"),
    ],
)
def test_files_of_somebody_else_in_the_way_are_refused(
    names: tuple[str, ...], words: str, force: bool, tmp_path: Path
) -> None:
    before = put(tmp_path, *names)
    with pytest.raises(InputError, match=words) as refusal:
        run(tmp_path, SHORT, force=force)
    assert "\n" not in str(refusal.value)
    assert contents(tmp_path) == before


def test_the_command_refuses_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = put(tmp_path, "tables.md")
    line = "evaluate --table 1 --methods gradient --limit 1 --points 3 --force --quiet"
    assert main([*line.split(), "--no-compilation-cache", "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "tables.md: Expected no such file" in err and err.count("\n") == 1
    assert contents(tmp_path) == before


def test_other_files_are_left_alone_also_when_it_starts_over(tmp_path: Path) -> None:
    foreign = put(
        tmp_path, "mine.txt", ".git/HEAD", "pictures/holiday.jpg", "records/1", "manifest.json"
    )
    run(tmp_path, SHORT)
    first = set(contents(tmp_path))
    result = run(tmp_path, SHORT_ONE, force=True)
    after = contents(tmp_path)
    assert len(result.records) == len(log_of(tmp_path).splitlines()) == 1
    assert {name: after[name] for name in foreign} == foreign
    clean = contents(run(tmp_path.parent / "clean", SHORT_ONE).folder)
    assert set(after) - set(foreign) == set(clean)
    assert len(clean) < len(first) - len(foreign)  # fewer pictures, so some were removed


@pytest.mark.parametrize("name", ["tables.md", "evaluation.html", "skipped.txt"])
def test_a_foreign_file_that_comes_before_the_first_output_is_refused(
    name: str, tmp_path: Path
) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, SHORT, dataset=watched(stop))
    foreign = put(tmp_path, name)
    for force in (False, True):
        with pytest.raises(InputError, match=f"{name}: Expected"):
            run(tmp_path, SHORT, force=force)
    assert contents(tmp_path)[name] == foreign[name]


def test_a_kill_before_the_manifest_is_no_obstacle(tmp_path: Path) -> None:
    put(tmp_path, f"{OWN}/manifest.json.__lock", f"{OWN}/lock")
    assert len(run(tmp_path, SHORT_ONE).records) == 1


def test_a_kill_while_starting_over_leaves_a_folder_of_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, SHORT)
    calls: list[Any] = []

    def killed(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        raise KeyboardInterrupt

    for owner, place in ((shutil, "rmtree"), (Path, "unlink"), (Store, "put")):
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
