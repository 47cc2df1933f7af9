"""From a jaxpr to a flat program: calls are looked into, every equation is classified.

An equation that depends on x is a piece, or part of one, or affine, or refused by name and scope.
Because of that a bare `max(x, 0)` can be trusted to be a ReLU: the clamps inside normalisation
layers come with a product of two dependent values and are refused there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jax.extend import core as jex

from dmbp_jax.errors import (
    ControlFlowError,
    NonAffineError,
    NoReluError,
    UnsupportedNetworkError,
)
from dmbp_jax.graph.affine import find_adjoints
from dmbp_jax.graph.biases import group_biases
from dmbp_jax.graph.freezing import freeze_factors
from dmbp_jax.graph.jaxprs import body, called_jaxpr, called_name, join_scopes
from dmbp_jax.graph.naming import name_sites
from dmbp_jax.graph.operations import CALLS, KEEPS_ZERO, is_affine
from dmbp_jax.graph.pieces import Equation, Piece, PieceFamily, find_piece
from dmbp_jax.graph.pointwise import Region, check_supported, join_pointwise
from dmbp_jax.graph.program import Constant, Operand, Program, Step
from dmbp_jax.graph.scans import write_out
from dmbp_jax.graph.stretches import divide
from dmbp_jax.graph.zeros import is_zero

_NAMED = 6  # frozen factors that a message lists


def flatten(
    jaxpr: Any, zeros: Sequence[bool], families: tuple[PieceFamily, ...], nonaffine: str = "refuse"
) -> Program:
    """The program of a network whose last argument is x.

    Args:
      jaxpr: equations of `(arrays..., x) -> logits`.
      zeros: which constants of the jaxpr are zero everywhere.
      families: what may be a piece.
      nonaffine: "refuse", or "freeze" the gates of products at x (`freezing`).

    Raises:
      NonAffineError, ControlFlowError: an operation on the path from x is not supported; the
        message says what "freeze" would do about it.
      NoReluError: no masked piece on the path from x.
    """
    flat = _Flattener(families)
    inputs = [flat.new() for _ in jaxpr.invars]
    constants = [flat.new(zero) for zero in zeros]
    image = inputs.pop()
    flat.on_path.add(image)
    (logits,) = flat.inline(jaxpr, [*inputs, image], constants, scope="")
    joined = join_pointwise(flat.steps, flat.regions, logits)

    def assemble(steps: Sequence[Step]) -> Program:
        check_supported(steps, logits)
        return _assemble(steps, (*inputs, *constants), image, logits, flat.on_path)

    if nonaffine == "freeze":
        return assemble(freeze_factors(joined, logits))
    try:
        return assemble(joined)
    except (NonAffineError, ControlFlowError) as refused:
        advice = _advice(refused, lambda: assemble(freeze_factors(joined, logits)))
        raise type(refused)(f"{refused} {advice}") from None


def _advice(refused: UnsupportedNetworkError, freeze: Callable[[], Program]) -> str:
    """What nonaffine="freeze" would do about a network that is refused."""
    try:
        frozen = freeze().frozen
    except UnsupportedNetworkError as error:
        if str(error) == str(refused):
            return 'nonaffine="freeze" would not help.'
        return f'nonaffine="freeze" would not help: {error}'
    named = ", ".join(map(repr, frozen[:_NAMED]))
    more = f" and {len(frozen) - _NAMED} more" if len(frozen) > _NAMED else ""
    return f'nonaffine="freeze" takes these factors as constants at x: {named}{more}.'


def _assemble(
    steps: Sequence[Step],
    inputs: tuple[int, ...],
    image: int,
    logits: Operand,
    on_path: set[int],
) -> Program:
    """The program of steps that are all affine or pieces."""
    steps, after_piece = _number(steps)
    if not any(step.piece is not None and step.piece.masked for step in steps):
        raise NoReluError(
            "Expected a network with at least one ReLU or another activation "
            "between x and the logits, got none, so there is nothing to mask."
        )
    groups = group_biases(steps)
    boundary = _boundary(steps, on_path - after_piece, logits)
    adjoints = find_adjoints(steps, inputs)
    on_the_way = [step for step in steps if step.kind != "constant"]
    before = [step for step in on_the_way if step.kind == "affine" and not step.after_piece]
    after = [step for step in on_the_way if step.kind == "piece" or step.after_piece]
    lists = [(on_the_way, {logits}), (before, set(boundary)), (after, {logits})]
    whole, early, late = divide(lists, adjoints)
    return Program(
        steps=steps,
        inputs=inputs,
        image=image,
        logits=logits,
        sites=name_sites(steps, groups),
        bias_groups={
            steps[group.steps[-1]].results[0]: (index, group) for index, group in enumerate(groups)
        },
        boundary=boundary,
        adjoints=adjoints,
        whole=whole,
        early=early,
        late=late,
    )


def _number(steps: Sequence[Step]) -> tuple[tuple[Step, ...], set[int]]:
    """Number the pieces, and mark what comes after one; also the values that it makes."""
    after_piece: set[int] = set()
    count = {True: 0, False: 0}  # masked and others, so far
    numbered = []
    for step in steps:
        after, index = any(operand in after_piece for operand in step.operands), -1
        if step.piece is not None:
            index = count[step.piece.masked]
            count[step.piece.masked] += 1
        if after or step.piece is not None:
            after_piece.update(step.results)
            step = replace(step, after_piece=after, index=index)
        numbered.append(step)
    return tuple(numbered), after_piece


def _boundary(steps: Sequence[Step], early: set[int], logits: Operand) -> tuple[int, ...]:
    """Values that depend on x and on no piece, read by a piece or by what comes after one."""
    wanted = {
        operand
        for step in steps
        if step.after_piece or step.kind == "piece"
        for operand in step.operands
        if isinstance(operand, int) and operand in early
    }
    if isinstance(logits, int) and logits in early:
        wanted.add(logits)
    return tuple(sorted(wanted))


class _Flattener:
    """Walks a jaxpr once, looking into calls and classifying every equation."""

    def __init__(self, families: tuple[PieceFamily, ...]) -> None:
        self.steps: list[Step] = []
        self.regions: list[Region] = []  # the steps of every call that was looked into
        self.on_path: set[int] = set()  # values that depend on x
        self._families = families
        self._zeros: set[int] = set()  # constants known to be zero everywhere
        self._count = 0

    def new(self, zero: bool = False) -> int:
        self._count += 1
        if zero:
            self._zeros.add(self._count)
        return self._count

    def inline(
        self, jaxpr: Any, arguments: Sequence[Operand], constants: Sequence[Operand], scope: str
    ) -> list[Operand]:
        names: dict[Any, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        names.update(zip(jaxpr.constvars, constants, strict=True))

        def read(atom: Any) -> Operand:
            return Constant(atom.val) if isinstance(atom, jex.Literal) else names[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            here = join_scopes(scope, str(equation.source_info.name_stack))
            piece = self._find_piece(equation, operands)
            name = equation.primitive.name
            if piece is None and name in CALLS:
                inner, inner_constants = body(called_jaxpr(equation))
                extra = [Constant(value) for value in inner_constants]
                start = len(self.steps)
                results = self.inline(inner, operands, extra, here)
                region = Region(called_name(equation), start, len(self.steps), tuple(results))
                self.regions.append(region)
            elif piece is None and name == "scan" and any(self._depends(operands)):
                results = write_out(equation, operands, here, self.inline)
            else:
                results = self._append(equation, operands, here, piece)
            names.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _depends(self, operands: Sequence[Operand]) -> tuple[bool, ...]:
        return tuple(operand in self.on_path for operand in operands)

    def _find_piece(self, equation: Any, operands: Sequence[Operand]) -> Piece | None:
        depends = self._depends(operands)
        if not any(depends):
            return None
        view = Equation(
            name=called_name(equation),
            is_call=equation.primitive.name in CALLS,
            params=equation.params,
            depends=depends,
            is_zero=tuple(map(self._known_zero, operands)),
        )
        return find_piece(view, self._families)

    def _append(
        self, equation: Any, operands: list[Operand], scope: str, piece: Piece | None
    ) -> list[int]:
        name, depends = equation.primitive.name, self._depends(operands)
        results = [self.new() for _ in equation.outvars]
        kind = "constant"
        if piece is not None:
            kind = "piece"
        elif any(depends):
            kind = "affine" if is_affine(equation, depends) else "nonaffine"
        elif name in KEEPS_ZERO and self._known_zero(operands[0]):
            self._zeros.update(results)
        if kind != "constant":
            self.on_path.update(results)
        self.steps.append(
            Step(
                kind=kind,
                equation=equation,
                operands=tuple(operands),
                results=tuple(results),
                scope=scope,
                depends=depends,
                piece=piece,
            )
        )
        return results

    def _known_zero(self, operand: Operand) -> bool:
        if isinstance(operand, Constant):
            return is_zero(operand.value)
        return operand in self._zeros
