"""Whether a network treats every image by itself: the logits of a batch are those of its images.

The number of the image is followed through a trace with a few of them (`labels`), and that trace is
compared with the one of a single image. Where the number is lost, or constants of the two differ,
the network is run: if images change the logits of others, or their number does, it is refused, as
every map is of one image.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import ControlFlowError, UnsupportedNetworkError
from dmbp_jax.graph.flattening import Flat, flatten
from dmbp_jax.graph.jaxprs import count_operations, evaluate
from dmbp_jax.graph.labels import Follower, Label, Labels
from dmbp_jax.graph.model import is_traced
from dmbp_jax.graph.operations import CONTROL_FLOW, POINTWISE, place, refusal
from dmbp_jax.graph.steps import Constant, Step

_MOST_OPERATIONS = 1_000_000  # that are run to see whether they mix images
# Of the trace: of two, half of all shuffles leave each at its place; five are no groups of four.
IMAGES = 4


def check_images_apart(
    one: Any, inputs: Sequence[Any], several: Any, others: Sequence[Any]
) -> str | None:
    """Refuse a network that mixes the images of a batch.

    Args:
      one: equations of `(inputs..., x (1, H, W, C)) -> logits (1, classes)`.
      inputs: arrays of the network; random ones take the place of those that are traced.
      several, others: the same of IMAGES.

    Returns:
      Where the logits of an image come to depend on its place in the batch, or on the number of
      images; None if they do not.
    """
    batch = _flat(several)
    where = "'scan'" if batch is None else _where_mixed(batch)
    if where is not None and _changes(several, others):
        # Of the batch a branch is taken, or a loop goes on: what to write instead is said of those.
        for step in () if batch is None else batch.steps:
            if step.name in CONTROL_FLOW and step.kind != "constant":
                raise refusal(step.name, step.scope)
        raise refusal_of_batches("with the other images", where)
    single = _flat(one)
    if single is None or batch is None:
        where = "'scan'"
    elif not _are_equal(inputs, others) or len(single.steps) != len(batch.steps):
        where = "what it does with their number"
    else:
        where = _where_different(single, batch)
    return where if where is not None and _differ(one, inputs, several, others) else None


def refusal_of_batches(how: str, where: str) -> UnsupportedNetworkError:
    """The error of a network whose logits of a batch are not those of its images."""
    return UnsupportedNetworkError(
        "Expected a network that treats every image of a batch by itself, got one whose logits of "
        f"an image change {how}, by {where} (use normalisation layers and dropout in inference "
        "mode, with running statistics; write what is done to one image, and jax.vmap it)."
    )


def _flat(jaxpr: Any) -> Flat | None:
    """None of a loop that is too long to be written out."""
    try:
        return flatten(jaxpr, [False] * (len(jaxpr.invars) - 1), ())
    except ControlFlowError:
        if count_operations(jaxpr) > _MOST_OPERATIONS:
            raise
        return None


def _where_mixed(flat: Flat) -> str | None:
    """The first operation that takes images apart or mixes them, unless logits are in their row."""
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


def _where_different(one: Flat, several: Flat) -> str | None:
    """The first step that is another one for several images; None where all are the same."""
    wide: set[int] = set()  # constants with one value for all images, in as many copies
    for step, other in zip(one.steps, several.steps, strict=True):
        if not _is_same(step, other, wide):
            return f"{other.name!r} {place(other.scope)}"
    return None


def _is_same(one: Step, several: Step, wide: set[int]) -> bool:
    """Whether two steps do the same to every image; notes which constants are `wide`."""
    if one.name != several.name or not all(map(_is_same_operand, one.operands, several.operands)):
        return False
    if one.kind == "constant" and (one.shape != several.shape or not wide.isdisjoint(one.operands)):
        wide.update(several.results)
        if one.name in ("broadcast_in_dim", "tile") and one.shapes == several.shapes:
            return True
        if one.name not in POINTWISE or wide.isdisjoint(one.operands):
            return False
    return _told(one) == _told(several)


def _told(step: Step) -> str:
    """What a step does, without the sizes of what it takes whole."""
    told = dict(step.params)
    sizes = step.shapes[0] if step.shapes else ()
    if step.name == "reshape":
        del told["new_sizes"]
    if step.name == "broadcast_in_dim":
        sizes = [
            sizes[told["broadcast_dimensions"].index(axis)]
            if axis in told["broadcast_dimensions"]
            else None
            for axis in range(len(told["shape"]))
        ]
    for key in {"limit_indices", "slice_sizes", "shape"} & told.keys():
        if len(told[key]) == len(sizes):
            pairs = zip(told[key], sizes, strict=True)
            told[key] = [None if n == whole else n for n, whole in pairs]
    return repr(told)


def _is_same_operand(one: Any, other: Any) -> bool:
    if isinstance(one, Constant) and isinstance(other, Constant):
        return _are_equal([one.value], [other.value])
    return one == other


def _are_equal(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether arrays are the same, or have the same numbers."""
    return len(values) == len(others) and all(
        one is other
        or (
            np.shape(one) == np.shape(other)
            and not is_traced(one, other)
            and np.asarray(one).tobytes() == np.asarray(other).tobytes()
        )
        for one, other in zip(values, others, strict=True)
    )


def _changes(jaxpr: Any, inputs: Sequence[Any]) -> bool:
    """Whether logits of images change with other images, more than from run to run.

    Of what is NaN, or the same for all images, nothing can be said: it counts as a change.
    """
    at = np.arange(IMAGES)
    is_seen = False
    with jax.ensure_compile_time_eval():
        run = _runner(jaxpr, inputs)
        for images, others in _test_images(jaxpr, 2):
            before = run(images)
            if np.isnan(before).any():
                continue
            noise = 10 * _distance(run(images), before).max()
            is_seen |= bool((_distance(before, before[0]) > noise).any())
            for changed in (at % 2 == 0, at % 2 == 1, at < 2, at >= 2):
                after = run(np.where(changed.reshape(-1, 1, 1, 1), others, images))
                if not (_distance(after, before)[~changed] <= noise).all():
                    return True
    return not is_seen


def _differ(one: Any, inputs: Sequence[Any], several: Any, others: Sequence[Any]) -> bool:
    """Whether logits of images in a batch are others than those of each alone, beyond rounding."""
    with jax.ensure_compile_time_eval():
        alone, together = _runner(one, inputs), _runner(several, others)
        for (images,) in _test_images(several, 1):
            each = np.concatenate([alone(image[None]) for image in images])
            rounding = np.sqrt(jnp.finfo(several.outvars[0].aval.dtype).eps)
            size = np.abs(each[np.isfinite(each)]).max(initial=0)
            if not (_distance(together(images), each) <= float(rounding) * size).all():
                return True
    return False


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|one - other|; 0 between equal infinities and where both are NaN, and NaN where one is."""
    with np.errstate(invalid="ignore"):
        is_same = (one == other) | (np.isnan(one) & np.isnan(other))
        return np.where(is_same, 0, np.abs(one - other))


def _test_images(jaxpr: Any, count: int) -> Iterator[np.ndarray]:
    """Arrays (count, IMAGES, H, W, C) of pixels in several ranges: one may shut all units."""
    rng, aval = np.random.default_rng(0), jaxpr.invars[-1].aval
    shape = count, *aval.shape
    for images in (
        rng.uniform(size=shape),  # whose square roots and logarithms are numbers
        rng.normal(size=shape),
        255 * rng.uniform(size=shape),
        100 * rng.normal(size=shape),
    ):
        yield images.astype(aval.dtype)


def _runner(jaxpr: Any, inputs: Sequence[Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Images -> logits in float64; random numbers take the place of arrays that are traced."""
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

    @jax.jit
    def logits(inputs: Any, x: jax.Array) -> jax.Array:
        return evaluate(jaxpr, [*inputs, x])[0]

    return lambda x: np.asarray(logits(given, x), np.float64)
