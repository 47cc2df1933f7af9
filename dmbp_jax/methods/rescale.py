"""DeepLift (Shrikumar et al., ICML 2017), Rescale rule: slopes between a baseline and the image."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.engine.baselines import make_baseline
from dmbp_jax.engine.mapping import each_image
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.pieces import FrozenFactor, Piece
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import method


@method("nonaffine")
def deeplift(
    call: Call,
    *,
    baseline: ArrayLike | str = "zero",
    multiply_by_inputs: bool = True,
    return_residual: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Back-propagate slopes between baseline and image instead of derivatives at the image.

        map = (x − x′) ⊙ m,   Σ map = F_c(x) − F_c(x′)

    m is the gradient with these multipliers in place of local derivatives, for a site's input
    z at x and z′ at the baseline x′:

    * ReLU and every other function f of one value: (f z − f z′) / (z − z′), per element (Rescale);
      f′ where z and z′ are so near that the difference of f is rounding alone.
    * max-pool, per window: the pair with the larger maximum names the position k (the winner at x
      if pool z ≥ pool z′, the winner at x′ otherwise), and its multiplier is
      (pool z − pool z′) / (z_k − z′_k), which lies in [0, 1]. Windows that share k **add up**.
      Min-pools and the maximum of two values are taken alike.

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      baseline: x′, as in `integrated_gradients`.
      multiply_by_inputs: False gives the multipliers m, which do not sum to anything.
      return_residual: also return Σ map − (F_c(x) − F_c(x′)), rounding only: () or (N,).
      nonaffine: as in `dmbp_jax.attribute`. With "freeze", F is the network whose frozen factors
        keep their values at x, at x′ too.

    Returns:
      Signed map, shape and dtype of x; with `return_residual` the pair (map, residual).

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for `baseline`.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import deeplift
      >>> def network(params, x):
      ...     return jax.nn.relu(x.sum((1, 2)) - 8.0) @ params
      >>> deeplift(jnp.eye(3), jnp.ones((4, 4, 3)), 0, apply_fn=network)[0, 0].tolist()
      [0.5, 0.0, 0.0]

    Source: Shrikumar, Greenside, Kundaje, ICML 2017; the max-pool rule is that of SHAP and
    Captum. Captum loses part of the sum where pooling windows overlap (the last share written
    wins) and where a ReLU module touches a pooling module (its hooks run in the wrong order), and
    takes the derivative of image 0 for a whole batch where z = z′. Here shares are added, and
    z = z′ takes the element's own derivative. RevealCancel, the origin's rule for dense
    layers, is not offered.
    """
    start = make_baseline(baseline, call)
    rule = partial(_deeplift, multiply_by_inputs=multiply_by_inputs)
    heat, residual = each_image(rule, call, start)
    return (heat, residual) if return_residual else heat


def _deeplift(
    network: TracedNetwork,
    image: jax.Array,
    label: jax.Array,
    start: jax.Array,
    *,
    multiply_by_inputs: bool,
) -> tuple[jax.Array, jax.Array]:
    graph = network.graph()
    here, factors, logits = _record(graph, image[None], {})
    before, _, logits_at_start = _record(graph, start[None], factors)

    def by_slope(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        """Linear in z: the slopes are of values that were recorded."""
        if index in factors:
            return factors[index]
        if len(z) > 1 or not piece.masked:
            winners, slope = _by_winners(piece, here[index], before[index])
            return slope * piece.apply(winners, *z)
        return _rescale(piece, *here[index], *before[index]) * z[0]

    def logit_by_slopes(image: jax.Array) -> jax.Array:
        return graph.run(image[None], Rules(by_slope))[0, label]

    multipliers = jax.grad(logit_by_slopes)(image)
    shares = multipliers * (image - start)
    change = at_least_float32(logits[0, label]) - at_least_float32(logits_at_start[0, label])
    residual = at_least_float32(shares).sum() - change
    return (shares if multiply_by_inputs else multipliers), residual


def _rescale(piece: Piece, z: jax.Array, before: jax.Array) -> jax.Array:
    """(f z − f z′) / (z − z′); the derivative where the difference is rounding alone."""
    value, here = jax.jvp(piece, (z,), (jnp.ones_like(z),))
    value_before, there = jax.jvp(piece, (before,), (jnp.ones_like(z),))
    near = jnp.sqrt(jnp.finfo(z.dtype).eps) * jnp.maximum(1, abs(value))
    # No corner of f lies between two values with about one derivative.
    is_rounding = (abs(z - before) <= near) & (abs(here - there) <= near)
    slope = _slope(value - value_before, z - before, fallback=0)
    return jnp.where(is_rounding, (here + there) / 2, slope)


def _by_winners(
    pool: Piece, z: tuple[jax.Array, ...], before: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """The positions that the rule names of a pool, or of the larger of two values, and slopes."""
    value, moved = pool(*z), [here - there for here, there in zip(z, before, strict=True)]
    change = value - pool(*before)
    at_image, at_baseline = pool.choose(*z), pool.choose(*before)
    by_image, by_baseline = pool.apply(at_image, *moved), pool.apply(at_baseline, *moved)
    # The winner that moved at least as far as the pool, in its direction.
    takes_image = jnp.where(change >= 0, by_image >= by_baseline, by_image < by_baseline)
    winners = jnp.where(takes_image, at_image, at_baseline)
    return winners, _slope(change, jnp.where(takes_image, by_image, by_baseline), fallback=1)


def _record(
    graph: Graph, x: jax.Array, factors: Mapping[int, jax.Array]
) -> tuple[list[tuple[jax.Array, ...]], dict[int, jax.Array], jax.Array]:
    """Inputs of every piece at x, the frozen factors by their index, and the logits.

    Factors that are given are not those of x.
    """
    inputs: list[tuple[jax.Array, ...]] = []
    frozen: dict[int, jax.Array] = {}

    def rule(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        inputs.append(z)
        value = factors[index] if index in factors else piece(*z)
        if isinstance(piece, FrozenFactor):
            frozen[index] = value
        return value

    logits = graph.run(x, Rules(rule))
    return inputs, frozen, logits


def _slope(change_out: jax.Array, change_in: jax.Array, fallback: float) -> jax.Array:
    """change_out / change_in; `fallback` where change_in is 0.

    |change_out| ≤ |change_in| at every ReLU and pool, so the ratio is in [0, 1] however small it
    gets. No further epsilon is needed.
    """
    moved = abs(change_in) >= jnp.finfo(change_in.dtype).tiny
    ratio = change_out / jnp.where(moved, change_in, 1)
    return jnp.where(moved, ratio, jnp.asarray(fallback, ratio.dtype))
