"""Rows and columns are found wherever a network keeps them; where they cannot be, it is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.errors import SiteNotFoundError, UnknownAxesError
from dmbp_jax.graph.positions import as_picture
from dmbp_jax.methods import fullgrad, gradcam, guided_gradcam

RNG = np.random.default_rng(0)
W1, W2, HEAD = (RNG.normal(size=s) * 0.5 for s in ((3, 3, 3, 4), (3, 3, 4, 6), (6, 3)))
B1, B2 = RNG.normal(size=4) * 0.3, RNG.normal(size=6) * 0.3
X = RNG.normal(size=(8, 12, 3)).astype(np.float32)


_LAST = ("NHWC", "HWIO", "NHWC")


def _conv(x, kernel, numbers=_LAST):
    kernel = jnp.asarray(kernel, x.dtype)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def _pool(x, window):
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "SAME")


def _stem(x):
    return _conv(_pool(jax.nn.relu(_conv(x, W1) + B1), (1, 2, 2, 1)), W2)


def features_last(_, x):
    return jax.nn.relu(_stem(x) + B2).mean((1, 2)) @ HEAD


def features_first(_, x):
    numbers = ("NCHW", "OIHW", "NCHW")
    h = _conv(x.transpose(0, 3, 1, 2), W1.transpose(3, 2, 0, 1), numbers)
    h = _pool(jax.nn.relu(h + B1[:, None, None]), (1, 1, 2, 2))
    h = jax.nn.relu(_conv(h, W2.transpose(3, 2, 0, 1), numbers) + B2[:, None, None])
    return h.mean((2, 3)) @ HEAD


def mixed(_, x):
    h = _conv(x.transpose(3, 1, 2, 0), W1, ("CHWN", "HWIO", "NCHW"))
    h = jax.nn.relu(h + B1[:, None, None]).transpose(2, 3, 0, 1)
    h = _conv(_pool(h, (2, 2, 1, 1)), W2, ("HWNC", "HWIO", "NHWC"))
    return jax.nn.relu(h + B2).reshape(1, -1, 6).sum(1) @ HEAD / 24


def windows_in_the_batch(_, x):
    h = _stem(x).reshape(1, 2, 2, 3, 2, 6).transpose(0, 1, 3, 2, 4, 5).reshape(6, 4, 6)
    h = jax.nn.relu(h + B2)
    return h.reshape(1, 2, 3, 2, 2, 6).transpose(0, 1, 3, 2, 4, 5).mean((1, 2, 3, 4)) @ HEAD


def tokens(_, x):
    h = jnp.concatenate([jnp.ones((1, 1, 6)), _stem(x).reshape(1, 24, 6)], 1)
    return jax.nn.relu(h + B2)[:, 1:].mean(1) @ HEAD


def _each(network):
    """The network of a batch; all of these are written for one image."""

    @functools.wraps(network)
    def of_batch(params, x):
        return jnp.concatenate([network(params, x[i : i + 1]) for i in range(len(x))])

    return of_batch


LAYOUTS = [*map(_each, (features_last, features_first, mixed, windows_in_the_batch, tokens))]


def _spread(_, x, label, apply_fn):
    config = dmbp_jax.DMBP(steps=0)
    return dmbp_jax.attribute(None, x, label, apply_fn=apply_fn, config=config, biases="spread").map


METHODS = {f.__name__: f for f in (gradcam, guided_gradcam, fullgrad, _spread)}


@functools.cache
def _map(method, network):
    return METHODS[method](None, X, 1, apply_fn=network)


@pytest.mark.parametrize("network", LAYOUTS)
@pytest.mark.parametrize("method", slow_beside(METHODS, "guided_gradcam", "fullgrad"))
def test_the_same_network_in_another_layout_has_the_same_maps(method, network):
    np.testing.assert_allclose(network(None, X[None]), features_last(None, X[None]), rtol=1e-4)
    expected = _map(method, LAYOUTS[0])
    np.testing.assert_allclose(_map(method, network), expected, atol=1e-5 * abs(expected).max())


def _last_site(moved):
    """The site of a ReLU after `moved`, of a layer h (1, 8, 12, 3)."""

    @_each
    def network(_, x):
        h = jax.nn.relu(moved(jax.nn.relu(_conv(x, W1[..., :3]))))
        return h.reshape(1, -1)[:, :5]

    *_, last = (s for s in dmbp_jax.sites(None, X, apply_fn=network) if s.masked)
    return last, network


def _to_depth(h):
    return h.reshape(1, 4, 2, 6, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 4, 6, 12)


def _along_rows(matrix):
    return lambda h: jnp.einsum("nhwc,hk->nkwc", h, matrix())


def _bilinear(old, new, aligned):
    """By hand, corners on corners or edges on edges."""
    places = jnp.arange(new) * (old - 1) / (new - 1)
    if not aligned:
        places = jnp.clip((jnp.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return jnp.maximum(0, 1 - abs(jnp.arange(old)[:, None] - places))


def _average(old, size):
    return (jnp.arange(old)[:, None] // size == jnp.arange(old // size)) / size


KNOWN = {  # and the shape of its picture
    "row by row, in a loop": (
        lambda h: lax.map(jax.nn.relu, h.swapaxes(0, 1)).swapaxes(0, 1),
        (8, 12),
    ),
    "columns put together in another order": (
        lambda h: jnp.stack([h[:, :, i] for i in range(11, -1, -1)], 2),
        (8, 12),
    ),
    "features written over others": (lambda h: h.at[..., :1].set(h[..., 1:2]), (8, 12)),
    "written over itself, but for the border": (lambda h: h.at[:, 1:-1].set(h[:, 1:-1]), (8, 12)),
    "as it is": (lambda h: h, (8, 12)),
    "columns first": (lambda h: h.transpose(0, 2, 1, 3), (8, 12)),
    "strided": (lambda h: h[:, ::2, ::3], (4, 4)),
    "strided pool": (
        lambda h: lax.reduce_window(h, 0.0, lax.add, *[(1, 2, 3, 1)] * 2, "SAME"),
        (4, 4),
    ),
    "padded": (lambda h: jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0))), (10, 14)),
    "flat": (lambda h: h.reshape(1, -1), (8, 12)),
    "space to depth": (_to_depth, (8, 12)),
    "of windows, mixed": (lambda h: _conv(_to_depth(h), W1[:1, :1, :1].repeat(12, 2)), (4, 6)),
    "rows": (lambda h: h.mean(2), (8, 1)),
    "resized": (lambda h: jax.image.resize(h, (1, 16, 18, 3), "linear"), (16, 18)),
    "rolled, and back": (lambda h: h + jnp.roll(jnp.roll(h, 2, 1), -2, 1), (8, 12)),
    "upsampled, then convolved": (
        lambda h: (
            _conv(jnp.repeat(jnp.repeat(h, 2, 1), 2, 2), W1[..., :3])
            if False
            else _conv(
                jnp.broadcast_to(h[:, :, None, :, None], (1, 8, 2, 12, 2, 3)).reshape(1, 16, 24, 3),
                W1[..., :3],
            )
        ),
        (16, 24),
    ),
    "squeezed and excited": (lambda h: h + h.mean((1, 2), keepdims=True), (8, 12)),
    "wrapped": (lambda h: jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap"), (8, 12)),
    "nothing beside it": (lambda h: jnp.concatenate([h[:, :0][:, ::-1], h], 1), (8, 12)),
    "in thirds, off by three cells": (
        lambda h: lax.conv_general_dilated(
            h, jnp.ones((3, 3, 3, 3)), (1, 1), ((0, 3), (3, 0)), (3, 3), dimension_numbers=_LAST
        ),
        (23, 35),
    ),
    "tokens, mixed by a fixed matrix": (
        lambda h: (
            h.reshape(1, 96, 3) + jnp.einsum("ntc,ts->nsc", h.reshape(1, 96, 3), np.eye(96) * 0)
        ),
        (8, 12),
    ),
    "without the mean of its window": (
        lambda h: (
            (w := h.reshape(1, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(6, 16, 3))
            - w.mean(1, keepdims=True) * 0
        ),
        (8, 12),
    ),
    "mirrored": (lambda h: h[:, ::-1, ::-1], (8, 12)),
    "mirrored by a matrix": (_along_rows(lambda: jnp.eye(8)[::-1]), (8, 12)),
    "rolled by a matrix": (_along_rows(lambda: jnp.eye(8, k=3) + jnp.eye(8, k=-5)), (8, 12)),
    "columns mirrored by a matrix, from the other side": (
        lambda h: jnp.einsum("kw,nhwc->nhkc", jnp.eye(12)[::-1], h),
        (8, 12),
    ),
    "rows in pairs, mirrored": (_along_rows(lambda: _average(8, 2)[:, ::-1]), (4, 12)),
    "two rows, exchanged": (_along_rows(lambda: _average(8, 4)[:, ::-1]), (2, 12)),
    "mirrored, and back by a matrix": (
        lambda h: h + jnp.einsum("nhwc,hk->nkwc", h[:, ::-1], jnp.eye(8)[::-1]),
        (8, 12),
    ),
    "one row, gathered": (lambda h: jax.image.resize(h, (1, 1, 12, 3), "nearest"), (1, 12)),
}


SUMS = {"rolled, and back", "squeezed and excited", "mirrored, and back by a matrix"}

RESIZES = {
    **{
        f"{method} to {rows}, {'smooth' if smooth else 'sharp'}": (
            lambda h, method=method, rows=rows, smooth=smooth: jax.image.resize(
                h, (1, rows, 12, 3), method, antialias=smooth
            ),
            (rows, 12),
        )
        for method in ("linear", "cubic", "lanczos3", "lanczos5")
        for rows in (3, 4, 5, 13, 16, 27)
        for smooth in (True, False)
    },
    "both axes": (lambda h: jax.image.resize(h, (1, 5, 29, 3), "cubic"), (5, 29)),
    "bilinear by hand": (_along_rows(lambda: _bilinear(8, 16, False)), (16, 12)),
    "bilinear by hand, down": (_along_rows(lambda: _bilinear(8, 5, False)), (5, 12)),
    "corners on corners": (_along_rows(lambda: _bilinear(8, 15, True)), (15, 12)),
    "corners on corners, down": (_along_rows(lambda: _bilinear(8, 3, True)), (3, 12)),
    "averages by hand": (_along_rows(lambda: _average(8, 2)), (4, 12)),
    "averages by hand, of a part": (_along_rows(lambda: _average(8, 3)), (2, 12)),
    "differences by hand": (_along_rows(lambda: jnp.eye(8) - jnp.eye(8, k=1)), (8, 12)),
}


SHOWN = {
    *("linear to 5, smooth", "both axes", "corners on corners", "averages by hand, of a part"),
}


@pytest.mark.parametrize("name", slow_beside(RESIZES, *RESIZES.keys() - SHOWN))
def test_resizes_are_followed(name):
    moved, shape = RESIZES[name]
    _, network = _last_site(moved)
    assert gradcam(None, X, 1, apply_fn=network).shape == (8, 12)
    site, _ = _last_site(moved)
    assert as_picture(jnp.zeros(site.shape), site).shape[:3] == (1, *shape)


@pytest.mark.parametrize(
    "name",
    slow_beside(
        KNOWN,
        "rows in pairs, mirrored",
        "columns mirrored by a matrix, from the other side",
        "two rows, exchanged",
        "of windows, mixed",
        "rolled by a matrix",
        "mirrored, and back by a matrix",
        "columns first",
    ),
)
def test_positions_are_read_in_their_place(name):
    moved, shape = KNOWN[name]
    site, _ = _last_site(moved)
    grid = np.arange(96.0).reshape(1, 8, 12, 1).repeat(3, -1)
    picture = as_picture(moved(jnp.asarray(grid, jnp.float32)), site)
    assert picture.shape[:3] == (1, *shape)
    if shape == (8, 12) and name not in SUMS:
        np.testing.assert_array_equal(picture, grid)


UNKNOWN = {
    "rolled": lambda h: jnp.roll(h, 2, 1),
    "permuted": lambda h: h[:, np.array([3, 1, 0, 2, 7, 6, 5, 4])],
    "a corner": lambda h: h[:, :3, :4],
    "the middle": lambda h: h[:, 2:6, 2:10],
    "padded on one side": lambda h: jnp.pad(h, ((0, 0), (0, 8), (0, 0), (0, 0))),
    "rows in another order, of each feature": lambda h: jnp.einsum(
        "nhwc,chk->nkwc", h, jnp.stack([jnp.eye(8), jnp.eye(8)[::-1], jnp.eye(8)])
    ),
    "the mean of all rows, in each": lambda h: jnp.einsum("nhwc,hk->nkwc", h, jnp.ones((8, 8)) / 8),
    "mixed": lambda h: jnp.einsum("nhwc,hk->nkwc", h, RNG.normal(size=(8, 8))),
    "pixel shuffle": lambda h: (
        h.reshape(1, 8, 12, 3, 1, 1).repeat(2, 4).transpose(0, 1, 4, 2, 5, 3).reshape(1, 16, 12, 3)
    ),
    "halves beside each other, mixed": lambda h: _conv(
        jnp.concatenate([h[:, :4], h[:, 4:]], 3), W1[..., :3].repeat(2, 2)
    ),
    "beside its mirror image": lambda h: 0.01 * h + h[:, ::-1],
    "beside its mirror image by a matrix": lambda h: (
        0.01 * h + jnp.einsum("nhwc,hk->nkwc", h, jnp.eye(8)[::-1])
    ),
    "beside itself, rolled by a matrix": lambda h: (
        h + jnp.einsum("nhwc,wk->nhkc", h, jnp.eye(12, k=5) + jnp.eye(12, k=-7))
    ),
    "of two rows, beside its mirror image": lambda h: (
        (z := h.reshape(1, 2, 4, 3, 4, 3).mean((2, 4))) + z[:, ::-1]
    ),
    "joined to its mirror image, mixed": lambda h: _conv(
        jnp.concatenate([h, h[:, :, ::-1]], 3), W1[..., :3].repeat(2, 2)
    ),
    "half of it written over the other": lambda h: h.at[:, :4].set(h[:, 4:]),
    "half of it written over the other, at a place": lambda h: jax.lax.dynamic_update_slice(
        h, h[:, 4:], (0, 0, 0, 0)
    ),
    "a recurrence over rows": lambda h: lax.scan(
        lambda state, row: [jax.nn.relu(row + state)] * 2, h[:, 0], h.swapaxes(0, 1)
    )[1].swapaxes(0, 1),
    "chosen from itself, rolled": lambda h: jnp.where(
        (np.arange(8) % 2 == 0)[:, None, None], h, jnp.roll(h, 4, 1)
    ),
    "added to its mirror image": lambda h: h[:, :, :8] + h[:, :, :8].transpose(0, 2, 1, 3),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_followed_is_refused_by_name(name):
    site, network = _last_site(UNKNOWN[name])
    with pytest.raises(UnknownAxesError, match=f"'{site.name}'"):
        gradcam(None, X, 1, apply_fn=network)
    with pytest.raises(UnknownAxesError, match=f"'{site.name}'"):
        guided_gradcam(None, X, 1, apply_fn=network, layer=site.name)


MIRRORED = {
    "flip": lambda h: jnp.flip(h, 1),
    "columns flipped, convolved": lambda h: jax.nn.relu(
        _conv(h[:, :, ::-1], np.eye(3)[None, None])
    ),
    "a matrix": lambda h: jnp.einsum("nhwc,hk->nkwc", h, jnp.eye(8)[::-1]),
    "a matrix that rolls": lambda h: jnp.einsum(
        "nhwc,wk->nhkc", h, jnp.eye(8, k=3) + jnp.eye(8, k=-5)
    ),
}


@pytest.mark.parametrize("name", MIRRORED)
def test_what_was_mirrored_is_found_where_it_is_in_the_image(name):
    def network(_, x):
        return jax.nn.relu(MIRRORED[name](jax.nn.relu(x))).mean((1, 2))

    spot = jnp.zeros((8, 8, 3)).at[1, 2, 0].set(1.0)
    found = gradcam(None, spot, 0, apply_fn=network)
    assert np.unravel_index(int(found.argmax()), (8, 8)) == (1, 2)


def test_every_bias_has_to_be_followed():
    def network(_, x):
        return jax.nn.relu(jnp.roll(_conv(x, W1), 2, 1) + B1).mean((1, 2)) @ HEAD[:4]

    with pytest.raises(UnknownAxesError, match="'bias'"):
        fullgrad(None, X, 1, apply_fn=network)
    for biases in ("spread", "refine"):
        with pytest.raises(UnknownAxesError, match=r"biases: .*'bias'.*carry"):
            dmbp_jax.attribute(None, X, 1, apply_fn=network, biases=biases)


def test_layers_without_positions_are_not_asked():
    def network(_, x):
        return jax.nn.relu(jax.nn.relu(x.mean((1, 2)) @ W1[0, 0]) @ W1[0, 0].T) @ HEAD[:3]

    with pytest.raises(SiteNotFoundError, match="a ReLU whose output has positions"):
        gradcam(None, X, 1, apply_fn=network)
