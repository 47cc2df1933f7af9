"""From a jaxpr to a flat program: calls are looked into, every equation is classified.

An equation that depends on x is a piece, or part of one, or affine, or refused by name and scope.
Because of that a bare `max(x, 0)` can be trusted to be a ReLU: the clamps inside normalisation
layers come with a product of two dependent values and are refused there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend import core as jex

from dmbp_jax.graph.jaxprs import body, called_jaxpr, called_name, join_scopes
from dmbp_jax.graph.operations import CALLS, KEEPS_ZERO, is_affine
from dmbp_jax.graph.pieces import Equation, Piece, PieceFamily, find_piece
from dmbp_jax.graph.pointwise import Region
from dmbp_jax.graph.scans import write_out
from dmbp_jax.graph.steps import Constant, Operand, Step, is_zero


class Flat(NamedTuple):
    """The equations of a network one after the other, each classified by itself.

    Attributes:
      steps: in order of evaluation.
      regions: the steps of every call that was looked into.
      inputs: names of the network's arrays, then of the constants of its trace.
      image, image_shape: name of x, and its shape.
      logits: what the network returns.
      orders: of the values that are stored with their axes in another order (`channels_last`).
    """

    steps: Sequence[Step]
    regions: Sequence[Region]
    inputs: tuple[int, ...]
    image: int
    image_shape: tuple[int, ...]
    logits: Operand
    orders: Mapping[int, tuple[int, ...]] = {}


def flatten(jaxpr: Any, zeros: Sequence[bool], families: tuple[PieceFamily, ...]) -> Flat:
    """The equations of a network whose last argument is x.

    Args:
      jaxpr: equations of `(arrays..., x) -> logits`.
      zeros: which constants of the jaxpr are zero everywhere.
      families: what may be a piece.

    Raises:
      ControlFlowError: a loop on the path from x is too long to be written out.
    """
    flat = _Flattener(families)
    inputs = [flat.new() for _ in jaxpr.invars]
    constants = [flat.new(zero) for zero in zeros]
    image = inputs.pop()
    flat.on_path.add(image)
    (logits,) = flat.inline(jaxpr, [*inputs, image], constants, scope="")
    shape = jaxpr.invars[-1].aval.shape
    return Flat(flat.steps, flat.regions, (*inputs, *constants), image, shape, logits)


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
