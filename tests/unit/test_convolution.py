"""Convolutions as the graph writes them, against JAX's own: values and every gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")

CONVOLUTIONS = {
    "plain": {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)]},
    "unpadded": {"window_strides": (2, 1), "padding": [(0, 0), (0, 0)]},
    "strided": {"window_strides": (2, 3), "padding": [(1, 0), (2, 1)]},
    "dilated": {"window_strides": (1, 2), "padding": [(2, 2), (0, 3)], "rhs_dilation": (2, 1)},
    "spread": {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)], "lhs_dilation": (2, 2)},
    "channels first": {
        "window_strides": (2, 1),
        "padding": [(0, 1), (1, 0)],
        "dimension_numbers": ("NCHW", "OIHW", "NCHW"),
    },
}

# Kernels of size 1 are matrix products where the convolution is plain enough.
CASES = slow_beside(
    [(name, size) for name in CONVOLUTIONS for size in (1, 3)],
    *((name, 1) for name in CONVOLUTIONS if name != "plain"),
)


def _network(options, params, x):
    """Two convolutions with `options`, each before a ReLU; logits (N, 5)."""
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")} | options
    if layout["dimension_numbers"][0] == "NCHW":
        x = x.transpose(0, 3, 1, 2)
    for kernel in params:
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, **layout))
    flat = x.reshape(len(x), -1)
    return jnp.stack([flat[:, first::5].sum(-1) for first in range(5)], axis=-1)


def _case(name, size):
    options = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    features = [(2, 4), (4, 3)]
    if "dimension_numbers" in options:
        shapes = [(after, before, size, size) for before, after in features]
    else:
        shapes = [(size, size, before, after) for before, after in features]
    params = [jnp.asarray(rng.normal(size=shape)) for shape in shapes]
    return partial(_network, options), params, jnp.asarray(rng.normal(size=(1, 11, 9, 2)))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_values_and_gradients_are_jaxs(name, size):
    apply_fn, params, x = _case(name, size)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=5))

    def plain(params, x):
        return apply_fn(params, x)[0] @ weights

    def in_a_graph(params, x):
        return trace(bind(params, apply_fn), x).graph().run(x)[0] @ weights

    expected, ours = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, x) for f in (plain, in_a_graph)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), ours, expected)
    assert any(np.any(gradient) for gradient in expected[1][0])

    # A gradient of a gradient, as in training with a penalty on the input gradient.
    def size_of_gradient(function):
        return lambda params: jnp.sum(jax.grad(function, argnums=1)(params, x) ** 2)

    expected, ours = (jax.jit(jax.grad(size_of_gradient(f)))(params) for f in (plain, in_a_graph))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), ours, expected)


def test_a_decomposition_can_be_differentiated_to_the_parameters():
    apply_fn, params, x = _case("strided", 3)
    masks = dmbp_jax.init_masks(params, x[0], 0.3, apply_fn=apply_fn)

    def y_and_positive(params):
        parts = dmbp_jax.decompose(params, x[0], 0, masks, apply_fn=apply_fn)
        return parts.y + parts.y_positive

    gradient = jax.grad(y_and_positive)(params)[1]
    step = 1e-6 * jnp.asarray(np.random.default_rng(2).normal(size=gradient.shape))
    above, below = (y_and_positive([params[0], params[1] + s]) for s in (step, -step))
    np.testing.assert_allclose(jnp.vdot(gradient, step), (above - below) / 2, rtol=1e-6)


def test_a_pointwise_convolution_is_a_matrix_product():
    apply_fn, params, x = _case("unpadded", 1)
    graph = jax.make_jaxpr(lambda params, x: trace(bind(params, apply_fn), x).graph().run(x))
    primitives = str(graph(params, x))
    assert "dot_general" in primitives
    assert "conv_general_dilated" not in primitives


@pytest.mark.parametrize("layout", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")])
def test_a_convolution_of_three_channels_and_its_gradient(layout, rng):
    def network(kernel, x):
        x = x if layout[0] == "NHWC" else x.transpose(0, 3, 1, 2)
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return jnp.stack([(x**2).sum((1, 2, 3)), x.sum((1, 2, 3))], axis=-1)

    kernel = rng.normal(size=(3, 3, 3, 5) if layout[1] == "HWIO" else (5, 3, 3, 3))
    x = jnp.asarray(rng.normal(size=(2, 6, 7, 3)))
    traced = trace(bind(kernel, network), x[:1])
    np.testing.assert_allclose(traced(x), network(kernel, x), rtol=1e-12)
    gradient = jax.vmap(jax.grad(lambda image: traced.logits(image)[0]))(x)
    expected = jax.grad(lambda x: network(kernel, x)[:, 0].sum())(x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("stride", "size"), slow_beside([(2, 3), (1, 1), (1, 3), (2, 1)], (1, 1), (1, 3), (2, 1))
)
def test_a_product_of_bfloat16_with_a_result_in_float32(size, stride):
    """`preferred_element_type`: the gradient is that of JAX, and every method has one."""
    rng = np.random.default_rng(0)
    x = np.asarray(rng.normal(size=(2, 6, 6, 3)), np.float32)
    kernels = [jnp.asarray(rng.normal(size=(size, size, n, 4)), jnp.bfloat16) for n in (3, 4)]
    head = jnp.asarray(rng.normal(size=(4, 3)), jnp.bfloat16)

    def network(_, x):
        for kernel in kernels:
            x = jax.nn.relu(
                lax.conv_general_dilated(
                    x.astype(jnp.bfloat16),
                    kernel,
                    (stride, stride),
                    "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    preferred_element_type=jnp.float32,
                )
            )
        mean = x.mean((1, 2)).astype(jnp.bfloat16)
        return lax.dot(mean, head, preferred_element_type=jnp.float32)

    expected = jax.grad(lambda x: network(None, x)[:, 1].sum())(x)
    options = {"apply_fn": network, "multiply_by_inputs": False}
    for method in ("gradient", "guided_backprop"):
        found = METHODS[method](None, x, 1, **options)
        assert found.dtype == np.float32
    np.testing.assert_allclose(METHODS["gradient"](None, x, 1, **options), expected, rtol=1e-2)
    found = dmbp_jax.attribute(None, x, 1, apply_fn=network, config=dmbp_jax.DMBP(steps=1))
    np.testing.assert_allclose(found.y, network(None, x)[:, 1], rtol=1e-2)


@pytest.mark.slow
def test_derivatives_of_a_decomposition_to_one_argument_after_another():
    """JAX keeps the residuals of a convolution for the parameters, and their tree for the image."""

    def network(params, x):
        for kernel in params:
            x = lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return jax.nn.softplus(x).mean((1, 2))

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(3, 3, 2, 3), (3, 3, 3, 4), (2, 4, 6, 2)]
    *params, x = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    masks = dmbp_jax.init_masks(params, x, 0.25, apply_fn=network)

    def value(params, x, name):
        parts = dmbp_jax.decompose(params, x, 1, masks, apply_fn=network)
        return (getattr(parts, name) ** 2).sum()

    expected = jax.grad(value)(params, x, "positive")
    jax.clear_caches()
    for argument in (0, 1):
        jax.grad(value, argument)(params, x, "y_positive")
    found = jax.grad(value)(params, x, "positive")
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-10)
