"""Pools with frozen winners: linear, and the first of equal values wins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_methods import slow_beside

from dmbp_jax.graph.model import bind
from dmbp_jax.graph.pieces.pools import GlobalPool, WindowPool
from dmbp_jax.graph.tracing import trace

POOLS = {
    "padded": WindowPool((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)), (1,) * 4),
    "ceil mode": WindowPool((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (0, 1), (0, 1), (0, 0)), (1,) * 4),
    "dilated": WindowPool((1, 2, 2, 1), (1, 1, 1, 1), ((0, 0),) * 4, (1, 2, 3, 1)),
    "global": GlobalPool((1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_beside(POOLS, "dilated", "ceil mode"))
def test_frozen_pool_is_linear_and_takes_the_first_winner(name):
    pool = POOLS[name]
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.integers(-3, 3, size=(2, 8, 8, 3)), jnp.float32)  # many ties
    winners = pool.choose(z)
    np.testing.assert_array_equal(pool.apply(winners, z), pool(z))
    other = jnp.asarray(rng.normal(size=z.shape), jnp.float32)
    np.testing.assert_allclose(
        pool.apply(winners, 2 * z - other), 2 * pool(z) - pool.apply(winners, other), rtol=1e-6
    )
    if name == "global":
        expected = np.asarray(z).reshape(2, -1, 3).argmax(1)  # NumPy: the first maximum
        np.testing.assert_array_equal(winners, expected)


def _by_hand(pool, z, cotangent):
    """Every window's cotangent goes to the first of its largest values."""
    (up, down), (left, right) = pool.padding[1:3]
    pads = ((0, 0), (up, down), (left, right), (0, 0))
    padded = np.pad(np.asarray(z), pads, constant_values=-np.inf)
    total = np.zeros_like(padded)
    for n, i, j, f in np.ndindex(cotangent.shape):
        rows = [i * pool.strides[1] + k * pool.dilation[1] for k in range(pool.window[1])]
        columns = [j * pool.strides[2] + k * pool.dilation[2] for k in range(pool.window[2])]
        seen = [(row, column) for row in rows for column in columns]
        row, column = seen[int(np.argmax([padded[n, r, c, f] for r, c in seen]))]
        total[n, row, column, f] += cotangent[n, i, j, f]
    return total[:, up : up + z.shape[1], left : left + z.shape[2]]


@pytest.mark.parametrize(
    "name", slow_beside([name for name in POOLS if name != "global"], "ceil mode", "dilated")
)
def test_the_gradient_goes_to_the_winners(name, rng):
    pool = POOLS[name]
    z = jnp.asarray(rng.integers(-3, 3, size=(2, 8, 8, 3)), jnp.float32)  # many ties
    cotangent = jnp.asarray(rng.integers(-9, 9, size=pool(z).shape), jnp.float32)

    def network(_, x):
        window = (pool.window, pool.strides, pool.padding, None, pool.dilation)
        return (jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window) * cotangent).sum((1, 2))

    (found,) = jax.vjp(pool, z)[1](cotangent)
    np.testing.assert_array_equal(found, _by_hand(pool, z, cotangent))
    if pool.dilation == (1, 1, 1, 1):  # JAX has no derivative of others
        (by_jax,) = jax.vjp(lambda z: network(None, z), z)[1](jnp.ones((2, 3)))
        np.testing.assert_array_equal(found, by_jax)


def test_a_network_is_differentiated_with_the_pool_of_the_graph(rng):
    def network(_, x):
        window = ((1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window).sum((1, 2))

    x = jnp.asarray(rng.integers(-3, 3, size=(2, 8, 8, 3)), jnp.float32)
    traced = trace(bind(None, network), x[:1])
    gradient = jax.vmap(jax.grad(lambda image: traced.logits(image)[1]))
    assert "scatter" not in str(jax.make_jaxpr(gradient)(x))
    (expected,) = jax.vjp(lambda x: network(None, x)[:, 1], x)[1](jnp.ones(2))
    np.testing.assert_array_equal(gradient(x), expected)
    np.testing.assert_array_equal(traced(x), network(None, x))


def test_a_pool_of_integers_that_do_not_depend_on_the_image():
    def network(_, x):
        numbers = jnp.arange(16).reshape(1, 4, 4, 1)
        largest = jax.lax.reduce_window(
            numbers, jnp.iinfo(numbers.dtype).min, jax.lax.max, (1, 4, 4, 1), (1, 1, 1, 1), "VALID"
        )
        return x.sum((1, 2)) * largest[:, 0, 0]

    x = jnp.ones((1, 4, 4, 3))
    np.testing.assert_array_equal(trace(bind(None, network), x)(x), 16 * 15 * jnp.ones((1, 3)))
