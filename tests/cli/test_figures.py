"""The paper's figures: what they show, against hand-written NumPy, and `dmbp figures`."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import folder_of_pictures, jax_settings_as_before, refused, tiny_network  # noqa: F401
from PIL import Image

from dmbp_jax import DMBP
from dmbp_jax.catalogue import find_method
from dmbp_jax.cli import main
from dmbp_jax.errors import InputError, MissingPackageError
from dmbp_jax.experiments.figures import (
    Question,
    colours_of,
    insert,
    mappings,
    paper_figures,
    save_sheet,
)

pytestmark = pytest.mark.slow
drawing = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib"
)
TINY = ["--network", "tiny", "--no-compilation-cache", "--quiet"]


def two_layers(params, x):
    """Two masked layers and a head, with biases: F = w ReLU(V ReLU(U x + b) + c)."""
    hidden = jnp.maximum(x.reshape(len(x), -1) @ params["U"] + params["b"], 0)
    return jnp.maximum(hidden @ params["V"] + params["c"], 0) @ params["w"]


@pytest.fixture(name="network")
def network_with_biases(rng):
    shapes = {"U": (12, 5), "b": (5,), "V": (5, 4), "c": (4,), "w": (4, 3)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_mappings_are_the_products_of_the_masked_matrices(rng, network, x64):
    """Eq. 9 written out: wᵀ Σ₂ Ŵ₂ Σ₁ Ŵ₁, with Σ, with 1 − Σ, and with neither."""
    x = rng.normal(size=(2, 2, 3))
    masks = rng.uniform(size=5), rng.uniform(size=4)
    got = mappings(network, x, 1, masks, apply_fn=two_layers)

    first = x.ravel() @ network["U"] + network["b"]
    second = np.maximum(first, 0) @ network["V"] + network["c"]
    for found, (one, two) in zip(got, [(1, 1), masks, (1 - masks[0], 1 - masks[1])], strict=True):
        expected = network["U"] * (one * (first > 0)) @ network["V"] * (two * (second > 0))
        np.testing.assert_allclose(
            found, (expected @ network["w"][:, 1]).reshape(x.shape), rtol=1e-12
        )


def smooth(params, x):
    """SiLU between two matrices: F = w SiLU(U x + b)."""
    return jax.nn.silu(x.reshape(len(x), -1) @ params["U"] + params["b"]) @ params["w"]


def test_the_mappings_are_those_that_the_masks_were_learned_for(rng, network, x64):
    """With the tangent ∇F is the gradient; with the secant it is w SiLU(z) / z, times U."""
    params = {"U": network["U"], "b": network["b"], "w": rng.normal(size=(5, 3))}
    x, masks = rng.normal(size=(2, 2, 3)), [rng.uniform(size=5)]
    z = x.ravel() @ params["U"] + params["b"]
    gradient = jax.grad(lambda x: smooth(params, x[None])[0, 1])(x)
    secant = (params["U"] * jax.nn.sigmoid(z)) @ params["w"][:, 1]
    for slope, expected in (("tangent", gradient), ("secant", secant.reshape(x.shape))):
        config = DMBP(pointwise=slope)
        got = mappings(params, x, 1, masks, apply_fn=smooth, config=config)
        np.testing.assert_allclose(got[0], expected, rtol=1e-10)
        np.testing.assert_allclose(got[1] + got[2], expected, rtol=1e-10)


class Recorded:
    """A method that records its options."""

    signed, title = True, ""

    def __init__(self, name, told):
        self.name, self.told, self.options = name, told, find_method(name).options

    def function(self, params, x, label, *, apply_fn, **options):
        self.told.append((self.name, options))
        return np.ones(x.shape[:3])


def test_the_figures_take_all_settings_of_the_linearisation(rng, monkeypatch):
    params = {"U": rng.normal(size=(12, 5)), "b": rng.normal(size=5), "w": rng.normal(size=(5, 3))}
    told = []

    def recorded(*args, config, **options):
        told.append(config)
        return [np.ones((2, 2, 3))] * 3

    module = "dmbp_jax.experiments.figures"
    monkeypatch.setattr(f"{module}.mappings", recorded)
    monkeypatch.setattr(f"{module}.find_method", lambda name: Recorded(name, told))
    config = DMBP(steps=1, pointwise="segments", segments=4)
    made = paper_figures(params, [question(rng)], apply_fn=smooth, config=config, numbers=(2, 4))
    assert [number for number, _ in made] == [2, 4]
    linearised = {"nonaffine": "refuse", "pointwise": "segments", "segments": 4}
    assert told == [config, ("fullgrad", linearised), ("gradcam", {"nonaffine": "refuse"})]


def test_inserted_pixels_are_sharp_and_the_others_blurred(rng):
    x = rng.normal(size=(16, 16, 3)).astype(np.float32)
    heat = rng.permutation(256).reshape(16, 16).astype(np.float32)
    blurred, sharp = insert(x, heat, 0.0), insert(x, heat, 1.0)
    np.testing.assert_array_equal(sharp, x)
    assert (blurred != x).all()
    some = insert(x, heat, 0.25)
    inserted = (some == x).all(-1)
    assert inserted.sum() == 64
    assert heat[inserted].min() > heat[~inserted].max()
    np.testing.assert_array_equal(some[~inserted], blurred[~inserted])


def test_colours_are_found_from_an_input_and_its_picture(rng):
    """Whatever the preprocessing: here BGR, a mean and a scale."""
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = (pixels[..., ::-1].astype(np.float32) - np.array([104, 117, 123])) / 3
    to_picture = colours_of(x, Image.fromarray(pixels))
    np.testing.assert_array_equal(np.asarray(to_picture(x)), pixels)
    assert to_picture(np.zeros_like(x)).getpixel((0, 0)) == (123, 117, 104)


def question(rng, label=0):
    pixels = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    x = (pixels / 255).astype(np.float32)
    return Question(Image.fromarray(pixels), x, (label, 1), ("ant", "bee"))


def test_maps_of_both_classes_are_drawn_on_one_scale(rng, network):
    """Fig. 1 and 2 without drawing them: the tiles and what is written above."""
    questions = [question(rng), question(rng)]
    made = paper_figures(
        network, questions, apply_fn=two_layers, config=DMBP(steps=2), numbers=(1, 2)
    )
    sheets = dict(made)
    captions = [tile.caption for tile in sheets[1].rows[1]]
    assert captions == ["image", "ant", "bee"]
    assert len(sheets[2].rows) == 3
    assert sheets[2].titles[0].startswith("original network, ant: y = ")


def test_mistakes_are_refused(rng, network):
    with pytest.raises(InputError, match=r"numbers: Expected figures of 1 to 5, got 6\."):
        paper_figures(network, [question(rng)], apply_fn=two_layers, numbers=(1, 6))
    with pytest.raises(InputError, match="questions: Expected at least one picture"):
        paper_figures(network, [], apply_fn=two_layers)


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("dmbp_jax.experiments.figures.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'dmbp-jax\[figures\]'"):
        save_sheet(None, tmp_path / "figure1.svg")
    assert "matplotlib" in refused(capsys, "figures", "-o", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@drawing
def test_the_command_draws_all_five(tiny, folder, capsys):
    arguments = ["figures", "good0.png", "good1.png", "--label", "ant", "--steps", "2", *TINY]
    assert main([*arguments, "-o", "out"]) == 0
    files = [Path(f"out/figure{number}.svg") for number in range(1, 6)]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    for file in files:
        text = file.read_text("utf-8")
        assert text.count("<image") >= 6, file
    drawn = files[0].read_bytes()
    assert "would be overwritten" in refused(capsys, *arguments, "-o", "out")
    assert main([*arguments, "-o", "out", "--figures", "1", "--force"]) == 0
    assert files[0].read_bytes() == drawn  # no dates, no random names


@drawing
@pytest.mark.parametrize("format", ["pdf", "png", "webp"])
def test_other_formats(format, rng, network, tmp_path):
    made = paper_figures(
        network, [question(rng)], apply_fn=two_layers, config=DMBP(steps=1), numbers=(3,)
    )
    path = tmp_path / f"figure3.{format}"
    save_sheet(dict(made)[3], path)
    assert path.stat().st_size > 1000


def test_the_command_refuses_what_it_would_ignore(tiny, folder, capsys, monkeypatch):
    assert "--label: Expected only with IMAGE" in refused(capsys, "figures", "--label", "ant")
    three = ["--label", "ant"] * 3
    assert "at most two classes" in refused(capsys, "figures", "good0.png", *three)
    assert "IMAGE: Expected pictures" in refused(capsys, "figures", *TINY)
    monkeypatch.setattr("dmbp_jax.Network.__call__", lambda net, x: np.zeros(1))
    assert "two classes at least" in refused(capsys, "figures", "good0.png", *TINY)
