"""A small Flax classifier whose last layer is the last neither by name nor by shape."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np


class Linen(nn.Module):
    """A hidden layer as wide as there are classes, so that shapes alone do not tell."""

    head: str = "dense"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        if self.head == "conv":
            return nn.relu(nn.Conv(6, (1, 1), name="a_first_name")(x)).mean((1, 2))
        x = nn.relu(nn.Dense(6, name="zz_hidden")(x.mean((1, 2))))
        if self.head == "two":
            return nn.Dense(6, name="one")(x) + nn.Dense(6, name="two")(x)
        return nn.Dense(6, name="a_first_name")(x)


X = np.random.default_rng(3).normal(size=(3, 8, 8, 2)).astype(np.float32)


def linen(head: str) -> tuple[Any, Any]:
    module = Linen(head)
    return module.init(jax.random.key(0), X), module.apply
