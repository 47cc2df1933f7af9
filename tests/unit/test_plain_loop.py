"""The loop that is fast computes what the plain one does, which reads as the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.dmbp import plain_loop
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(2)
X, IN, MIX, OUT = (RNG.normal(size=s) for s in ((3, 3, 3), (3, 4), (4, 4), (4, 3)))


def network(_, x):
    h = jax.nn.relu(x @ IN + 0.2)
    h = h + jax.nn.silu(h @ MIX - 0.1)
    return jax.nn.relu(h.max((1, 2)) @ MIX + 0.3) @ OUT + 0.5


@pytest.mark.parametrize("loss", slow_beside(["all", "positive-negative"], "positive-negative"))
def test_both_loops_learn_the_same(loss):
    config, label = dmbp_jax.DMBP(steps=6, learning_rate=0.3, loss=loss), jnp.int32(1)
    options = {"apply_fn": network, "config": config, "return_masks": True}
    found = dmbp_jax.attribute(None, X, 1, **options)
    graph = trace(bind(None, network), jnp.asarray(X)[None]).graph()
    frozen = graph.freeze(jnp.asarray(X)[None])
    masks, history = jax.jit(lambda: plain_loop.learn(frozen, label, config))()
    np.testing.assert_allclose(found.history, np.stack(history), rtol=1e-9, atol=1e-12)
    for one, other in zip(found.masks, masks, strict=True):
        np.testing.assert_allclose(one, other.reshape(one.shape), rtol=1e-8, atol=1e-12)
