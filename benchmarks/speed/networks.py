"""The networks that are timed, with random weights but for the built-in one.

Speed does not depend on the weights, so nothing is downloaded.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import dmbp_jax
from dmbp_jax.models import VGG16, ResNet50, SqueezeNet11
from dmbp_jax.models.builtin import INPUT_SHAPE

_CLASSES = 1000
_RANDOM = {  # and the layer of the logits
    "resnet50": (ResNet50, "fc"),
    "vgg16": (VGG16, "fc8"),
    "squeezenet": (SqueezeNet11, "conv10"),
}
_LOGIT_SCALE = 10.0  # standard deviation of the logits, about that of a trained ImageNet network


def make_network(name: str, size: int) -> dmbp_jax.Network:
    """A network for size × size images; the built-in one keeps its trained weights."""
    if name == "builtin":
        return dmbp_jax.load("builtin")
    make, last = _RANDOM[name]
    module = make(classes=_CLASSES)
    return dmbp_jax.Network(
        module=module, variables=random_variables(module, last, size), name=name
    )


def make_images(name: str, count: int, size: int) -> jax.Array:
    """(count, size, size, 3) standard normal numbers; image i does not depend on `count`."""
    shape = INPUT_SHAPE if name == "builtin" else (size, size, 3)
    return jnp.asarray(
        np.stack(
            [np.random.default_rng(i).standard_normal(shape, np.float32) for i in range(count)]
        )
    )


def random_variables(module: nn.Module, last: str, size: int) -> Any:
    """He's normal weights and small biases; layer `last` scaled to logits of ordinary size."""
    image = make_images("", 1, size)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.02
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(deviation)

    variables = jax.device_put(jax.tree.map(draw, shapes))
    scale = _LOGIT_SCALE / jnp.std(jax.jit(module.apply)(variables, image))
    variables["params"][last] = jax.tree.map(lambda a: a * scale, variables["params"][last])
    return variables
