"""Networks whose axes are turned on a CPU, against JAX's own values and gradients in float64."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.errors import InputError
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")
EXACT = {"rtol": 1e-10, "atol": 1e-12}
# Batch, space, features; the kernel of JAX's own input gradient has its features swapped.
LAST = re.compile(r"\[b, (?:\d, )*f\]x\[(?:\d, )*(?:i, o|o, i)\]->\[b, (?:\d, )*f\]")

# Letters of the image (batch, height, width, channels), the kernel and the result.
CONVOLUTIONS = {
    "PyTorch's": ("NCHW", "OIHW", "NCHW", {}),
    "its strides": ("NCHW", "OIHW", "NCHW", {"window_strides": (2, 3)}),
    "negative padding": ("NCHW", "OIHW", "NCHW", {"padding": [(-1, 2), (1, -1)]}),
    "dilated kernel": ("NCHW", "OIHW", "NCHW", {"rhs_dilation": (2, 1), "window_strides": (1, 2)}),
    "dilated image": (
        "NCHW",
        "OIHW",
        "NCHW",
        {"lhs_dilation": (1, 2), "padding": [(0, 2), (1, 0)]},
    ),
    "groups": ("NCHW", "OIHW", "NCHW", {"feature_group_count": 2, "window_strides": (2, 1)}),
    "depthwise": ("NCHW", "OIHW", "NCHW", {"feature_group_count": 4, "padding": "VALID"}),
    "kernel alone": ("NHWC", "IOWH", "NHWC", {"window_strides": (1, 2)}),
    "result alone": ("NHWC", "HWIO", "NCHW", {}),
    "width first": ("NCWH", "OIHW", "WNCH", {"padding": [(0, 1), (2, -1)]}),
    "batch last": ("HWCN", "IHWO", "CHWN", {}),
}


def _permuted(array, letters, to):
    return array.transpose([letters.index(letter) for letter in to])


def _convolution(name, shape=(3, 2)):
    """A network of two convolutions and pools with the axes of a case, its params and an image."""
    lhs, rhs, out, options = CONVOLUTIONS[name]
    options = {"window_strides": (1, 1), "padding": [(1, 1), (0, 2)]} | options
    groups = options.get("feature_group_count", 1)
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(*shape, 4 // groups, 8)), rng.normal(size=(*shape, 8 // groups, 4))]
    params = [jnp.asarray(_permuted(kernel, "HWIO", rhs)) for kernel in kernels]
    window = [2 if letter in "HW" else 1 for letter in out]

    def network(params, x):
        x = x @ jnp.ones((3, 4)) * jnp.arange(1.0, 5.0)
        for kernel in params:
            x = _permuted(x, "NHWC", lhs)
            x = lax.conv_general_dilated(x, kernel, dimension_numbers=(lhs, rhs, out), **options)
            x = jax.nn.relu(x + 0.1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, [1] * 4, "VALID")
            x = _permuted(x, out, "NHWC")
        return jnp.stack([x[..., k::2].sum((1, 2, 3)) for k in range(2)], axis=-1)

    return network, params, jnp.asarray(rng.normal(size=(1, 9, 11, 3)))


def _check(network, params, x):
    """Logits and gradients of graph and network are JAX's; the graph's program."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=2))
    traced = trace(bind(params, network), x)
    programs = []

    def by(logits):
        lowered = jax.jit(jax.value_and_grad(lambda x, t: logits(t, x)[0] @ weights)).lower(
            x, traced
        )
        programs.append(lowered.as_text())
        return lowered.compile()(x, traced)

    expected = jax.jit(jax.value_and_grad(lambda x: network(params, x)[0] @ weights))(x)
    assert abs(np.asarray(expected[1])).max() > 1e-3
    for found in by(lambda t, x: t.graph().run(x)), by(lambda t, x: t(x)):
        jax.tree.map(partial(np.testing.assert_allclose, **EXACT), found, expected)
    return programs[:1]


def _assert_channels_last(programs):
    for program in programs:
        found = re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", program)
        assert found
        assert [one for one in found if not LAST.fullmatch(one)] == []


@pytest.mark.parametrize(
    "name",
    slow_beside(CONVOLUTIONS, *CONVOLUTIONS.keys() - {"PyTorch's", "depthwise"}),
)
def test_values_and_gradients_are_jaxs(name):
    _assert_channels_last(_check(*_convolution(name)))


@pytest.mark.parametrize("rank", [1, 3])
def test_other_numbers_of_dimensions(rank, rng):
    axes = tuple(range(2, 2 + rank))

    def network(params, x):
        x = x.mean(2) if rank == 1 else jnp.stack([x, 2 * x, -x], 3)
        x = jnp.moveaxis(x, -1, 1)
        for kernel in params:
            x = jnp.tanh(lax.conv(x, kernel, (2,) * rank, "SAME"))
        return x.mean(axes) @ jnp.eye(4, 2)

    shapes = [(5, 3, *(3,) * rank), (4, 5, *(2,) * rank)]
    params = [jnp.asarray(rng.normal(size=shape)) for shape in shapes]
    x = jnp.asarray(rng.normal(size=(1, 6, 5, 3)))
    _assert_channels_last(_check(network, params, x))


def test_groups_of_the_batch(rng):
    def network(kernel, x):
        x = jnp.concatenate([x, x[:, ::-1]]).transpose(0, 3, 1, 2)
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", batch_group_count=2)
        return jax.nn.relu(y).sum((2, 3))[:, :2]

    kernel = jnp.asarray(rng.normal(size=(4, 3, 3, 3)))
    _check(network, kernel, jnp.asarray(rng.normal(size=(1, 6, 5, 3))))


def _conv(x, kernel, **options):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **options)


def _moves(x, k):
    """What may lie between convolutions, channels first: (N, 4, H, W) to (N, 8, H, W)."""
    a, b = jnp.split(x, 2, axis=1)
    x = jnp.concatenate([a[:, ::-1], jnp.maximum(a, b), b], axis=1)  # 6 channels
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 1), (2, 0)))[:, :, 1:, ::2]
    x = jnp.flip(x, 2) * jnp.arange(8.0).reshape(8, 1, 1) + jnp.cumsum(x, axis=3)
    grouped = x.reshape(-1, 2, 4, *x.shape[2:])  # as in GroupNorm
    x = (grouped - grouped.mean((2, 3, 4), keepdims=True)).reshape(x.shape)
    return x.reshape(-1, 2, 4, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)  # ShuffleNet


def _functions(x, k):
    """Activations and pools, one image at a time inside."""
    y = jax.nn.silu(jax.vmap(lambda one: _conv(one[None], k[:, :4])[0])(x))
    y = y + x.max((2, 3), keepdims=True)[:, :1] + x.min((1, 2, 3))[:, None, None, None]
    y = lax.reduce_window(y, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "SAME")
    y = lax.reduce_window(y, jnp.inf, lax.min, (1, 1, 2, 1), (1, 1, 1, 1), "VALID")
    y = jnp.where(jnp.arange(8)[:, None, None] % 3 == 0, y, jnp.clip(y, 0, 6))
    return jnp.squeeze(jnp.moveaxis(y[None], 0, 2), 2)


def _calls(x, k):
    """Calls and loops with convolutions in them."""
    x = jax.jit(lambda x: jax.nn.relu(_conv(x, k[:4, :4])))(x)
    x = jax.checkpoint(lambda x: jax.nn.gelu(_conv(x, k[:4, :4])) - x)(x)
    x, _ = lax.scan(lambda x, w: (jax.nn.relu(_conv(x, w)), None), x, jnp.stack([k[:4, 4:]] * 2))
    return jnp.concatenate([x, jax.nn.relu6(x)], axis=1)


@pytest.mark.parametrize("middle", [_moves, _functions, _calls])
@pytest.mark.slow
def test_what_lies_between_is_turned_and_equal(middle, rng):
    def network(params, x):
        first, inside, last = params
        x = _conv(x.transpose(0, 3, 1, 2), first)
        x = jax.nn.relu(_conv(middle(x, inside), last))
        flat = jax.image.resize(x, (*x.shape[:2], 3, 2), "linear").reshape(len(x), -1)
        return jnp.stack([flat[:, k::2].sum(-1) for k in range(2)], axis=-1)

    sizes = (4, 3), (8, 8), (4, 8)
    params = [jnp.asarray(0.1 * rng.normal(size=(o, i, 3, 3))) for o, i in sizes]
    x = jnp.asarray(rng.normal(size=(1, 6, 8, 3)))
    programs = _check(network, params, x)
    _assert_channels_last(programs)
    for program in programs:
        moved = re.findall(
            r"transpose %.* : \(tensor<1x(?:4|8|2x4|4x2)x[2-9]x[2-9]xf64>\)", program
        )
        assert len(moved) <= 3, moved  # what `arrange` has no rule for


def _twins():
    """One network channels last and channels first, with their params."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(3, 3, 3, 4)), rng.normal(size=(3, 3, 4, 5))]
    head = jnp.asarray(rng.normal(size=(5, 3)))

    def network(layout, params, x):
        x = x if layout == "NHWC" else x.transpose(0, 3, 1, 2)
        order = layout, "HWIO" if layout == "NHWC" else "OIHW", layout
        window = [2 if letter in "HW" else 1 for letter in layout]
        for kernel in params:
            x = jax.nn.relu(_conv(x, kernel, dimension_numbers=order) + 0.1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "SAME")
        return jax.nn.silu(x).mean((1, 2) if layout == "NHWC" else (2, 3)) @ head

    first = [kernel.transpose(3, 2, 0, 1) for kernel in kernels]
    return [(partial(network, "NHWC"), kernels), (partial(network, "NCHW"), first)]


def _to_first(array):
    return np.moveaxis(array, -1, -3)


X = np.random.default_rng(2).normal(size=(2, 6, 10, 3))


@pytest.mark.slow
def test_sites_and_masks_have_the_axes_of_the_network():
    (last, kernels), (first, turned) = _twins()
    found, expected = (
        [(s.kind, s.name, s.shape) for s in dmbp_jax.sites(params, X, apply_fn=f)]
        for f, params in ((first, turned), (last, kernels))
    )
    assert (1, 4, 6, 10) in [shape for *_, shape in found]
    for (kind, name, shape), one in zip(found, expected, strict=True):
        assert one == (kind, name, tuple(np.array(shape)[[0, 2, 3, 1]]))

    masks = dmbp_jax.init_masks(turned, X, 0.5, apply_fn=first)
    assert [mask.shape for mask in masks] == [(2, 4, 6, 10), (2, 5, 3, 5), (2, 5, 2, 3)]
    rng = np.random.default_rng(3)
    masks = [rng.uniform(size=(2, *shape)) for shape in ((6, 10, 4), (3, 5, 5), (2, 3, 5))]
    expected = dmbp_jax.decompose(kernels, X, 1, masks, apply_fn=last)
    found = dmbp_jax.decompose(turned, X, 1, list(map(_to_first, masks)), apply_fn=first)
    jax.tree.map(partial(np.testing.assert_allclose, **EXACT), found, expected)
    with pytest.raises(InputError, match=r"masks\[0\]: Expected shape \(2, 4, 6, 10\)"):
        dmbp_jax.decompose(turned, X, 1, masks, apply_fn=first)


@pytest.mark.slow
def test_learned_masks_have_the_axes_of_the_network():
    (last, kernels), (first, turned) = _twins()
    options = {"config": dmbp_jax.DMBP(steps=3), "return_masks": True}
    expected = dmbp_jax.attribute(kernels, X, 1, apply_fn=last, **options)
    found = dmbp_jax.attribute(turned, X, 1, apply_fn=first, **options)
    masks = [_to_first(np.asarray(mask)) for mask in expected.masks]
    assert [mask.shape for mask in found.masks] == [mask.shape for mask in masks]
    jax.tree.map(partial(np.testing.assert_allclose, **EXACT), list(found.masks), masks)
    for name in ("positive", "negative", "history"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **EXACT)


LOOK_INSIDE = ("deeplift", "gradcam", "fullgrad", "guided_backprop", "lpr")


@pytest.mark.parametrize("method", slow_beside(LOOK_INSIDE, "guided_backprop", "fullgrad", "lpr"))
def test_methods_do_not_see_the_layout(method):
    options = {"steps": 2} if method == "lpr" else {}
    expected, found = (
        METHODS[method](params, X, 1, apply_fn=f, **options) for f, params in _twins()
    )
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.slow
def test_of_equal_winners_the_first_of_the_network_wins():
    (last, kernels), (first, turned) = _twins()
    x = np.ones_like(X[:1])
    gradients = [dmbp_jax.methods.gradient(p, x, 1, apply_fn=f) for f, p in _twins()]
    np.testing.assert_allclose(*gradients, **EXACT)
    gradients = [
        jax.grad(lambda x, f=f, p=p: Graph.run(trace(bind(p, f), x).graph(), x)[0, 1])(
            jnp.asarray(x)
        )
        for f, p in ((last, kernels), (first, turned))
    ]
    np.testing.assert_allclose(*gradients, **EXACT)


def test_elsewhere_than_on_a_cpu_nothing_is_turned(monkeypatch):
    def program(f, params):
        return (
            jax.jit(lambda x, t: t.graph().run(x))
            .lower(X[:1], trace(bind(params, f), X[:1]))
            .as_text()
        )

    twins = _twins()
    last, first = (program(*twin) for twin in twins)
    _assert_channels_last([last, first])
    monkeypatch.setattr("dmbp_jax.graph.tracing.turning_pays", lambda: False)
    assert program(*twins[0]) == last
    with pytest.raises(AssertionError):
        _assert_channels_last([program(*twins[1])])
