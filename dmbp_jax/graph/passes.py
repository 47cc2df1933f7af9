"""The passes that make a program of a traced network, in their order.

Trace and remove dead code (`tracing`), then flatten, turn axes, join pointwise functions, freeze
gates, refuse what is left, assemble.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from dmbp_jax.errors import (
    ControlFlowError,
    NonAffineError,
    NoReluError,
    UnsupportedNetworkError,
)
from dmbp_jax.graph.biases import find_biases
from dmbp_jax.graph.flattening import Flat, flatten
from dmbp_jax.graph.freezing import freeze_factors
from dmbp_jax.graph.operations import MOVES, refusal, refusal_at_output, refusal_of_padding
from dmbp_jax.graph.pieces import PieceFamily, Pointwise, WindowPool
from dmbp_jax.graph.pointwise import join_pointwise
from dmbp_jax.graph.positions import find_positions
from dmbp_jax.graph.program import Program, name_sites
from dmbp_jax.graph.steps import Operand, Step, after_pieces, needed_for

_NAMED = 6  # frozen factors that a message lists


def make_program(
    jaxpr: Any,
    zeros: Sequence[bool],
    families: tuple[PieceFamily, ...],
    nonaffine: str = "refuse",
    turned: bool = False,
) -> Program:
    """The program of a network whose last argument is x.

    Args:
      jaxpr: equations of `(inputs..., x) -> logits`, without dead code.
      zeros: which inputs are known to be zero everywhere.
      families: what may be a piece.
      nonaffine: "refuse", or "freeze" the gates of products at x (`freezing`).
      turned: whether values are stored channels last.
    """
    flat = flatten(jaxpr, zeros, families, turned)
    steps, logits = join_pointwise(flat.steps, flat.regions, flat.logits)
    joined = flat._replace(steps=steps, logits=logits)
    if nonaffine == "freeze":
        return _freeze_and_assemble(joined)
    try:
        return _assemble(joined)
    except (NonAffineError, ControlFlowError) as refused:
        raise type(refused)(f"{refused} {_advice(refused, joined)}") from None


def _freeze_and_assemble(flat: Flat) -> Program:
    return _assemble(flat._replace(steps=freeze_factors(flat.steps, flat.logits)))


def _advice(refused: UnsupportedNetworkError, flat: Flat) -> str:
    """What nonaffine="freeze" would do about a network that is refused."""
    try:
        frozen = _freeze_and_assemble(flat).frozen
    except UnsupportedNetworkError as error:
        if str(error) == str(refused):
            return 'nonaffine="freeze" would not help.'
        return f'nonaffine="freeze" would not help: {error}'
    named = ", ".join(map(repr, frozen[:_NAMED]))
    more = f" and {len(frozen) - _NAMED} more" if len(frozen) > _NAMED else ""
    return f'nonaffine="freeze" takes these factors as constants at x: {named}{more}.'


def _assemble(flat: Flat) -> Program:
    """The program of steps that are all affine or pieces, which is checked first."""
    on_path, count = set(needed_for([flat.logits], flat.steps)), itertools.count()
    _check_supported([step for step in flat.steps if step in on_path], flat.logits)
    steps = tuple(
        step if step.piece is None else replace(step, index=next(count))
        for step in flat.steps
        if step.kind == "constant" or step in on_path
    )
    if not any(step.piece is not None and step.piece.masked for step in steps):
        kinds = ", ".join(sorted({step.piece.kind for step in steps if step.piece is not None}))
        got = f"only operations without a mask ({kinds})" if kinds else "none"
        raise NoReluError(
            "Expected a network with at least one ReLU or another activation "
            f"between x and the logits, got {got}, so there is nothing to mask."
        )
    biases = find_biases(steps)
    labels = find_positions(steps, flat.image, flat.image_shape)
    return Program(
        steps=steps,
        inputs=flat.inputs,
        image=flat.image,
        logits=flat.logits,
        sites=name_sites(steps, biases, labels, flat.image_shape[1:3], flat.orders),
        bias_groups={bias[-1].results[0]: (index, bias) for index, bias in enumerate(biases)},
        boundary=_boundary(steps, flat.image, flat.logits),
    )


def _check_supported(steps: Sequence[Step], logits: Operand) -> None:
    """Refuse what is neither affine nor a piece, and a function of the logits."""
    for step in steps:
        if step.kind == "nonaffine":
            raise refusal(step.name, step.scope)
        if isinstance(step.piece, WindowPool) and step.piece.reads_padding_alone(step.shapes[0]):
            raise refusal_of_padding(step.name, step.scope)
    at_output = {logits}
    for step in reversed(steps):
        if not at_output.isdisjoint(step.results):
            if isinstance(step.piece, Pointwise) and not step.piece.exact:
                raise refusal_at_output(step.piece.operation, step.scope)
            if step.kind == "affine" and step.name in MOVES:
                at_output.update(step.operands)
        if isinstance(step.piece, Pointwise) and not jnp.issubdtype(step.dtype, jnp.floating):
            raise refusal(step.name, step.scope)


def _boundary(steps: Sequence[Step], image: int, logits: Operand) -> tuple[int, ...]:
    """Values that depend on x and on no piece, read by a piece or by what comes after one."""
    after = after_pieces(steps)
    early = {image, *(name for s in steps if s.kind == "affine" for name in s.results)} - after
    late = [step for step in steps if not after.isdisjoint(step.results)]
    return tuple(sorted(early & {logits, *(operand for s in late for operand in s.operands)}))
