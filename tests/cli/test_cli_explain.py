"""`dmbp explain`: pictures, arrays and numbers equal those of the library."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import (  # fixtures too
    TINY,
    folder_of_pictures,  # noqa: F401
    jax_settings_as_before,  # noqa: F401 - on for every test here
    tiny_network,  # noqa: F401
)
from PIL import Image
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.cli import main
from dmbp_jax.cli.parser import LOSSES
from dmbp_jax.data.decoding import read_image
from dmbp_jax.pictures import authors_overlay, diverging, overlay


def test_explain_writes_pictures_arrays_and_numbers(
    capsys: pytest.CaptureFixture[str], tiny: dmbp_jax.Network, folder: Path
) -> None:
    argv = ["explain", "good0.png", "good1.png", "--label", "bee", "--steps", "30", "--npz"]
    assert main([*argv, "-o", "maps", *TINY]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for index, line in enumerate(out.splitlines()):
        target = Path("maps") / f"good{index}.dmbp.png"
        assert line.startswith(f"good{index}.png: bee (1)  y ")
        assert line.endswith(f"  -> {target}")
        with Image.open(target) as picture:
            assert picture.size == (4 * 192 + 40, 192 + 38 + 30)
        stored = dmbp_jax.Attribution.load(target.with_suffix(".npz"))
        x = tiny.preprocess(f"good{index}.png")
        alone = dmbp_jax.attribute(tiny, x, 1, config=dmbp_jax.DMBP(steps=30))
        np.testing.assert_allclose(stored.map, alone.map, rtol=1e-4, atol=1e-6)
        assert stored.history.shape == (30, 3)
        told = dict(re.findall(r"(y[+~-]?) (-?[\d.]+)", line))
        for name, value in {
            "y": alone.y,
            "y+": alone.y_positive,
            "y-": alone.y_negative,
            "y~": alone.y_nuisance,
        }.items():
            assert float(told[name]) == pytest.approx(float(value), abs=2e-3)
    assert sorted(path.name for path in Path("maps").iterdir()) == [
        "good0.dmbp.npz",
        "good0.dmbp.png",
        "good1.dmbp.npz",
        "good1.dmbp.png",
    ]


def test_explain_takes_the_networks_own_answer_and_shows_its_progress(
    capsys: pytest.CaptureFixture[str], tiny: dmbp_jax.Network, folder: Path
) -> None:
    answer = int(np.argmax(tiny(tiny.preprocess("good0.png"))))
    assert main(["explain", "good0.png", "--steps", "25", *TINY[:-1]]) == 0
    out, err = capsys.readouterr()
    assert f": {tiny.labels[answer]} ({answer})  y " in out
    assert "25/25" in err
    assert Path("dmbp-explain/good0.dmbp.png").is_file()


def assert_drawn(path: str, expected: Image.Image) -> None:
    with Image.open(path) as picture:
        difference = np.asarray(picture).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("loss", slow_beside(LOSSES, "positive"))
def test_explain_draws_the_overlay_of_every_loss(
    tiny: dmbp_jax.Network, folder: Path, loss: str
) -> None:
    argv = ["explain", "good0.png", "--loss", loss, "--style", "overlay", "--label", "0"]
    assert main([*argv, "--steps", "20", *TINY]) == 0
    config = dmbp_jax.DMBP(steps=20, loss=loss)
    att = dmbp_jax.attribute(tiny, tiny.preprocess("good0.png"), 0, config=config)
    expected = overlay(tiny.crop("good0.png"), att.positive, att.negative)
    assert_drawn("dmbp-explain/good0.dmbp.png", expected)


@pytest.mark.parametrize("method", ["gradient", "gradcam"])
@pytest.mark.parametrize("style", ["panel", "overlay", "map"])
def test_explain_by_another_method(
    capsys: pytest.CaptureFixture[str],
    tiny: dmbp_jax.Network,
    folder: Path,
    method: str,
    style: str,
) -> None:
    argv = ["explain", "good0.png", "--method", method, "--label", "1", "--style", style]
    assert main([*argv, "--npz", *TINY]) == 0
    out, _ = capsys.readouterr()
    x = tiny.preprocess("good0.png")
    logit = float(tiny(x)[1])
    assert f"bee (1)  logit {logit:.3f}" in out
    target = Path("dmbp-explain") / f"good0.{method}.png"
    size = {"panel": (2 * 192 + 24, 192 + 38 + 30)}.get(style, (16, 16))
    with Image.open(target) as picture:
        assert picture.size == size
    with np.load(target.with_suffix(".npz")) as stored:
        expected = dmbp_jax.methods.METHODS[method](tiny, x, 1)
        np.testing.assert_allclose(stored["map"], expected, rtol=1e-3, atol=1e-5)
        assert int(stored["label"]) == 1
        assert float(stored["logit"]) == pytest.approx(logit, abs=1e-4)


def test_a_map_without_a_zero_is_drawn_around_its_mean(
    monkeypatch: pytest.MonkeyPatch, tiny: dmbp_jax.Network, folder: Path
) -> None:
    scores = 100 + np.random.default_rng(0).normal(size=(1, 16, 16))
    monkeypatch.setattr(dmbp_jax.methods, "rise", lambda *args, **options: scores)
    argv = ["explain", "good0.png", "--method", "rise", "--style", "map", "--npz", *TINY]
    assert main(argv) == 0
    with Image.open("dmbp-explain/good0.rise.png") as picture:
        np.testing.assert_array_equal(
            np.asarray(picture), np.asarray(diverging(scores[0] - scores[0].mean()))
        )
    with np.load("dmbp-explain/good0.rise.npz") as stored:
        np.testing.assert_array_equal(stored["map"], scores[0])


def test_explain_draws_the_authors_picture(tiny: dmbp_jax.Network, folder: Path) -> None:
    argv = ["explain", "good0.png", "--style", "authors", "--label", "0", "--steps", "20"]
    assert main([*argv, *TINY]) == 0
    config = dmbp_jax.DMBP(steps=20)
    att = dmbp_jax.attribute(tiny, tiny.preprocess("good0.png"), 0, config=config)
    expected = authors_overlay(tiny.crop("good0.png"), att.positive, att.negative)
    assert_drawn("dmbp-explain/good0.dmbp.png", expected)


@pytest.mark.parametrize("method", slow_beside(["smoothgrad", "rise"], "smoothgrad", "rise"))
def test_a_random_map_does_not_depend_on_the_place_in_the_batch(
    tiny: dmbp_jax.Network, folder: Path, method: str
) -> None:
    """Not on the file's name either: the key is made from its bytes."""
    shutil.copy("good0.png", "copy.png")
    options = ["--method", method, "--label", "1", "--npz", *TINY]
    assert main(["explain", "good0.png", "good1.png", "copy.png", "-o", "first", *options]) == 0
    assert main(["explain", "good1.png", "good0.png", "-o", "second", *options]) == 0
    maps = []
    for path in ("first/good0", "first/copy", "second/good0", "first/good1"):
        with np.load(f"{path}.{method}.npz") as stored:
            maps.append(stored["map"])
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(maps[2], maps[0], rtol=1e-5, atol=1e-7)
    assert np.abs(maps[3] - maps[0]).max() > 1e-3


def test_every_photo_is_decoded_once(
    monkeypatch: pytest.MonkeyPatch, tiny: dmbp_jax.Network, folder: Path
) -> None:
    decoded: list[Path] = []

    def counted(source: Path) -> tuple[Image.Image, str]:
        decoded.append(source)
        return read_image(source)

    monkeypatch.setattr("dmbp_jax.cli.explain.read_image", counted)
    assert main(["explain", "good0.png", "good1.png", "--method", "gradient", *TINY]) == 0
    assert decoded == [Path("good0.png"), Path("good1.png")]
