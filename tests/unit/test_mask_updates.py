"""The gradient of the masks on a CPU and elsewhere: the same numbers, and no copies on a CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import dmbp_jax
from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.decomposition import masked_cotangents
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine.compiling import compiled
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

SHAPE = (1, 8, 8, 3)


class Mixed(nn.Module):
    """A ReLU before and behind a leaky one, and a residual."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = x + nn.leaky_relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(5)(nn.relu(nn.Conv(6, (3, 3))(x)).mean((1, 2)))


def gradients(theta_scale, dtype):
    """∂L/∂θ by both formulas, from the values of one masked pass."""
    x = jax.random.normal(jax.random.key(1), SHAPE, dtype)
    variables = jax.jit(Mixed().init)(jax.random.key(0), x)
    variables = jax.tree.map(lambda a: a.astype(dtype), variables)
    graph = trace(bind(variables, Mixed().apply), x).graph()
    frozen = jax.jit(graph.freeze)(x)
    rng = np.random.default_rng(0)
    theta = tuple(
        jnp.asarray(theta_scale * rng.standard_normal(site.shape), dtype) for site in graph.masked
    )
    sign = jnp.asarray(1, dtype)
    divided = loop.divisors(theta, sign)
    after, before = jax.jit(lambda f, d: masked_cotangents(f, d, jnp.int32(2)))(frozen, divided)
    gates, activations = [frozen.fixed.choices[site.index] for site in graph.masked], []
    for t, gate, passed, d in zip(theta, gates, before, divided, strict=True):
        u = jnp.asarray(rng.standard_normal(t.shape), dtype) / d
        activations.append(u if passed is None else jnp.where(gate, u, 0))
    scalars = [(sign, jnp.asarray(-2, dtype))] * len(theta)
    expected = loop.multiply_after(activations, after, before, theta, scalars)
    return before, expected, loop.multiply_passed(activations, after, before, theta, scalars)


@pytest.mark.usefixtures("x64")
def test_both_formulas_are_the_same_number():
    before, expected, ours = gradients(3.0, jnp.float64)
    assert [d is not None for d in before] == [True, False, True]
    for one, other in zip(ours, expected, strict=True):
        assert np.any(other != 0)
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_masks_at_their_ends_give_no_gradient_and_nothing_infinite():
    _, expected, ours = gradients(1000.0, jnp.float32)  # exp(1000) is infinite
    for one, other in zip(ours, expected, strict=True):
        assert np.isfinite(one).all()
        # m² is 0 below m = 1e-19, and the gradient is proportional to m.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-18)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="barriers do this elsewhere")
@pytest.mark.slow
def test_a_cpu_updates_the_masks_in_place():
    class Relus(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (5, 6, 7):
                x = nn.relu(nn.Conv(features, (3, 3))(x))
            return nn.Dense(5)(x.mean((1, 2)))

    x = np.random.default_rng(0).standard_normal((2, *SHAPE[1:])).astype(np.float32)
    variables = Relus().init(jax.random.key(0), x)
    call = check_call(variables, x, np.array([0, 1]), Relus().apply)
    explainer = DmbpExplainer(call.network, dmbp_jax.DMBP(steps=10))
    state = explainer.start((call.images, call.labels))
    advance = compiled(lambda explainer, state: explainer.advance(state, 5), donate_argnums=1)
    program = advance.lower(explainer, state).compile().as_text()
    copied = re.findall(r"f32\[2,1,8,8,[567]\]\S* copy\(", program)
    assert "while(" in program
    assert not copied
