"""Pointwise functions in a program: steps that compute f(z) of one value become one piece.

A function of one value may be written in many operations (GELU, mish, a user's own). No list of
names is needed: every operation is elementwise, and all of it depends on one z. How it is written
does not matter:

* A function goes as far as it can, over two activations in a row, a ReLU in it or at its end
  (`max(min(z, 6), 0)`), and what is done to its value by numbers (`exp(…) − 1`).
* It starts at its first operation that is not affine. What scales and shifts z before that is a
  layer, and so is an operation with an array of constants, such as a BatchNorm: none is part of it
  unless it holds several values of z together (`max(z, a ⊙ z)`).
* A function that is the ReLU is the ReLU, which takes nothing before or after it in.
* One that returns every finite z as it is (`nan_to_num`) is no function at all.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dmbp_jax.graph.operations import (
    AFFINE_POINTWISE,
    KEEPS_ZERO,
    LOCALLY_CONSTANT,
    PIECEWISE_LINEAR,
    POINTWISE,
    rounds,
)
from dmbp_jax.graph.pieces import Maximum, Piece, Pointwise, Relu
from dmbp_jax.graph.probing import Probed, probe
from dmbp_jax.graph.steps import Operand, Step, needed_for

_TAKEN = {"relu", "maximum", "minimum", "max_pool", "min_pool", "bias"}  # kinds of other sites


class Region(NamedTuple):
    """The steps of a call: positions from `start` to before `stop`."""

    name: str
    start: int
    stop: int


def join_pointwise(
    steps: Sequence[Step], regions: Sequence[Region], logits: Operand
) -> tuple[Sequence[Step], Operand]:
    """The same program with every pointwise function as one piece, and its logits.

    Steps that are neither affine nor part of a piece stay of kind "nonaffine".
    """
    return _Joiner(steps, regions, logits).joined()


class _Function(NamedTuple):
    """A function of one value: its steps, and the name of the value."""

    members: frozenset[Step]
    source: int


class _Joiner:
    """Finds the functions from the first step to the last; a later one may contain earlier ones.

    Names of values follow the order of the steps that make them.
    """

    def __init__(self, steps: Sequence[Step], regions: Sequence[Region], logits: Operand) -> None:
        self._steps = steps
        self._regions = regions
        self._logits = logits
        self._constants = [step for step in steps if step.kind == "constant"]
        self._made_by: dict[Operand, Step] = {r: step for step in steps for r in step.results}
        self._readers: dict[Operand, set[Step]] = {}
        for step in steps:
            for operand in step.operands:
                self._readers.setdefault(operand, set()).add(step)
        self._found: dict[Step, _Function] = {}  # by the last step
        self._relus: dict[Step, frozenset[Step]] = {}  # the steps of those that are the ReLU

    def joined(self) -> tuple[Sequence[Step], Operand]:
        """The steps, functions joined, and the name of the logits."""
        for step in self._steps:
            if step.kind == "constant" or not _is_pointwise(step):
                continue
            is_scaling = step.kind == "affine" and not _joins(step)
            found = self._continued(step) if is_scaling else self._find(step)
            if found is not None:
                self._found[step] = found
        return self._replaced() if self._found else (self._steps, self._logits)

    def _continued(self, step: Step) -> _Function | None:
        """The function whose value this step scales or shifts by a number, with the step."""
        before = self._made_by.get(step.dependent[0])
        if before not in self._found or before in self._relus or self._is_layer(step):
            return None
        found = self._found[before]
        shorter = self._probed(found)
        if not self._is_closed({before}, {step}) or (shorter and shorter.is_identity):
            return None
        longer = _Function(found.members | {step}, found.source)
        probed = self._probed(longer)
        if probed and probed.is_relu:  # as (z + |z|) / 2
            self._relus[step] = longer.members
        is_ray = probed is not None and probed.is_ray
        return None if shorter and shorter.is_ray and not is_ray else longer

    def _find(self, last: Step) -> _Function | None:
        """The largest function of one value that ends with a step."""
        may_repeat = last.kind == "nonaffine" or isinstance(last.piece, Maximum)
        best: _Function | None = None
        members, pending = {last}, last.kind != "affine"  # not affine: added since the best
        while True:
            made = {name for step in members for name in step.results}
            inputs = {name for step in members for name in step.dependent} - made
            if len(inputs) == 1 and pending and self._is_function(members):
                added = members - best.members if best else members - {last}
                if (best is None and may_repeat) or self._is_closed(added, members):
                    best, pending = _Function(frozenset(members), *inputs), False
                    if (probed := self._probed(best)) and probed.is_relu:
                        self._relus[last] = best.members
            step = self._made_by.get(max(inputs, default=0))
            if step is None or not _is_pointwise(step):
                return best
            if step.shape != last.shape or (best and not self._is_closed({step}, members)):
                return best
            if len(inputs) == 1 and step.kind == "affine" and self._is_layer(step):
                return best
            members.add(step)
            pending |= step.kind != "affine"

    def _is_function(self, members: set[Step]) -> bool:
        """Whether steps are more than ReLUs and affine operations, one after the other."""
        relus = [inside for last, inside in self._relus.items() if last in members]
        others = members.difference(*relus)
        if any(step.kind == "nonaffine" or isinstance(step.piece, Maximum) for step in others):
            return True
        return any(map(_joins, others)) and (
            bool(relus) or any(step.piece is not None for step in others)
        )

    def _is_layer(self, step: Step) -> bool:
        """Whether an affine step scales or shifts by an array, not a number, or casts."""
        if step.name == "convert_element_type":
            return step.dtype != step.equation.invars[0].aval.dtype
        each = zip(step.operands, step.shapes, step.depends, strict=True)
        return not all(depends or self._is_number(one, shape) for one, shape, depends in each)

    def _is_number(self, operand: Operand, shape: tuple[int, ...]) -> bool:
        """Whether a constant is one number, if of this shape."""
        step = self._made_by.get(operand)
        if shape == () or step is None:
            return shape == ()
        is_moved = step.name in KEEPS_ZERO | AFFINE_POINTWISE
        return is_moved and all(map(self._is_number, step.operands, step.shapes))

    def _is_closed(self, added: Collection[Step], members: Collection[Step]) -> bool:
        """Whether nobody else reads what these steps make."""
        results = [step.results[0] for step in added]
        return self._logits not in results and all(
            self._readers.get(result, set()).issubset(members) for result in results
        )

    def _piece(self, last: Step, found: _Function) -> Step:
        inside = _in_order(found)
        nodes = tuple(replace(step, scope="") for step in inside)
        is_exact = degree(inside, found.source) <= 1
        piece: Piece = Pointwise(self._kind(found.members), is_exact, nodes, found.source)
        if self._relus.get(last) == found.members:
            piece = Relu()
        return replace(last, kind="piece", operands=(found.source,), depends=(True,), piece=piece)

    def _probed(self, found: _Function) -> Probed | None:
        """As `probe`, of a piecewise-linear function with constants that are known."""
        steps = _in_order(found)
        if degree(steps, found.source) > 1:
            return None
        needed = {operand for step in steps for operand in step.operands}
        return probe([*needed_for(needed, self._constants), *steps], found.source)

    def _kind(self, members: Collection[Step]) -> str:
        """The name of the outermost call that is this function, or of its only operation."""
        not_affine = _not_affine(members)
        names = [
            (region.stop - region.start, region.name)
            for region in self._regions
            if region.name.isidentifier() and not region.name.startswith(("_", "custom_"))
            if region.name not in _TAKEN
            if not_affine == _not_affine(self._steps[region.start : region.stop])
        ]
        if names:
            return max(names, key=lambda name: name[0])[1]
        return not_affine.pop().name if len(not_affine) == 1 else "pointwise"

    def _replaced(self) -> tuple[list[Step], Operand]:
        """The program with a piece at the last step of every function, and its logits.

        What only functions read is left in it: nothing leads from there to the logits.
        """
        same: dict[Operand, Operand] = {}  # what a function returns as it is -> its source
        for last, found in self._found.items():
            if (probed := self._probed(found)) and probed.is_identity:
                same[last.results[0]] = same.get(found.source, found.source)

        def replaced(step: Step) -> Step:
            if step in self._found:
                step = self._piece(step, self._found[step])
            return replace(step, operands=tuple(same.get(one, one) for one in step.operands))

        return [replaced(step) for step in self._steps], same.get(self._logits, self._logits)


def _in_order(found: _Function) -> list[Step]:
    return sorted(found.members, key=lambda step: step.results)


def _not_affine(steps: Iterable[Step]) -> set[Step]:
    return {step for step in steps if step.kind in ("nonaffine", "piece")}


def _is_pointwise(step: Step) -> bool:
    """Whether a step is elementwise in what depends on x, and all of that has its shape."""
    if step.name not in POINTWISE or rounds(step.equation):
        return False
    if not isinstance(step.piece, Relu | Maximum | None):
        return False
    read = zip(step.shapes, step.depends, strict=True)
    return all(shape == step.shape for shape, depends in read if depends)


def _joins(step: Step) -> bool:
    """Whether an affine step brings two values together."""
    return step.kind == "affine" and len(set(step.dependent)) > 1


def degree(steps: Sequence[Step], source: int) -> int:
    """0: piecewise constant in the source; 1: piecewise linear; 2: anything else."""
    degrees: dict[Any, int] = {source: 1}
    for step in steps:
        read = [degrees.get(operand, 0) for operand in step.operands]
        if step.name in LOCALLY_CONSTANT or not any(read):
            degree = 0
        elif step.name == "mul":
            degree = min(2, sum(read))
        elif step.name == "div":
            degree = 2 if read[1] else read[0]
        else:
            degree = max(read) if step.name in AFFINE_POINTWISE | PIECEWISE_LINEAR else 2
        degrees[step.results[0]] = degree
    return degrees[steps[-1].results[0]]
