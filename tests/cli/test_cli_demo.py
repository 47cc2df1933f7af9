"""`dmbp demo`: what it draws and measures."""

import re
from pathlib import Path

import numpy as np
import pytest
from command_line import jax_settings_as_before  # noqa: F401 - on for every test here
from PIL import Image
from pixels import pixels

from dmbp_jax.cli import demo, main
from dmbp_jax.data.generated import CLASSES, generate

pytestmark = pytest.mark.slow


def test_demo_draws_and_measures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    argv = ["demo", "-o", str(folder), "--steps", "2", "--no-compilation-cache", "--quiet"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 5 + 10 + 1
    assert {"scene-1.png", "scene-4.star.png", "scene-4.cross.png", "comparison.png"} <= names
    shares = [[int(n) for n in re.findall(r"(\d+)%", line)] for line in out.splitlines()[:2]]
    assert [len(numbers) for numbers in shares] == [3, 3]
    with Image.open(folder / "scene-4.png") as picture:
        expected = generate(demo.SEED, 3, ("star", "cross")).image
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_shares_of_hand_made_maps() -> None:
    star, cross = CLASSES.index("star"), CLASSES.index("cross")
    sample = demo.generate_pair(star)
    target, rival = sample.masks[star], sample.masks[cross]
    right = target.astype(float) - rival
    maps = {"right": right, "wrong": -right, "zero": 0 * right, "flat": np.ones_like(right)}
    lines = demo.measure([star], [sample], {name: one[None] for name, one in maps.items()}).split(
        "\n"
    )
    areas = [round(100 * mask.mean()) for mask in (target, rival)]
    shares = [[int(n) for n in re.findall(r"(\d+)%", line)] for line in lines]
    assert shares == [[100, 0, 0, areas[0], areas[0]], [100, 0, 0, 0, areas[1]]]
    both = demo.measure([star] * 2, [sample] * 2, {"both": np.stack([right, -right])})
    assert both.count("both 50%") == 2
    assert pixels(demo.draw_masks(star, sample))[target].tolist()[0] == [255, 0, 0]
    assert pixels(demo.draw_masks(star, sample))[rival].tolist()[0] == [0, 0, 255]
