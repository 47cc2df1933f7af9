"""What all methods share: shapes, batch independence, chunks, transformations, refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_methods import SHORT, every_method, one_of_each_kind, run
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax import models
from dmbp_jax.errors import (
    InputError,
    InputTypeError,
    NonAffineError,
    NoReluError,
    SiteNotFoundError,
)
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS
from dmbp_jax.methods.guided import find_layers

IMAGE = (8, 7, 3)
NETWORK = apply_fn_of(NETWORKS["pool"])
COARSE = ("gradcam", "fullgrad", "rise", "lpr")
NEED_SITES = (
    "deeplift",
    "guided_backprop",
    "guided_gradcam",
    "gradcam",
    "fullgrad",
    "lpr",
    "dmbp",
)
SAMPLED = ("integrated_gradients", "smoothgrad", "blur_ig", "rise")


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), make_params(NETWORKS["pool"], 0, IMAGE)
    )


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.stack([make_image(seed, IMAGE) for seed in range(3)]), jnp.float32)


_run = partial(run, NETWORK)


def _close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(np.abs(b).max() + 1e-3))


@every_method
def test_shapes_and_top1(name, params, images):
    single = _run(name, params, images[0], None)
    shape = images.shape[:3] if name in COARSE else images.shape
    assert single.shape == shape[1:] and single.dtype == images.dtype
    top1 = np.argmax(NETWORK(params, images), 1)
    batch = _run(name, params, images, None)
    assert batch.shape == shape and bool(jnp.isfinite(batch).all())
    _close(batch, _run(name, params, images, top1))
    _close(batch[0], single)
    if name in COARSE:
        assert float(batch.min()) >= 0


@one_of_each_kind
def test_batch_mates_and_chunks_change_nothing(name, params, images):
    labels = jnp.array([2, 0, 3])
    whole = _run(name, params, images, labels)
    others = images.at[0].mul(-3.0).at[2].set(0.5)
    _close(_run(name, params, others, labels)[1], whole[1])
    for chunk_size in (2, 7):
        _close(_run(name, params, images, labels, chunk_size=chunk_size), whole)


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in (*SAMPLED, "lpr")), "dmbp"]
)
def test_progress_changes_nothing(name, params, images, capsys):
    shown = _run(name, params, images, 1, progress=True, chunk_size=2)
    assert "%" in capsys.readouterr().err
    _close(shown, _run(name, params, images, 1))


@one_of_each_kind
def test_whole_call_under_jit_and_vmap(name, params, images):
    labels = jnp.array([2, 0, 3])
    expected = _run(name, params, images, labels)
    jitted = jax.jit(lambda p, x, label: _run(name, p, x, label))
    _close(jitted(params, images, labels), expected)
    one_by_one = [_run(name, params, x, c) for x, c in zip(images, labels, strict=True)]
    mapped = jax.jit(jax.vmap(lambda x, label: _run(name, params, x, label)))(images, labels)
    _close(mapped, np.stack(one_by_one))


@one_of_each_kind
def test_nothing_to_explain_is_finite(name, params, images):
    for x in (jnp.zeros_like(images[0]), jnp.full_like(images[0], 0.7)):
        assert bool(jnp.isfinite(_run(name, params, x, 1)).all())

    def constant(params, x):  # no input reaches the logits
        return jax.nn.relu(x - 1e6).sum((1, 2)) @ jnp.ones((3, 4))

    dead = METHODS[name](0.0, images[0], 1, apply_fn=constant, **SHORT.get(name, {}))
    assert bool(jnp.isfinite(dead).all())
    if name != "rise":
        np.testing.assert_array_equal(dead, np.zeros_like(dead))


@one_of_each_kind
def test_an_image_that_overflows_does_not_touch_its_mates(name, params, images):
    labels = jnp.array([2, 0, 3])
    overflowing = _run(name, params, images.at[0].set(3e38), labels)
    _close(overflowing[1:], _run(name, params, images, labels)[1:])


@pytest.mark.parametrize(
    ("module", "layer", "shape"),
    [
        (models.ResNet50(), "ResNet/layer4_2/relu3", (1, 7, 7, 2048)),
        (models.VGG16(), "VGG/relu5_3", (1, 14, 14, 512)),
        (models.CaffeVGG16(classes=20), "VGG/relu5_3", (1, 14, 14, 512)),
    ],
)
def test_gradcam_finds_its_layer(module, layer, shape):
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    network = trace(bind(variables, module.apply), x)
    call = Call(network, x, jnp.zeros(1, jnp.int32), True)
    (site,) = find_layers(call, None)
    assert (site.name, site.shape) == (layer, shape)


def _branches(x):
    """The end of an Inception module; no branch is the whole of the last feature map."""
    parts = [jax.nn.relu(x @ jnp.eye(3, 2)), jax.nn.relu(-x), jax.nn.relu(0.5 - x[..., :1])]
    return jnp.concatenate(parts, -1)


def _sum_of_blocks(x):
    """Residual blocks without a ReLU behind the sum."""
    h = jax.nn.relu(x - x[..., ::-1])
    for _ in range(2):
        h = h + jax.nn.relu(0.5 - jax.nn.relu(1.0 - h))
    return h


@pytest.mark.parametrize("features", [_branches, _sum_of_blocks])
def test_gradcam_takes_the_whole_of_the_last_feature_map(features, images):
    weights = jax.random.normal(jax.random.key(2), (features(images).shape[-1], 4))
    heat = METHODS["gradcam"](
        weights, images, 1, apply_fn=lambda w, x: features(x).mean((1, 2)) @ w
    )
    expected = jax.nn.relu(features(images) @ weights[:, 1])
    assert (expected.max((1, 2)) > 0.1).all()
    _close(heat, expected)


def test_a_gradcam_that_is_negative_everywhere_is_zero(images):
    def against(params, x):
        return -jax.nn.relu(x).sum((1, 2)) @ jnp.ones((3, 2))

    heat = METHODS["gradcam"](0.0, images, 1, apply_fn=against)
    np.testing.assert_array_equal(heat, np.zeros(images.shape[:3]))
    product = METHODS["guided_gradcam"](0.0, images, 1, apply_fn=against)
    np.testing.assert_array_equal(product, np.zeros(images.shape))


@every_method
def test_refusals(name, params, images):
    cases = [
        ((images, jnp.array([1, 2])), InputError, "label: Expected an int or 3 labels"),
        ((images, 4), InputError, "label: Expected 0 <= label < 4"),
        ((images, 1.5), InputTypeError, "label: Expected integers"),
        (
            (jnp.concatenate([images, images], -1), 1),
            InputError,
            "x: Expected images the network accepts",
        ),
        ((images[0, 0], 1), InputError, "x: Expected shape"),
        ((images[:0], 1), InputError, "empty batch"),
        ((images.at[0, 0, 0, 0].set(jnp.nan), 1), InputError, "x: Expected finite values"),
        ((images.astype(jnp.int32), 1), InputTypeError, "x: Expected a floating-point dtype"),
    ]
    for (x, label), error, message in cases:
        with pytest.raises(error, match=message):
            _run(name, params, x, label)
    with pytest.raises(InputError, match="chunk_size: Expected at least 1"):
        _run(name, params, images, 1, chunk_size=0)
    with pytest.raises(InputTypeError, match="params: Expected a callable"):
        METHODS[name](params, images, 1)


@pytest.mark.parametrize("name", NEED_SITES)
def test_networks_without_usable_sites_are_refused(name, images):
    def linear(params, x):
        return x.sum((1, 2)) @ jnp.ones((3, 2))

    def rounded(params, x):
        return jnp.floor(jax.nn.relu(x)).sum((1, 2)) @ jnp.ones((3, 2))

    with pytest.raises(NoReluError, match="at least one ReLU"):
        METHODS[name](0.0, images, 1, apply_fn=linear)
    with pytest.raises(NonAffineError, match="floor"):
        METHODS[name](0.0, images, 1, apply_fn=rounded)


@pytest.mark.parametrize("name", ["gradcam", "guided_gradcam"])
def test_unknown_layers_are_refused_with_the_list_of_names(name, params, images):
    names = [site.name for site in dmbp_jax.sites(params, images, apply_fn=NETWORK)]
    with pytest.raises(SiteNotFoundError, match=r"'layer9'.*relu_0"):
        _run(name, params, images, 1, layer="layer9")
    assert "relu_0" in names
    dense = apply_fn_of(NETWORKS["dense"])
    with pytest.raises(SiteNotFoundError, match=r"has positions.*none"):
        METHODS[name](make_params(NETWORKS["dense"], 0, IMAGE), images, 1, apply_fn=dense)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("integrated_gradients", {"n_steps": 0}, InputError, "n_steps"),
        ("integrated_gradients", {"n_steps": 1, "rule": "trapezoid"}, InputError, "n_steps"),
        ("integrated_gradients", {"rule": "simpson"}, InputError, "rule"),
        ("integrated_gradients", {"baseline": "white"}, InputError, "baseline"),
        ("integrated_gradients", {"baseline": "black"}, InputTypeError, "baseline"),
        ("deeplift", {"baseline": np.zeros((2, 2, 3), np.float32)}, InputError, "baseline"),
        ("deeplift", {"baseline": 0}, InputTypeError, "baseline"),
        ("smoothgrad", {"n_samples": 0}, InputError, "n_samples"),
        ("smoothgrad", {"n_samples": 2.0}, InputTypeError, "n_samples"),
        ("smoothgrad", {"noise_fraction": -0.1}, InputError, "noise_fraction"),
        ("smoothgrad", {"noise_fraction": "much"}, InputTypeError, "noise_fraction"),
        ("blur_ig", {"max_sigma": 0.0}, InputError, "max_sigma"),
        ("blur_ig", {"grad_step": float("nan")}, InputError, "grad_step"),
        ("blur_ig", {"spacing": "log"}, InputError, "spacing"),
        ("rise", {"n_masks": 0}, InputError, "n_masks"),
        ("rise", {"keep": 0.0}, InputError, "keep"),
        ("rise", {"keep": 1.5}, InputError, "keep"),
        ("rise", {"cells": 0}, InputError, "cells"),
        ("rise", {"activation": "linear"}, InputError, "activation"),
        ("lpr", {"steps": -1}, InputError, "steps"),
        ("lpr", {"learning_rate": 0}, InputError, "learning_rate"),
        ("lpr", {"area_weight": -1.0}, InputError, "area_weight"),
        ("lpr", {"baseline": "white"}, InputError, "baseline"),
        ("dmbp", {"config": 3}, InputTypeError, "config"),
    ],
)
def test_wrong_options_are_refused_by_name(name, options, error, message, params, images):
    with pytest.raises(error, match=f"{message}: Expected"):
        _run(name, params, images, 1, **options)


def test_black_baseline_of_a_network_that_knows_its_preprocessing(images):
    class Knowing:
        activation = "sigmoid"

        def __call__(self, x):
            return jax.nn.relu(x).sum((1, 2)) @ jnp.ones((3, 2))

        def preprocess(self, picture):
            return np.asarray(picture, np.float32) / 255 - np.array([0.1, 0.2, 0.3], np.float32)

    net = jax.tree_util.register_static(Knowing)()
    black = np.broadcast_to(np.float32([-0.1, -0.2, -0.3]), images.shape)
    for name in ("integrated_gradients", "deeplift"):
        given = METHODS[name](net, images, 0, baseline=black)
        _close(METHODS[name](net, images, 0, baseline="black"), given)
    sigmoid = METHODS["rise"](net, images, 0, n_masks=5)
    _close(sigmoid, METHODS["rise"](net, images, 0, n_masks=5, activation="sigmoid"))
