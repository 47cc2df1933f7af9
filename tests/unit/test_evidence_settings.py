"""Settings of the evidence and of sign descent: `DMBP.quick`, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.errors import InputError, InputTypeError


def test_quick_is_six_steps_of_the_documented_rates():
    config = DMBP.quick()
    assert (config.steps, config.update, config.alternate) == (6, "sign", 2)
    state = config.transformation().init(jnp.zeros(1))
    moves = []
    for _ in range(6):
        move, state = config.transformation().update(jnp.ones(1), state, jnp.zeros(1))
        moves.append(-float(move[0]))
    np.testing.assert_allclose(moves, [0.8, 0.66, 0.52, 0.38, 0.24, 0.1], rtol=1e-6)
    assert DMBP.quick(steps=9, evidence="input").steps == 9
    assert DMBP.paper() == DMBP()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"evidence": "pixels"}, InputError, "evidence: Expected"),
        ({"update": "adam"}, InputError, "update: Expected"),
        ({"last_rate": 0.0}, InputError, "last_rate: Expected"),
        ({"last_rate": -0.1}, InputError, "last_rate: Expected"),
        ({"last_rate": float("nan")}, InputError, "last_rate: Expected"),
        ({"last_rate": "slow"}, InputTypeError, "last_rate: Expected"),
        ({"alternate": -1}, InputError, "alternate: Expected"),
        ({"alternate": 1.5}, InputTypeError, "alternate: Expected"),
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
