"""Pools with frozen winners: linear, and the first of equal values wins."""

import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax.graph.pieces.max_pool import GlobalPool, WindowPool

pytestmark = pytest.mark.usefixtures("quick_compilation")

POOLS = {
    "padded": WindowPool((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)), (1,) * 4),
    "ceil mode": WindowPool((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (0, 1), (0, 1), (0, 0)), (1,) * 4),
    "dilated": WindowPool((1, 2, 2, 1), (1, 1, 1, 1), ((0, 0),) * 4, (1, 2, 3, 1)),
    "global": GlobalPool((1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
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
