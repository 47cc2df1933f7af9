"""`dmbp evaluate` on the command line: choices, exit codes, and pictures that cannot be read."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from command_line import refused
from PIL import Image
from test_evaluate_page import Page
from tiny_evaluation import log_of

from dmbp_jax import DMBP, experiments
from dmbp_jax.catalogue import ROWS
from dmbp_jax.cli import build_parser, main
from dmbp_jax.cli import evaluate as command
from dmbp_jax.cli.output import INCOMPLETE
from dmbp_jax.experiments import TABLES, Settings


def bad_pictures(folder: Path) -> list[str]:
    """Good and bad files, with their labels; names of the bad ones."""
    good = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 100, 3), np.uint8))
    good.save(folder / "good.png")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    good.save(folder / "animated.gif", save_all=True, append_images=[good.rotate(90)])
    good.save(folder / "whole.jpg")
    (folder / "corrupt.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "empty.png").touch()
    (folder / "notes<i>.txt").write_text("not a picture")
    Image.new("1", (20000, 20000)).save(folder / "huge.png")
    rows = "".join(
        f"{path.name},{i % 3};{3 + i % 2}\n" for i, path in enumerate(sorted(folder.iterdir()))
    )
    (folder / "labels.csv").write_text("file,labels\n" + rows + "missing.png,1\n")
    return ["corrupt.jpg", "empty.png", "notes<i>.txt", "huge.png", "missing.png"]


@pytest.mark.slow
def test_bad_files_are_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMBP_HOME", str(tmp_path / "home"))
    photos = tmp_path / "photos"
    photos.mkdir()
    bad = bad_pictures(photos)
    out = tmp_path / "out"
    line = (
        f"evaluate --table 1 --dataset csv --root {photos} --network builtin --methods gradient "
        f"--points 3 --batch-size 2 -o {out} --quiet --no-compilation-cache"
    ).split()
    before = jax.config.jax_enable_compilation_cache
    try:
        assert main(line) == INCOMPLETE
        first = capsys.readouterr()
        assert main(line) == INCOMPLETE  # continued: nothing to do, but still incomplete
        second = capsys.readouterr()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert second == first
    assert "Table 1" in first.out and str(out / "evaluation.html") in first.out
    named = first.err.splitlines()
    assert len(named) == len(bad)
    reasons = {"corrupt.jpg": "truncated", "empty.png": "empty", "notes<i>.txt": "not a picture"}
    reasons |= {"huge.png": "too large", "missing.png": "no such file"}
    for name in bad:
        (found,) = [text for text in named if text.startswith(f"dmbp: {name}: ")]
        assert reasons[name] in found
    skipped = (out / "skipped.txt").read_text().splitlines()
    assert [f"dmbp: {text}" for text in skipped] == named
    page = (out / "evaluation.html").read_text()
    Page(page)
    assert "notes&lt;i&gt;.txt" in page and "notes<i>" not in page
    stored = [json.loads(text) for text in log_of(out).splitlines()]
    assert {row["picture"] for row in stored} == {
        "good.png",
        "cmyk.jpg",
        "animated.gif",
        "whole.jpg",
    }


def test_the_choices_are_those_of_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert {str(table) for table in TABLES} | {"all"} == {"1", "2", "3", "all"}
    args = build_parser().parse_args(["evaluate", "--methods", *ROWS])
    assert tuple(args.methods) == ROWS
    with pytest.raises(SystemExit):
        build_parser().parse_args(["evaluate", "--methods", "magic"])
    assert "invalid choice: 'magic'" in capsys.readouterr().err


def test_the_papers_numbers_go_with_published_weights_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def evaluate(*arguments: Any, **options: Any) -> Any:
        told.append((arguments[3], options["published"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "evaluate", evaluate)
    weights = Path(command.__file__).parents[2] / "models" / "builtin.safetensors"
    line = ["evaluate", "--no-compilation-cache", "-o", str(tmp_path / "out")]
    before = jax.config.jax_enable_compilation_cache
    try:
        assert main(line) == 130
        assert main([*line, "--weights", str(weights), "--images-per-class", "all"]) == 130
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert [published for _, published in told] == ["builtin", None]
    assert [settings.images_per_class for settings, _ in told] == [None, "all"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--dataset voc --network vgg16_voc", "Expected --root"),
        ("--dataset imagenet --root x", "--network NAME"),
        ("--root x", "--root: Expected none"),
        ("--dataset voc --root x --network vgg16_voc --labels y", "--labels"),
        ("--option rise=3", "Expected METHOD.NAME=VALUE"),
        ("--option rise.n_masks=none", "n_masks: Expected an int"),
        ("--option rise.colour=3", "option of rise"),
        ("--methods gradient --points 1", "points: Expected at least 2"),
        ("--images-per-class some", "expected a number from 1 or all"),
        ("--images-per-class 0", "expected a number from 1 or all"),
        ("--limit 0", "limit: Expected at least 1"),
    ],
)
def test_a_wrong_command_is_one_line(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", *line.split(), "-o", str(tmp_path), "--quiet", "--no-compilation-cache"]
    if "masks=none" in line:
        argv += ["--methods", "rise", "--limit", "1", "--points", "2"]
    before = jax.config.jax_enable_compilation_cache
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    err = capsys.readouterr().err
    assert code == 2
    assert words in err and err.count("\n") == 1


def test_options_that_would_be_ignored_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["evaluate", "--table", "2", "--methods", "gradient"]
    for given in (["--option", "rise.n_masks=5"], ["--steps", "5"], ["--biases", "drop"]):
        assert "Expected only options of the rows gradient" in refused(capsys, *line, *given)


def test_options_of_the_command_line() -> None:
    line = (
        "evaluate --option rise.n_masks=500 --option integrated_gradients.rule=trapezoid --steps 7"
    )
    options = command.options_of_methods(build_parser().parse_args(line.split()))
    assert options == {
        "rise": {"n_masks": 500},
        "integrated_gradients": {"rule": "trapezoid"},
        "dmbp": {"config": DMBP(steps=7), "biases": "drop"},
    }
    rows = Settings(tables=(1, 2), options=options).rows()
    assert [c.name for c in rows[1]] == list(TABLES[1].methods)
    assert all(dict(c.options)["config"].steps == 7 for c in rows[1][1:])
    assert dict(next(c for c in rows[2] if c.name == "rise").options) == {"n_masks": 500}
