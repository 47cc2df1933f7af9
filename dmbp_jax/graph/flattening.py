"""From a jaxpr to a flat program: calls are looked into, every equation is classified and turned.

An equation that depends on x is a piece, or part of one, or affine, or refused by name and scope.
Because of that a bare `max(x, 0)` can be trusted to be a ReLU: the clamps inside normalisation
layers come with a product of two dependent values and are refused there.

On a CPU equations are turned: written for values that are stored channels last (`orders`), which
convolutions need (`convolution`); transpositions around each one take as long as all the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend import core as jex

from dmbp_jax.graph.jaxprs import (
    altered,
    called_jaxpr,
    called_name,
    constants_of,
    inside,
    join_scopes,
    transposition,
)
from dmbp_jax.graph.operations import CALLS, IDENTITIES, KEEPS_ZERO, is_affine
from dmbp_jax.graph.orders import Order, arrange, as_it_is, plain
from dmbp_jax.graph.pieces import (
    FAMILIES,
    Equation,
    Maximum,
    Piece,
    PieceFamily,
    Relu,
)
from dmbp_jax.graph.pointwise import Region
from dmbp_jax.graph.scans import write_out
from dmbp_jax.graph.steps import Constant, Operand, Step, is_zero


class Flat(NamedTuple):
    """The equations of a network one after the other, each classified by itself."""

    steps: Sequence[Step]  # in order of evaluation
    regions: Sequence[Region]  # the steps of every call that was looked into
    inputs: tuple[int, ...]  # names of the network's arrays and of the constants of its trace
    image: int  # name of x
    image_shape: tuple[int, ...]
    logits: Operand  # what the network returns
    orders: Mapping[Operand, Order]  # of values that are stored with their axes in another order


def flatten(
    jaxpr: Any, zeros: Sequence[bool], families: tuple[PieceFamily, ...], turned: bool = False
) -> Flat:
    """The equations of `(inputs..., x) -> logits`; arguments as of `passes.make_program`.

    With `turned` values are stored as convolutions want them; x and the logits are not.
    """
    flat = _Flattener(families, turned)
    inputs, image = [flat.new(zero) for zero in zeros], flat.new()
    flat.on_path.add(image)
    (logits,) = flat.inline(jaxpr, [*inputs, image], scope="")
    if logits in flat.orders:
        last = next(step for step in reversed(flat.steps) if logits in step.results)
        (variable,) = jaxpr.outvars
        logits = flat.in_order(last.equation, last.scope, logits, variable, plain(2))
    shape = jaxpr.invars[-1].aval.shape
    return Flat(flat.steps, flat.regions, tuple(inputs), image, shape, logits, flat.orders)


class _Flattener:
    """Walks a jaxpr once, looking into calls and classifying every equation."""

    def __init__(self, families: tuple[PieceFamily, ...], turned: bool) -> None:
        self.steps: list[Step] = []
        self.regions: list[Region] = []  # the steps of every call that was looked into
        self.on_path: set[int] = set()  # values that depend on x
        self.orders: dict[Operand, Order] = {}  # of values that are not stored as the network's
        self._moved: dict[tuple[Operand, Order], int] = {}
        self._families = families
        self._turned = turned
        self._zeros: set[int] = set()  # constants known to be zero everywhere
        self._count = 0

    def new(self, zero: bool = False) -> int:
        self._count += 1
        if zero:
            self._zeros.add(self._count)
        return self._count

    def inline(self, closed: Any, arguments: Sequence[Operand], scope: str) -> list[Operand]:
        jaxpr, constants = inside(closed), map(Constant, constants_of(closed))
        names: dict[Any, Operand] = dict(zip(jaxpr.constvars, constants, strict=True))
        names.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Operand:
            return Constant(atom.val) if isinstance(atom, jex.Literal) else names[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            here = join_scopes(scope, str(equation.source_info.name_stack))
            piece = self._find_piece(equation, operands)
            name = equation.primitive.name
            if piece is None and name in CALLS:
                start = len(self.steps)
                results = self.inline(called_jaxpr(equation), operands, here)
                self.regions.append(Region(called_name(equation), start, len(self.steps)))
            elif piece is None and name == "scan" and any(self._depends(operands)):
                results = self.inline(write_out(equation, here), operands, scope="")
            elif piece is None and name in IDENTITIES and any(self._depends(operands)):
                results = operands  # a constant among them stays one
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
        is_call = equation.primitive.name in CALLS
        is_zero = tuple(map(self._known_zero, operands))
        name = called_name(equation) if is_call else equation.primitive.name
        view = Equation(name, is_call, equation.params, depends, is_zero)
        found = (family.match(view) for family in self._families)
        return next((piece for piece in found if piece is not None), None)

    def _append(
        self, equation: Any, operands: list[Operand], scope: str, piece: Piece | None
    ) -> list[int]:
        arranged = as_it_is(equation)
        # A piece that somebody registered does not say what it would read.
        if self._turned and (piece is None or type(piece) in FAMILIES):
            arranged = arrange(equation, [*map(self.orders.get, operands, arranged.reads)])
        reads = zip(operands, equation.invars, arranged.reads, strict=True)
        operands = [self.in_order(equation, scope, *each) for each in reads]
        if not arranged.is_plain:
            equation = altered(equation, *arranged)
            if piece is not None and not isinstance(piece, Relu | Maximum):
                piece = self._find_piece(equation, operands)
        results = [self.new() for _ in equation.outvars]
        orders = zip(results, arranged.makes, strict=True)
        self.orders.update((name, order) for name, order in orders if order != plain(len(order)))
        self._add_step(equation, operands, results, scope, piece)
        return results

    def _add_step(
        self,
        equation: Any,
        operands: Sequence[Operand],
        results: Sequence[int],
        scope: str,
        piece: Piece | None = None,
    ) -> None:
        name, depends = equation.primitive.name, self._depends(operands)
        kind = "constant"
        if piece is not None:
            kind = "piece"
        elif any(depends):
            kind = "affine" if is_affine(equation, depends) else "nonaffine"
        elif name in KEEPS_ZERO:
            pairs = zip(operands, results, strict=True)
            self._zeros.update(result for operand, result in pairs if self._known_zero(operand))
        if kind != "constant":
            self.on_path.update(results)
        step = Step(kind, equation, tuple(operands), tuple(results), scope, depends, piece)
        self.steps.append(step)

    def in_order(
        self, near: Any, scope: str, operand: Operand, variable: Any, order: Order
    ) -> Operand:
        """The name of a value, like `variable` in the network, in an order; `near` reads it."""
        have = self.orders.get(operand, plain(len(order)))
        if have == order:
            return operand
        if (operand, order) not in self._moved:
            self._moved[operand, order] = name = self.new()
            self._add_step(transposition(near, variable, have, order), [operand], [name], scope)
        return self._moved[operand, order]

    def _known_zero(self, operand: Operand) -> bool:
        if isinstance(operand, Constant):
            return is_zero(operand.value)
        return operand in self._zeros
