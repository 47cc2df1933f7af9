"""What is read off the logits: a probability by softmax or sigmoid, and the network's top-1.

Methods that perturb images and all metrics ask the same questions of a network.
"""

import jax
import jax.numpy as jnp

from dmbp_jax.checks import check_choice
from dmbp_jax.engine.mapping import each_image
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork


def softmax(logits: jax.Array) -> jax.Array:
    """Softmax over classes; of a single logit, where it is always 1, the sigmoid."""
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


PROBABILITIES = {"softmax": softmax, "sigmoid": jax.nn.sigmoid}


def find_activation(
    activation: str | None, call: Call, choices: tuple[str, ...] = tuple(PROBABILITIES)
) -> str:
    """The given activation, else the network's own (`params.activation`), else softmax."""
    if activation is None:
        own = getattr(call.params, "activation", None) if call.apply_fn is None else None
        return own if isinstance(own, str) and own in choices else "softmax"
    return check_choice(activation, "activation", choices)


def target_labels(call: Call) -> jax.Array:
    """The labels of a call, (N,) int32; the network's top-1 where the caller named none."""
    if call.labels is not None:
        return call.labels
    return each_image(_top_label, call)


def _top_label(network: TracedNetwork, image: jax.Array, _: None) -> jax.Array:
    return network.logits(image).argmax(-1).astype(jnp.int32)


def pick(values: jax.Array, labels: jax.Array) -> jax.Array:
    """(N,) the value of each row's label, of values (N, classes)."""
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]
