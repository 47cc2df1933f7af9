"""From logits to the probability of a label: softmax, or sigmoid for multi-label networks."""

from typing import Any

import jax

from dmbp_jax.core.inputs import ApplyFn
from dmbp_jax.methods.calling import check_choice

PROBABILITIES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}
LOG_PROBABILITIES = {"softmax": jax.nn.log_softmax, "sigmoid": jax.nn.log_sigmoid}


def find_activation(activation: str | None, params: Any, apply_fn: ApplyFn | None) -> str:
    """The given activation, else the network's own (`params.activation`), else softmax.

    Raises:
      InputError: neither "softmax" nor "sigmoid".
    """
    if activation is None:
        own = getattr(params, "activation", None) if apply_fn is None else None
        return own if isinstance(own, str) and own in PROBABILITIES else "softmax"
    return check_choice(activation, "activation", tuple(PROBABILITIES))
