"""What the logits do not read does not count: no site, no refusal, no callback.

The right values are those of the same network without the dead code, and its own forward pass.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify, io_callback

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.errors import NonAffineError
from dmbp_jax.methods import METHODS

rng = np.random.default_rng(0)
X = np.asarray(rng.normal(size=(2, 4, 4, 3)), np.float32)
W = np.asarray(rng.normal(size=(3, 8)), np.float32)
H = np.asarray(rng.normal(size=(8, 3)), np.float32)
TWO_STEPS = DMBP(steps=2)


def features(x):
    return jax.nn.relu(x @ W)


def head(z):
    return z.mean((1, 2)) @ H


def plain(_, x):
    return head(features(x))


def softmax_after_the_logits(_, x):
    logits = head(features(x))
    jax.nn.softmax(logits)
    return logits


def auxiliary_head(_, x):
    z = features(x)
    logits = head(z)
    jax.nn.relu(jax.nn.relu(z.mean((1, 2)) @ H @ H.T) @ H)
    return logits


def second_result_of_a_jitted_function(_, x):
    @jax.jit
    def two(z):
        return head(z), jnp.exp(z).sum() / z.max()

    return two(features(x))[0]


def second_result_of_a_checkpoint(_, x):
    return jax.checkpoint(lambda z: (head(z), jax.nn.softmax(z)))(features(x))[0]


def second_result_of_a_custom_derivative(_, x):
    @jax.custom_vjp
    def two(z):
        return head(z), jnp.tanh(jax.nn.softmax(z))

    two.defvjp(lambda z: (two(z), z), lambda z, g: (jax.vjp(head, z)[1](g[0])[0],))
    return two(features(x))[0]


def outputs_and_a_carry_of_a_scan(_, x):
    def body(carry, _):
        z, dead = carry
        return (z, jax.nn.softmax(dead) * z), jnp.exp(dead)

    z = features(x)
    return head(lax.scan(body, (z, z), None, length=2)[0][0])


def a_loop_of_unknown_length(_, x):
    z = features(x)
    lax.while_loop(lambda c: c < z.sum(), lambda c: c + 1.0, 0.0)
    return head(z)


def a_loop_that_is_too_long(_, x):
    z = features(x)
    lax.scan(lambda c, _: (c @ (H @ H.T), None), z, None, length=10_000)
    return head(z)


def prints(_, x):
    z = features(x)
    jax.debug.print("mean {}", z.mean())
    jax.jit(lambda z: jax.debug.print("inside {}", z.mean()))(z)
    return head(jax.checkpoint(lambda z: (jax.debug.print("remat {}", z.mean()), z)[1])(z))


def callbacks(_, x):
    z = features(x)
    jax.debug.callback(_must_not_run, z.mean(), ordered=True)
    io_callback(_must_not_run, None, z.mean())
    io_callback(_must_not_run, jax.ShapeDtypeStruct((), z.dtype), z.mean(), ordered=True)
    return head(z)


def an_assertion(_, x):
    z = features(x)
    checkify.debug_check(jnp.all(z >= 0), "negative")
    return head(z)


def _must_not_run(value):
    raise AssertionError("A callback ran.")


WITH_DEAD_CODE = [
    softmax_after_the_logits,
    auxiliary_head,
    second_result_of_a_jitted_function,
    second_result_of_a_checkpoint,
    second_result_of_a_custom_derivative,
    outputs_and_a_carry_of_a_scan,
    a_loop_of_unknown_length,
    a_loop_that_is_too_long,
    prints,
    callbacks,
    an_assertion,
]


@pytest.mark.parametrize("network", WITH_DEAD_CODE)
def test_sites_are_those_that_the_logits_read(network):
    kinds = [site.kind for site in dmbp_jax.sites(None, X, apply_fn=network)]
    assert kinds == ["relu"]


@pytest.mark.parametrize("network", [auxiliary_head, prints, callbacks])
def test_maps_are_those_of_the_network_without_dead_code(network):
    for name in ("gradient", "gradcam"):
        expected = METHODS[name](None, X, 1, apply_fn=plain)
        np.testing.assert_allclose(METHODS[name](None, X, 1, apply_fn=network), expected, rtol=1e-6)
    expected = dmbp_jax.attribute(None, X, 1, apply_fn=plain, config=TWO_STEPS)
    found = dmbp_jax.attribute(None, X, 1, apply_fn=network, config=TWO_STEPS)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-6)
    np.testing.assert_allclose(found.y, np.asarray(plain(None, X))[:, 1], rtol=1e-5)


def test_a_callback_on_the_way_to_the_logits_is_refused_by_name():
    def network(_, x):
        z = features(x)
        return head(jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(z.shape, z.dtype), z))

    with pytest.raises(NonAffineError, match="'pure_callback'"):
        dmbp_jax.sites(None, X, apply_fn=network)


def test_a_callback_that_makes_a_constant_is_called():
    def network(_, x):
        two = jax.pure_callback(lambda: np.float32(2), jax.ShapeDtypeStruct((), jnp.float32))
        return head(features(x)) * two

    found = dmbp_jax.attribute(None, X, 1, apply_fn=network, config=TWO_STEPS)
    np.testing.assert_allclose(found.y, 2 * np.asarray(plain(None, X))[:, 1], rtol=1e-5)
