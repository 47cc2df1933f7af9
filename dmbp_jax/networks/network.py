"""A network with its weights, preprocessing and class names as one callable pytree.

Arrays are the leaves; module, preprocessing and names are static, so it passes through `jax.jit`.
"""

import copyreg
import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.networks.class_names import find_label
from dmbp_jax.networks.preprocessing import Preprocessing


def _by_name(function: Any) -> Any:
    """Pickle by name, as functions are, what JAX put in place of a function, such as `jax.nn.relu`;
    modules hold them.
    """
    module = sys.modules.get(function.__module__)
    is_named = getattr(module, function.__qualname__, None) is function
    return function.__qualname__ if is_named else function.__reduce_ex__(pickle.DEFAULT_PROTOCOL)


for kind in (jax.custom_jvp, type(jax.jit(_by_name))):
    copyreg.pickle(kind, _by_name)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Network:
    """A Flax Linen network ready to call: logits = net(x).

    A pytree whose leaves are the arrays of `variables`; everything else is static and hashable.
    It goes into `jax.jit`, `jax.vmap` and `dmbp_jax.attribute` as an ordinary argument.

    Attributes:
      module: Flax Linen module, called as `module.apply(variables, x)`.
      variables: its variables, such as `{"params": …}`.
      preprocessing: from a picture to x.
      labels: class names, in the order of the logits.
      name: its name in the registry, or any other.
      activation: "softmax" or "sigmoid" (multi-label) turns logits into probabilities.

    Example:
      >>> net = dmbp_jax.load("builtin")
      >>> x = jnp.zeros((96, 96, 3))
      >>> net(x).shape, net(x[None]).shape
      ((10,), (1, 10))
    """

    module: nn.Module = field(metadata={"static": True})
    variables: Mapping[str, Any]
    preprocessing: Preprocessing = field(metadata={"static": True}, default=Preprocessing())
    labels: tuple[str, ...] = field(metadata={"static": True}, default=())
    name: str = field(metadata={"static": True}, default="network")
    activation: str = field(metadata={"static": True}, default="softmax")

    def __call__(self, x: ArrayLike) -> jax.Array:
        """Logits of preprocessed images.

        Args:
          x: (H, W, 3) or (N, H, W, 3), floating point, as `preprocess` returns it.

        Returns:
          (classes,) or (N, classes).

        Raises:
          InputError: wrong rank or number of channels.
          InputTypeError: not a floating-point array.
        """
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputTypeError(
                f"x: Expected a floating-point dtype, got {x.dtype}; "
                "preprocess pictures with net.preprocess(...)."
            )
        if x.ndim not in (3, 4) or x.shape[-1] != 3:
            raise InputError(f"x: Expected shape (H, W, 3) or (N, H, W, 3), got {x.shape}.")
        single = x.ndim == 3
        logits: Any = self.module.apply(self.variables, x[None] if single else x)
        return logits[0] if single else logits

    def __repr__(self) -> str:
        """Name, classes and size; not the numbers."""
        size = sum(leaf.size for leaf in jax.tree.leaves(self.variables))
        return f"Network({self.name!r}, {len(self.labels)} classes, {size:,} parameters)"

    def preprocess(self, source: str | os.PathLike[str] | Image.Image) -> np.ndarray:
        """The network's input (size, size, 3), float32, from a picture.

        Args:
          source: path of a picture, or a Pillow image.

        Raises:
          ImageError: the picture cannot be decoded.
        """
        return self.preprocessing.normalise(self.crop(source))

    def crop(self, source: str | os.PathLike[str] | Image.Image) -> Image.Image:
        """The part of the picture that the network gets: RGB, resized, cropped, not normalised.

        Raises:
          ImageError: the picture cannot be decoded.
        """
        return self.preprocessing.crop(source)

    def label_index(self, label: int | str, *, exact: bool = False) -> int:
        """Index of a class, given as index or name, as `find_label` describes it.

        A name may be in upper or lower case, and may be part of the full name if no other name
        contains it, unless `exact` is asked for.

        Raises:
          InputError: index out of range, or no class or several classes fit the name.
          InputTypeError: neither an integer nor a string.

        Example:
          >>> net = dmbp_jax.load("builtin")
          >>> net.labels[net.label_index("STAR")]
          'star'
        """
        index = find_label(self.labels, label, exact=exact)
        if not self.labels:
            size = self.preprocessing.size
            logits = jax.eval_shape(self, np.zeros((size, size, 3), np.float32))
            if index >= logits.size:
                raise InputError(f"label: Expected 0 <= label < {logits.size}, got {label}.")
        return index
