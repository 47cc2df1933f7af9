"""What every metric that runs a network takes: the network, the images and the label, checked once.

Plain Python before any tracing, with the words that `dmbp_jax.attribute` uses.
"""

from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from dmbp_jax.engine.scores import first_choice
from dmbp_jax.graph.model import (
    ApplyFn,
    Images,
    Model,
    bind,
    check_images,
    check_labels,
    count_classes,
)

DEFAULT_CHUNK = 32  # pictures in one forward pass


class NetworkCall(NamedTuple):
    """A network and the images it is evaluated on."""

    model: Model
    images: Images
    classes: int

    def target_labels(self, label: ArrayLike | None, chunk_size: int = DEFAULT_CHUNK) -> jax.Array:
        """Labels (N,) int32; None is the network's top-1 per image.

        Raises:
          InputError, InputTypeError: as `dmbp_jax.attribute`.
        """
        x = self.images.x
        labels = check_labels(label, x.shape[0], self.classes, self.images.single)
        return first_choice(self.model, x, chunk_size) if labels is None else labels


def check_network(params: Any, x: ArrayLike, apply_fn: ApplyFn | None) -> NetworkCall:
    """Bind the network and check that it accepts the images.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
    """
    model, images = bind(params, apply_fn), check_images(x)
    return NetworkCall(model, images, count_classes(model, images.x))
