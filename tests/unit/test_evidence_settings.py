"""Settings of the evidence: `DMBP.quick`, and what is refused."""

import jax.numpy as jnp
import pytest

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.errors import InputError


def test_quick_is_four_steps_at_seven_times_the_rate_of_the_paper():
    assert DMBP.quick() == DMBP(steps=7, learning_rate=0.05)
    assert DMBP.quick(steps=9, evidence="input") == DMBP(9, 0.05, evidence="input")
    assert DMBP.paper() == DMBP()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"evidence": "pixels"}, InputError, "evidence: Expected"),
    ],
)
def test_new_fields_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        DMBP(**options)


def test_biases_are_checked():
    with pytest.raises(InputError, match="biases: Expected"):
        dmbp_jax.attribute(jnp.eye(3), jnp.ones((4, 4, 3)), 0, apply_fn=network, biases="smear")


def network(params, x):
    return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
