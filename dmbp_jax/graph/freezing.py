"""Gates in a program: where two values that depend on x are multiplied, one is a constant at x.

The paper freezes the gates of ReLUs. A factor that is a nonlinear function of x (normalisation
statistics, attention weights, squeeze-and-excite and GLU gates) is a gate too (ours).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dmbp_jax.graph.operations import (
    AFFINE_POINTWISE,
    BILINEAR,
    PRODUCTS,
    WIDENS,
    is_affine,
    refusal,
    refusal_of_product,
)
from dmbp_jax.graph.pieces import FrozenFactor, Pointwise
from dmbp_jax.graph.steps import Operand, Step, needed_for


def freeze_factors(steps: Sequence[Step], logits: Operand) -> Sequence[Step]:
    """The same program with the gate of every product as a piece of its own.

    Of the two factors of a product the gate is the one whose way from their last common ancestor
    passes a nonlinear function: a piece, or an operation that is not affine in any of its operands.
    A denominator always is one. A way leaves earlier products by their value; if neither way passes
    a function, those through earlier gates count too. What only gates read is evaluated inside
    them, and is no step of the program any more. What is left and not affine is refused.
    """
    if all(step.kind != "nonaffine" for step in steps):
        return steps
    return _Freezer(steps, logits).frozen()


class _Freezer:
    """Walks back from the logits, leaves every product by its value, and freezes its gate."""

    def __init__(self, steps: Sequence[Step], logits: Operand) -> None:
        self._steps = steps
        self._dependent = [step for step in steps if step.kind != "constant"]
        self._made_by = {result: step for step in self._dependent for result in step.results}
        # Sets of positions, one bit each: all that a value depends on, and its way from x, which
        # leaves every product by its value.
        self._ancestors: dict[int, int] = {}
        self._ways: dict[int, int] = {}
        self._nonlinear = 0
        self._gates: dict[Step, int] = {}  # of every product, which factor is the gate
        for position, step in enumerate(steps):
            self._visit(position, step)
        self._path = self._walk(logits)
        self._constants: dict[int, int] = {}  # value -> name of it as a constant at x
        names = itertools.chain(*(step.results for step in steps))
        self._names = itertools.count(1 + max(names))

    def _visit(self, position: int, step: Step) -> None:
        ancestors = way = 1 << position
        if step.kind == "piece" or (step.kind == "nonaffine" and step.name not in BILINEAR):
            self._nonlinear |= 1 << position
        read = step.dependent
        for value in read:
            ancestors |= self._ancestors.get(value, 0)
            way |= self._ways.get(value, 0)
        if step.kind == "nonaffine" and step.name in PRODUCTS and len(read) == 2:
            is_gate = self._are_gates(step.name, *read)
            if is_gate[0] != is_gate[1]:
                self._gates[step] = is_gate.index(True)
                way = self._ways.get(read[is_gate.index(False)], 0)
        self._ancestors.update(dict.fromkeys(step.results, ancestors))
        self._ways.update(dict.fromkeys(step.results, way))

    def _are_gates(self, name: str, left: int, right: int) -> tuple[bool, bool]:
        """Which factors came through a nonlinear function since their last common ancestor.

        Along their ways; if neither did, along all that they depend on.
        """
        before = [self._ancestors.get(value, 0) for value in (left, right)]
        for passed in (self._ways, self._ancestors):
            ways = [passed.get(value, 0) for value in (left, right)]
            is_gate = (
                bool(ways[0] & ~before[1] & self._nonlinear),
                bool(ways[1] & ~before[0] & self._nonlinear) or name == "div",
            )
            if any(is_gate):
                break
        return is_gate

    def frozen(self) -> list[Step]:
        """The steps from x to the logits, with their gates."""
        made: list[Step] = []
        for step in self._steps:
            on_path = not self._path.isdisjoint(step.results)
            if on_path and step in self._gates:
                step = self._freeze(step, self._gates[step], made)
            if step.kind == "constant" or on_path:
                made.append(step)
        return made

    def _walk(self, logits: Operand) -> set[Operand]:
        """The values on the way from x to the logits: gates are beside it."""
        path: set[Operand] = {logits}
        for step in reversed(self._steps):
            if path.isdisjoint(step.results):
                continue
            if step.kind == "nonaffine":
                self._check(step)
                path.add(step.operands[1 - self._gates[step]])
            else:
                path.update(step.dependent)
        return path

    def _check(self, step: Step) -> None:
        """Refuse a step of the path that is no product with one gate."""
        if step.name not in PRODUCTS or step.depends != (True, True):
            raise refusal(step.name, step.scope)
        gate = self._gates.get(step)
        if gate is None:
            both = any(self._are_gates(step.name, *step.dependent))
            raise refusal_of_product(step.name, step.scope, both)
        is_made = step.operands[gate] in self._made_by  # and is not x itself
        if not is_made or not is_affine(step.equation, (gate == 1, gate == 0)):
            raise refusal(step.name, step.scope)

    def _freeze(self, step: Step, gate: int, made: list[Step]) -> Step:
        """The product as an affine step of its value; what it needs is appended to `made`."""
        operands = list(step.operands)
        operands[gate] = self._constant(operands[gate], made)
        depends = (gate == 1, gate == 0)
        return replace(step, kind="affine", operands=tuple(operands), depends=depends)

    def _constant(self, value: Any, made: list[Step]) -> int:
        """The name of a value as a constant at x."""
        if value not in self._constants:
            name = next(self._names)
            if (widening := self._widening(value)) is None:
                made.append(self._factor(value, name))
            else:
                at = widening.depends.index(True)
                operands = list(widening.operands)
                operands[at] = self._constant(operands[at], made)
                made.append(replace(widening, operands=tuple(operands), results=(name,)))
            self._constants[value] = name
        return self._constants[value]

    def _widening(self, value: int) -> Step | None:
        """The last of the steps that only scale and broadcast a smaller value to this one.

        A factor is kept where it is smallest, since every pass of the loop reads it.
        """
        last = self._made_by[value]
        while value not in self._path:
            step = self._made_by[value]
            if step.kind != "affine" or step.name not in WIDENS or sum(step.depends) != 1:
                return None
            read = step.equation.invars[step.depends.index(True)].aval
            if math.prod(read.shape) < math.prod(last.shape):
                return last
            (value,) = step.dependent
        return None

    def _factor(self, value: int, name: int) -> Step:
        """A value that is frozen, as a piece, with the steps that it alone needs."""
        branch = needed_for([value], self._dependent, self._path)
        read = {value, *(operand for step in branch for operand in step.dependent)}
        sources = tuple(sorted(read & self._path))
        inside = [s.piece.nodes if isinstance(s.piece, Pointwise) else (s,) for s in branch]
        nodes = tuple(replace(node, scope="") for node in itertools.chain(*inside))
        origin, made_by = self._origin(value), self._made_by[value]
        outvar = made_by.equation.outvars[made_by.results.index(value)]
        return Step(
            kind="piece",
            equation=made_by.equation.replace(outvars=[outvar]),
            operands=sources,
            results=(name,),
            scope=origin.scope,
            depends=(True,) * len(sources),
            piece=FrozenFactor(self._name(origin), nodes, sources, value),
        )

    def _origin(self, value: int) -> Step:
        """The last step before a value that does more than scale and move one value."""
        step = self._made_by[value]
        while step.piece is None and (step.kind == "affine" or step.name in AFFINE_POINTWISE):
            if sum(step.depends) != 1 or (read := step.dependent[0]) in self._path:
                break
            step = self._made_by[read]
        return step

    def _name(self, step: Step) -> str:
        """What a factor is called: the function or the last operation that makes it."""
        if step.name == "div" and all(step.depends):
            numerator = self._made_by.get(step.dependent[0])
            if numerator is not None and numerator.name == "exp":
                return "softmax"
        if step.kind == "affine":
            return "denominator"  # an affine factor is a gate nowhere else
        if step.piece is None:
            return step.name
        if not isinstance(step.piece, Pointwise) or step.piece.kind != "pointwise":
            return step.piece.kind
        return step.piece.operation
