"""Results, saved files and compared methods with frozen gates, and the slope as an option."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dmbp_jax
from dmbp_jax.errors import DmbpError, InputError, NonAffineError
from dmbp_jax.methods import METHODS

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 4, 3)), jnp.float32)
W = jnp.asarray(RNG.normal(size=(5, 5)), jnp.float32)
IN = jnp.asarray(RNG.normal(size=(3, 15)), jnp.float32)


def attention(_, x):
    q, k, v = jnp.split(x.reshape(len(x), 16, 3) @ IN, 3, -1)
    h = (jax.nn.softmax(q @ k.mT / 9) @ v).reshape(len(x), 4, 4, 5)
    return jax.nn.relu(h @ W).mean((1, 2)) @ W


def smooth(_, x):
    return jax.nn.gelu(x @ IN[:, :5]).mean((1, 2)) @ W


def test_what_was_frozen_is_part_of_the_result(tmp_path):
    config = dmbp_jax.DMBP(steps=2)
    options = {"apply_fn": attention, "config": config, "nonaffine": "freeze"}
    batch = dmbp_jax.attribute(None, jnp.stack([X, -X]), 1, **options)
    inside = jax.jit(lambda x: dmbp_jax.attribute(None, x, 1, **options))(X)
    assert batch.frozen == batch[1].frozen == inside.frozen == ("softmax",)
    assert len(jax.tree.leaves(batch)) == 12
    loaded = dmbp_jax.Attribution.load(batch.save(tmp_path / "map"))
    assert loaded.frozen == ("softmax",)
    plain = dmbp_jax.attribute(None, X, 1, apply_fn=smooth, config=config)
    assert plain.frozen == ()
    assert dmbp_jax.Attribution.load(plain.save(tmp_path / "plain")).frozen == ()


@pytest.mark.parametrize(
    "name", ["deeplift", "guided_backprop", "guided_gradcam", "gradcam", "fullgrad", "lpr", "dmbp"]
)
def test_every_method_that_looks_inside_takes_it(name):
    few = {"lpr": {"steps": 2}, "dmbp": {"config": dmbp_jax.DMBP(steps=2)}}.get(name, {})
    with pytest.raises(NonAffineError, match='nonaffine="freeze" takes'):
        METHODS[name](None, X, 1, apply_fn=attention, **few)
    heat = METHODS[name](None, X, 1, apply_fn=attention, nonaffine="freeze", **few)
    assert heat.shape[:2] == X.shape[:2] and bool(jnp.isfinite(heat).all())


def _class_token(x, activations=None):
    """Two blocks of attention and a dense layer; the logits read the class token alone."""
    patches = x.reshape(len(x), 16, 3) @ IN[:, :5]
    t = jnp.concatenate([jnp.ones((len(x), 1, 5)), patches], 1)
    found = []
    for block in range(2):
        q, k, v = jnp.split(t[..., :3] @ IN, 3, -1)
        t = t + jax.nn.softmax(q @ k.mT / 9) @ v
        h = jax.nn.relu(t @ W) if activations is None else activations[block]
        found.append(h)
        t = t + h @ W.T / 4
    return t[:, 0] @ W, found


@pytest.mark.slow
def test_gradcam_of_a_class_token_is_of_the_blocks_whose_patches_reach_it():
    """No patch of the last block does: the map of that block alone is zero."""
    _, found = _class_token(X[None])
    gradient = jax.grad(lambda found: _class_token(X[None], found)[0][0, 1])(found)
    parts = [(g[0, 1:].sum(0) * h[0, 1:]).sum(-1) for g, h in zip(gradient, found, strict=True)]
    np.testing.assert_array_equal(parts[1], 0)
    heat = METHODS["gradcam"](
        None, X, 1, apply_fn=lambda _, x: _class_token(x)[0], nonaffine="freeze"
    )
    assert heat.max() > 0.1
    np.testing.assert_allclose(heat, jax.nn.relu(parts[0]).reshape(4, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_slope_reaches_decompose_fullgrad_and_lpr():
    masks = dmbp_jax.init_masks(None, X, 1.0, apply_fn=smooth)
    gradient = jax.grad(lambda x: smooth(None, x[None])[0, 1])(X)
    maps = [
        dmbp_jax.decompose(None, X, 1, masks, apply_fn=smooth, pointwise=slope).positive
        for slope in ("tangent", "secant")
    ]
    np.testing.assert_allclose(maps[0], gradient * X, rtol=1e-4, atol=1e-5)
    assert abs(maps[1] - maps[0]).max() > 1e-2
    for name, options in (("fullgrad", {}), ("lpr", {"steps": 1})):
        both = [
            METHODS[name](None, X, 1, apply_fn=smooth, pointwise=slope, **options)
            for slope in ("tangent", "secant")
        ]
        assert abs(both[1] - both[0]).max() > 1e-4


@pytest.mark.slow
def test_the_number_of_segments_reaches_decompose_fullgrad_and_lpr():
    masks = dmbp_jax.init_masks(None, X, 1.0, apply_fn=smooth)

    def decompose(params, x, label, **options):
        return dmbp_jax.decompose(params, x, label, masks, **options).positive

    def one_slope(_, x):  # no |z| is above 4: one segment is one line through f(-4) and f(4)
        z = x @ IN[:, :5]
        assert abs(z).max() < 4
        low, high = jax.nn.gelu(-4.0), jax.nn.gelu(4.0)
        return (z * (high - low) / 8).mean((1, 2)) @ W

    gradient = jax.grad(lambda x: one_slope(None, x[None])[0, 1])(0.1 * X)
    found = decompose(None, 0.1 * X, 1, apply_fn=smooth, pointwise="segments", segments=1)
    np.testing.assert_allclose(found, gradient * 0.1 * X, rtol=1e-4, atol=1e-6)
    for method in (decompose, METHODS["fullgrad"], partial(METHODS["lpr"], steps=1)):
        maps = [
            method(None, X, 1, apply_fn=smooth, pointwise="segments", **number)
            for number in ({}, {"segments": 8}, {"segments": 2})
        ]
        np.testing.assert_array_equal(maps[0], maps[1])
        assert abs(maps[2] - maps[1]).max() > 1e-4


def test_options_are_checked():
    with pytest.raises(InputError, match="nonaffine: Expected one of"):
        METHODS["gradcam"](None, X, apply_fn=attention, nonaffine="ignore")
    for call in (
        lambda **slope: dmbp_jax.decompose(None, X, 0, (), apply_fn=smooth, **slope),
        lambda **slope: METHODS["fullgrad"](None, X, 0, apply_fn=smooth, **slope),
        lambda **slope: METHODS["lpr"](None, X, 0, apply_fn=smooth, **slope),
    ):
        with pytest.raises(InputError, match="pointwise: Expected one of"):
            call(pointwise="chord")
        for wrong, words in ((0, "at least 1"), (257, "a number in .*256"), (2.0, "an int")):
            with pytest.raises(DmbpError, match=f"segments: Expected {words}"):
                call(segments=wrong)
