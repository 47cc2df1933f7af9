"""Logits of a batch are those of its images: a network that mixes them is refused by name.

What a network does to several images is decided on its trace where that can be seen, else by a run.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.errors import InputError, UnsupportedNetworkError
from dmbp_jax.graph import mixing
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

rng = np.random.default_rng(0)
X = np.asarray(rng.normal(size=(3, 4, 4, 3)), np.float32)
W = np.asarray(rng.normal(size=(3, 8)), np.float32)
H = np.asarray(rng.normal(size=(8, 3)), np.float32)
IMAGE = jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)


def classify(x):
    return jax.nn.relu(x @ W).mean((1, 2)) @ H


def batch_norm(x):
    z = x @ W
    return jax.nn.relu((z - z.mean((0, 1, 2))) / jnp.sqrt(z.var((0, 1, 2)) + 1e-5)).mean((1, 2)) @ H


class TrainingMode(nn.Module):
    """BatchNorm of Flax with the statistics of the batch."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(x.mean((1, 2)))


def flax_batch_norm(x):
    net = TrainingMode()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    return net.apply(variables, x, mutable=["batch_stats"])[0]


def only_in_a_batch(x):
    return classify(x - x.mean(0)) if len(x) > 1 else classify(x)


def one_after_the_other(x):
    def step(memory, image):
        memory = 0.5 * memory + image.mean((0, 1))
        return memory, memory

    return classify(x) + lax.scan(step, jnp.zeros(3), x)[1]


def deviation_of_groups(x):
    """As the last layer of StyleGAN's discriminator."""
    size = min(4, len(x))
    deviation = x.reshape(size, -1, *x.shape[1:]).std(0).mean((1, 2, 3))
    return classify(x) + jnp.tile(deviation, size)[:, None]


MIXED = {
    "groups of four images": (deviation_of_groups, "'reduce_sum'"),
    "the mean of the batch": (lambda x: classify(x - x.mean(0)), "'reduce_sum'"),
    "all pixels of all images": (lambda x: classify(x) + x.sum(), "'reduce_sum'"),
    "batch normalisation": (batch_norm, "'reduce_sum'"),
    "batch normalisation of Flax": (flax_batch_norm, "BatchNorm_0"),
    "features of the batch": (lambda x: (lambda z: z - z.max(0))(classify(x)), "'reduce_max'"),
    "images reversed": (lambda x: classify(x[::-1]), "'rev'"),
    "images rolled": (lambda x: classify(jnp.roll(x, 1, 0)), "'slice'"),
    "images shuffled": (lambda x: classify(jax.random.permutation(jax.random.key(3), x)), ""),
    "images sorted": (lambda x: classify(jnp.sort(x, 0)), "'sort'"),
    "images sorted, of a root": (lambda x: classify(jnp.sort(jnp.sqrt(x), 0)), "'sort'"),
    "the first image": (lambda x: classify(x[:1]) + jnp.zeros((len(x), 1)), "'slice'"),
    "the first logits": (lambda x: classify(x)[:1] + jnp.zeros((len(x), 1)), "'slice'"),
    "only in a batch": (only_in_a_batch, "'reduce_sum'"),
    "a sum of images, by a product": (
        lambda x: classify(jnp.einsum("nhwc,nm->mhwc", x, jnp.ones((len(x), len(x))))),
        "'dot_general'",
    ),
    "the first image around all": (
        lambda x: classify(lax.pad(x, x[0, 0, 0, 0], [(0, 0, 0), (1, 1, 0), (0, 0, 0), (0, 0, 0)])),
        "",
    ),
    "products of images": (lambda x: classify(x) @ classify(x).T @ classify(x), "'dot_general'"),
    "a softmax over images": (lambda x: classify(x) * jax.nn.softmax(x.sum((1, 2)), 0), ""),
    "images as features": (
        lambda x: classify(x.transpose(3, 0, 1, 2).reshape(x.shape)),
        "'reshape'",
    ),
    "images one after the other": (one_after_the_other, "'scan'"),
    "a vmapped axis": (
        jax.vmap(lambda i: classify(i[None])[0] - lax.pmean(i.mean(), "n"), axis_name="n"),
        "'psum'",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_network_that_mixes_images_is_refused(name):
    network, named = MIXED[name]
    for x in (X, X[0]):  # one image too: it is not the one that a batch has
        with pytest.raises(UnsupportedNetworkError, match=f"every image of a batch.*{named}"):
            METHODS["gradient"](None, x, 1, apply_fn=lambda _, x: network(x))


def test_it_is_refused_by_every_function():
    def network(_, x):
        return batch_norm(x)

    for call in (
        lambda: dmbp_jax.attribute(None, X, 1, apply_fn=network, nonaffine="freeze"),
        lambda: dmbp_jax.sites(None, X, apply_fn=network, nonaffine="freeze"),
        lambda: dmbp_jax.metrics.insertion(None, X, 1, X.sum(-1), apply_fn=network),
        lambda: jax.jit(lambda x: METHODS["gradient"](None, x, 1, apply_fn=network))(X),
    ):
        with pytest.raises(UnsupportedNetworkError, match="every image of a batch"):
            call()


def test_a_function_that_mixes_images_from_now_on():
    """As a module that a function captured, after its `train()`."""
    state = {"head": H, "training": False}

    def network(_, x):
        return jax.nn.relu((x - x.mean(0) if state["training"] else x) @ W).mean((1, 2)) @ H

    METHODS["gradient"](None, X, 1, apply_fn=network)
    state["training"] = True
    with pytest.raises(UnsupportedNetworkError, match="every image of a batch"):
        METHODS["gradient"](None, X, 1, apply_fn=network)


def test_parameters_that_are_traced_are_not_looked_at_with_a_negative_variance():
    def network(params, x):
        z = x / jnp.sqrt(params["variance"])
        return classify(z + z[jnp.argsort(z.sum((1, 2, 3)))])

    def call(params):
        return METHODS["gradient"](params, X, 1, apply_fn=network)

    with pytest.raises(UnsupportedNetworkError, match="every image of a batch"):
        jax.jit(call)({"variance": np.ones(3, np.float32)})


def windows(x):
    n = len(x)
    z = x.reshape(n, 2, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n * 4, 2, 2, 3)
    return jax.nn.relu(z @ W).mean((1, 2)).reshape(n, 4, 8).mean(1) @ H


def attention(x):
    z = (x @ W).reshape(len(x), 16, 2, 4)
    weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", z, z))
    return jnp.einsum("nhqk,nkhd->nqhd", weights, z).reshape(len(x), 16, 8).mean(1) @ H


def channels_first(x):
    x = x.transpose(0, 3, 1, 2)
    numbers = ("NCHW", "HWIO", "NCHW")
    kernel = np.ones((3, 3, 3, 8), np.float32)
    x = jax.nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jnp.concatenate([x, jnp.flip(x, 2)], axis=1)[:, ::2]
    return jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).mean((2, 3)) @ H


APART = {
    "plain": classify,
    "per image": jax.vmap(lambda i: jax.nn.relu(i @ W).mean((0, 1)) @ H),
    "a loop over images": lambda x: lax.map(lambda i: jax.nn.relu(i @ W).mean((0, 1)) @ H, x),
    "windows in the batch": windows,
    "windows in the batch, vmapped": lambda x: jax.vmap(lambda i: windows(i[None])[0])(x),
    "attention": attention,
    "channels first": channels_first,
    "a convolution, vmapped": lambda x: jax.vmap(lambda i: channels_first(i[None])[0])(x),
    "instance norm": lambda x: classify(x - x.mean((1, 2), keepdims=True)),
    "layers in a loop": lambda x: (
        lax.scan(
            lambda z, _: (jax.checkpoint(jax.nn.relu)(z @ (H @ H.T)), None), x @ W, None, length=2
        )[0].mean((1, 2))
        @ H
    ),
    "features sorted": lambda x: jnp.sort(classify(x), axis=-1),
    "one token": lambda x: jax.nn.relu(x @ W).reshape(len(x), 16, 8)[:, 0] @ H,
}


@pytest.mark.parametrize("name", APART)
def test_images_that_are_apart_are_seen_on_the_trace(name, monkeypatch):
    def fail(*_):
        raise AssertionError("The network was run.")

    monkeypatch.setattr(mixing, "_changes", fail)
    trace(bind(None, lambda _, x: APART[name](x)), IMAGE)


def test_what_cannot_be_followed_is_run():
    def mixed_and_back(x):
        return classify(x[::-1])[::-1]

    def gathered(x):
        return (
            classify(x) + jnp.take(x.reshape(len(x), -1), jnp.argmax(x[:, 0, 0], 1), 1)[:, :1] * 0
        )

    for network in (mixed_and_back, gathered):
        found = METHODS["gradient"](None, X, 1, apply_fn=lambda _, x, f=network: f(x))
        expected = METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: classify(x))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_network_of_one_image_at_a_time():
    """One that cannot take more does not mix them; one that takes the first of more is refused."""
    found = METHODS["gradient"](
        None, X, 1, apply_fn=lambda _, x: jax.nn.relu(x.reshape(1, 4, 4, 3) @ W).mean((1, 2)) @ H
    )
    expected = METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: classify(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(InputError, match=r"\(1, 3\) for \(4, 4, 4, 3\).*jax.vmap"):
        METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: classify(x[0][None]))


def deviation_of(features, w=W):
    """Features of images, less their mean, through a layer."""
    return jax.nn.relu(features.mean((1, 2)) - features.mean((0, 1, 2))) @ w @ H


SHUT = {  # by the images that the check took alone: all pixels between 0 and 1
    "units that want negative pixels": lambda x: deviation_of(jax.nn.relu(-x)),
    "units that want large pixels": lambda x: deviation_of(jax.nn.relu(x - 20)),
    "roots that are NaN there": lambda x: deviation_of(jnp.sqrt(jax.nn.relu(x) - 2)),
    "units that are shut for ever": lambda x: deviation_of(jax.nn.relu(0 * x - 1)),
}


@pytest.mark.parametrize("name", SHUT)
def test_mixing_is_seen_with_pixels_of_any_size(name):
    with pytest.raises(UnsupportedNetworkError, match="every image of a batch"):
        METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: SHUT[name](x))


class Dropout(nn.Module):
    """A layer that drops other features of every image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        x = nn.Dropout(0.5, deterministic=False)(x)
        return nn.Dense(3)(x.mean((1, 2)))


def flax_dropout(x):
    variables = Dropout().init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x[:1])
    return Dropout().apply(variables, x, rngs={"dropout": jax.random.key(1)})


PLACED = {
    "a mask for every image": lambda x: classify(
        x * jax.random.bernoulli(jax.random.key(3), 0.5, x.shape)
    ),
    "dropout of Flax": flax_dropout,
    "a sum over the size of the batch": lambda x: (
        jax.nn.relu(x @ W).sum((1, 2)) * (8 / (x.size // 3 * 8)) @ H
    ),
    "the number of the image": lambda x: classify(x + jnp.arange(len(x))[:, None, None, None]),
    "the number of the image, of NumPy": lambda x: classify(
        x + np.arange(len(x), dtype=np.float32)[:, None, None, None]
    ),
    "a table by number": lambda x: classify(x) + jnp.linspace(0, 1, 8)[: len(x), None],
    "the size of the batch": lambda x: classify(x) ** 1 * len(x),
    "a power": lambda x: classify(x + jax.nn.relu(x) ** len(x)),
    "one by one": lambda x: jnp.concatenate(
        [classify((1.0 + k) * x[k : k + 1]) for k in range(len(x))]
    ),
    "copies that are added": lambda x: classify(jnp.broadcast_to(x, (len(x), *x.shape)).sum(0)),
    "as many columns": lambda x: classify(x[:, :, : len(x)]) / 2,
    "no number in a batch": lambda x: classify(x) * (1.0 if len(x) == 1 else np.nan),
    "padding by the size": lambda x: classify(
        jnp.pad(x, ((0, 0), (len(x), 0), (0, 0), (0, 0)))[:, :4]
    ),
}


ALIKE = {
    "dropout of Flax",
    *("the number of the image, of NumPy", "the size of the batch", "copies that are added"),
    *("as many columns", "one by one", "a power", "a table by number"),
}


@pytest.mark.parametrize("name", slow_beside(PLACED, *ALIKE))
def test_a_place_in_the_batch_is_no_part_of_an_image(name):
    """Several images are refused; one is what it is alone."""
    network = PLACED[name]
    with pytest.raises(UnsupportedNetworkError, match=r"every image of a batch.*place"):
        METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: network(x))
    found = METHODS["gradient"](None, X[0], 1, apply_fn=lambda _, x: network(x))
    expected = X[0] * jax.grad(lambda x: network(x[None])[0, 1])(X[0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


SAME = {
    **APART,
    "a key for all images": lambda x: classify(
        x * jax.random.bernoulli(jax.random.key(3), 0.5, x.shape[1:])
    ),
    "zeros like images": lambda x: classify(x + jnp.zeros_like(x) + jnp.ones((len(x), 1, 1, 3))),
    "a row for all images": lambda x: classify(
        jnp.concatenate([jnp.tile(jnp.ones((1, 1, 1, 3)), (len(x), 1, x.shape[2], 1)), x], 1)
    ),
    "positions": lambda x: classify(x + jnp.arange(4.0)[None, :, None, None] * jnp.ones_like(x)),
}


@pytest.mark.parametrize("name", slow_beside(SAME, *APART.keys() - {"windows in the batch"}))
def test_a_batch_of_what_is_done_to_every_image(name):
    found = METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: SAME[name](x))
    each = [METHODS["gradient"](None, x, 1, apply_fn=lambda _, x: SAME[name](x)) for x in X]
    np.testing.assert_allclose(found, np.stack(each), rtol=1e-4, atol=1e-6)


def test_only_what_depends_on_the_number_of_images_is_run(monkeypatch):
    def fail(*_):
        raise AssertionError("The network was run.")

    monkeypatch.setattr(mixing, "_differ", fail)
    for name in SAME.keys() - {"a loop over images"}:
        trace(bind(None, lambda _, x, name=name: SAME[name](x)), IMAGE)
