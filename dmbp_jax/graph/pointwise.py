"""Pointwise functions in a program: steps that compute f(z) of one value become one piece.

A function of one value may be written in many operations (GELU, mish, a user's own). No list of
names is needed: every operation is elementwise, and all of it depends on one z.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from dmbp_jax.graph.operations import (
    AFFINE_POINTWISE,
    LOCALLY_CONSTANT,
    MOVES,
    PIECEWISE_LINEAR,
    POINTWISE,
    refusal,
    refusal_at_output,
)
from dmbp_jax.graph.pieces import Maximum, Node, Pointwise, Relu
from dmbp_jax.graph.program import Operand, Step

_TAKEN = {"relu", "maximum", "minimum", "max_pool", "min_pool", "bias"}  # kinds of other sites


class Region(NamedTuple):
    """The steps of a call: positions from `start` to before `stop`."""

    name: str
    start: int
    stop: int
    results: tuple[Operand, ...]


def join_pointwise(
    steps: Sequence[Step], regions: Sequence[Region], logits: Operand
) -> Sequence[Step]:
    """The same program with every pointwise function as one piece.

    Steps that are neither affine nor part of a piece stay of kind "nonaffine".
    """
    if all(step.kind != "nonaffine" and not _may_be_part(step) for step in steps):
        return steps
    return _Joiner(steps, regions, logits).joined()


def check_supported(steps: Sequence[Step], logits: Operand) -> None:
    """Refuse what is neither affine nor a piece, and a function of the logits.

    Raises:
      NonAffineError, ControlFlowError: there is such a step.
    """
    for step in steps:
        if step.kind == "nonaffine":
            raise refusal(step.name, step.scope)
    at_output = {logits}
    for step in reversed(steps):
        if not at_output.isdisjoint(step.results):
            if isinstance(step.piece, Pointwise) and not step.piece.exact:
                raise refusal_at_output(step.name, step.scope)
            if step.kind == "affine" and step.name in MOVES:
                at_output.update(step.operands)
        if isinstance(step.piece, Pointwise) and not jnp.issubdtype(step.dtype, jnp.floating):
            raise refusal(step.name, step.scope)


def _may_be_part(step: Step) -> bool:
    """A piece that is a part of a function only if all of it depends on one value: max(z, −z)."""
    return isinstance(step.piece, Maximum)


class _Joiner:
    """Finds the functions from the first step to the last; a later one may contain earlier ones."""

    def __init__(self, steps: Sequence[Step], regions: Sequence[Region], logits: Operand) -> None:
        self._steps = steps
        self._regions = regions
        self._logits = logits
        self._made_by = {step.results[0]: at for at, step in enumerate(steps) if _depends(step)}
        self._readers: dict[int, set[int]] = {}
        for position, step in enumerate(steps):
            for operand in step.operands:
                if isinstance(operand, int):
                    self._readers.setdefault(operand, set()).add(position)

    def joined(self) -> list[Step]:
        """The steps, functions joined."""
        calls = {region.stop - 1: region for region in self._regions if self._is_function(region)}
        replaced: dict[int, Step] = {}  # position of the last step of a function -> the piece
        members: set[int] = set()
        for position, step in enumerate(self._steps):
            seed = {position}
            if position in calls:
                seed = set(self._dependent(calls[position]))
            elif step.kind != "nonaffine" and not _may_be_part(step):
                continue
            found = self._find(seed)
            if found is not None:
                members |= found[0]
                replaced[position] = self._piece(position, *found)
        return self._without_unread(replaced, members)

    def _is_function(self, region: Region) -> bool:
        """Whether all of a call is elementwise, and not everything in it has its place already."""
        inside = self._dependent(region)
        return (
            bool(inside)
            and region.results == self._steps[region.stop - 1].results
            and inside[-1] == region.stop - 1
            and all(self._is_pointwise(position) for position in inside)
            and any(self._steps[position].kind == "nonaffine" for position in inside)
        )

    def _dependent(self, region: Region) -> list[int]:
        inside = range(region.start, region.stop)
        return [position for position in inside if _depends(self._steps[position])]

    def _find(self, members: set[int]) -> tuple[set[int], int] | None:
        """The steps of the largest function of one value that ends with these, and that value."""
        if not all(self._is_pointwise(position) for position in members):
            return None
        shape = self._steps[max(members)].shape
        best: tuple[set[int], int] | None = None
        members, pending = set(members), True  # something not affine was added since the best
        while True:
            inputs = self._inputs(members)
            if len(inputs) == 1:
                (source,) = inputs
                if pending and (best is None or self._is_closed(members - best[0], members)):
                    best, pending = (set(members), source), False
            position = max((self._made_by.get(value, -1) for value in inputs), default=-1)
            if position < 0 or not self._is_pointwise(position):
                return best
            step = self._steps[position]
            if step.shape != shape or (best and not self._is_closed({position}, members)):
                return best
            members.add(position)
            pending |= step.kind != "affine"

    def _inputs(self, members: set[int]) -> set[int]:
        """Values that depend on x, are read by these steps and made by others."""
        made = {result for position in members for result in self._steps[position].results}
        return {
            operand
            for position in members
            for operand, depends in zip(
                self._steps[position].operands, self._steps[position].depends, strict=True
            )
            if depends and isinstance(operand, int) and operand not in made
        }

    def _is_closed(self, added: Iterable[int], members: set[int]) -> bool:
        """Whether nobody else reads what these steps make."""
        results = [self._steps[position].results[0] for position in added]
        return self._logits not in results and all(
            self._readers.get(result, set()) <= members for result in results
        )

    def _is_pointwise(self, position: int) -> bool:
        """Whether a step is elementwise in what depends on x, and all of that has its shape."""
        step = self._steps[position]
        if step.name not in POINTWISE or not isinstance(step.piece, Relu | Maximum | None):
            return False
        read = zip(step.equation.invars, step.depends, strict=True)
        return all(variable.aval.shape == step.shape for variable, depends in read if depends)

    def _piece(self, position: int, members: set[int], source: int) -> Step:
        last = self._steps[position]
        inside = [self._steps[member] for member in sorted(members)]
        nodes = tuple(Node(s.equation, s.operands, s.depends, s.results[0]) for s in inside)
        piece = Pointwise(self._kind(members), _degree(inside, source) <= 1, nodes, source)
        return Step(
            kind="piece",
            equation=last.equation,
            operands=(source,),
            results=last.results,
            scope=last.scope,
            depends=(True,),
            piece=piece,
        )

    def _kind(self, members: set[int]) -> str:
        """The name of the outermost call that is this function, or of its only operation."""
        not_affine = {at for at in members if self._steps[at].kind != "affine"}
        names = [
            (region.stop - region.start, region.name)
            for region in self._regions
            if region.name.isidentifier() and not region.name.startswith(("_", "custom_"))
            if region.name not in _TAKEN
            if not_affine <= set(inside := self._dependent(region)) and set(inside) <= members
        ]
        if names:
            return max(names, key=lambda name: name[0])[1]
        if len(not_affine) == 1:
            return self._steps[not_affine.pop()].name
        return "pointwise"

    def _without_unread(self, replaced: dict[int, Step], members: set[int]) -> list[Step]:
        """The program without the steps that only functions contained."""
        kept: list[Step] = []
        read: set[Operand] = {self._logits}
        for position in reversed(range(len(self._steps))):
            step = replaced.get(position, self._steps[position])
            if position in members and read.isdisjoint(step.results):
                continue
            read.update(step.operands)
            kept.append(step)
        return kept[::-1]


def _depends(step: Step) -> bool:
    return step.kind != "constant"


def _degree(steps: Sequence[Step], source: int) -> int:
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
