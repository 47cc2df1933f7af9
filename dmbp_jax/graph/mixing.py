"""Whether a network treats every image by itself: the logits of a batch are those of its images.

The number of the image is followed through a trace with a few of them (`labels`). Where it is lost
the network is run: if images change the logits of others, it is refused, as every map is of one
image.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import ControlFlowError, UnsupportedNetworkError
from dmbp_jax.graph.flattening import flatten
from dmbp_jax.graph.jaxprs import count_operations, evaluate
from dmbp_jax.graph.labels import Follower, Label, Labels
from dmbp_jax.graph.operations import place

_MOST_OPERATIONS = 1_000_000  # that are run to see whether they mix images
# Of the trace: of two, half of all shuffles leave each at its place; five are no groups of four.
IMAGES = 4


def check_images_apart(jaxpr: Any, inputs: Sequence[Any]) -> None:
    """Refuse a network that mixes the images of a batch.

    Args:
      jaxpr: equations of `(inputs..., x (IMAGES, H, W, C)) -> logits (IMAGES, classes)`.
      inputs: arrays of the network; random ones take the place of those that are traced.
    """
    where = _where_mixed(jaxpr)
    if where is None or not _changes(jaxpr, inputs):
        return
    raise UnsupportedNetworkError(
        "Expected a network that treats every image of a batch by itself, got one whose logits of "
        f"an image change with the other images, by {where} (use normalisation layers in inference "
        "mode, with running statistics; write what is done to one image, and jax.vmap it)."
    )


def _where_mixed(jaxpr: Any) -> str | None:
    """The first operation that takes images apart or mixes them, unless logits are in their row."""
    try:
        flat = flatten(jaxpr, [False] * (len(jaxpr.invars) - 1), ())
    except ControlFlowError:  # a loop that is too long to be written out
        if count_operations(jaxpr) > _MOST_OPERATIONS:
            raise
        return "'scan'"
    images = np.arange(float(IMAGES))
    found: dict[int, Labels] = {flat.image: ((images.reshape(-1, 1, 1, 1),),)}
    where = None
    for step in Follower(exact=True).follow(flat.steps, found):
        for name in step.results:
            (labels,) = found[name]
            is_followed = len(labels) == 1 and not np.isnan(labels[0]).any()
            if where is None and not (is_followed and _is_one_axis(labels[0])):
                where = f"{step.name!r} {place(step.scope)}"
            if not is_followed:
                return where
    if not isinstance(flat.logits, int) or flat.logits not in found:
        return None
    ((logits,),) = found[flat.logits]
    is_apart = np.array_equal(logits, images.reshape(-1, 1))
    return None if is_apart else where or "at its output"


def _is_one_axis(label: Label) -> bool:
    """Whether one axis holds all images, and no other any."""
    return np.sort(label.shape)[-2:-1].max(initial=1) == 1 and len(np.unique(label)) == IMAGES


def _changes(jaxpr: Any, inputs: Sequence[Any]) -> bool:
    """Whether logits of images change with other images, more than from run to run."""
    rng = np.random.default_rng(0)

    def concrete(value: Any) -> Any:
        if not isinstance(value, (jax.core.Tracer, jax.ShapeDtypeStruct)):
            return value
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return np.zeros(value.shape, value.dtype)
        if value.ndim < 2:  # it may be a variance
            return rng.uniform(size=value.shape).astype(value.dtype)
        return rng.normal(size=value.shape).astype(value.dtype)

    given = list(map(concrete, inputs))
    aval = jaxpr.invars[-1].aval
    # Positive: whose square roots and logarithms are numbers.
    images, others = rng.uniform(size=(2, *aval.shape)).astype(aval.dtype)

    @jax.jit
    def logits(inputs: Any, x: jax.Array) -> jax.Array:
        return evaluate(jaxpr, [*inputs, x])[0]

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(logits(given, x), np.float64)

    at = np.arange(IMAGES)
    with jax.ensure_compile_time_eval():
        before = run(images)
        noise = np.abs(run(images) - before).max()
        for changed in (at % 2 == 0, at % 2 == 1, at < 2, at >= 2):
            after = run(np.where(changed.reshape(-1, 1, 1, 1), others, images))
            if np.abs(after - before)[~changed].max() > 10 * noise:
                return True
    return False
