"""Stretches: the affine steps between two pieces as one compiled function, shared by equal ones.

A deep network repeats its blocks. JAX keeps what it traced of a compiled function, and what `vmap`
and `vjp` made of it, so that equal stretches are traced once for all passes of every method.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import numpy as np

from dmbp_jax.graph.affine import evaluate_affine, is_convolution_of_path
from dmbp_jax.graph.jaxprs import user_code
from dmbp_jax.graph.program import Constant, Operand, Parts, Step, Stretch

Arrays = tuple[Any, ...]


class _Run(NamedTuple):
    """Affine steps, as in `Stretch`, the piece after them, and a key that equal ones share."""

    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    adjoints: tuple[int, ...]
    writes: tuple[int, ...]
    piece: tuple[Step, ...]
    key: Hashable  # or None


def divide(
    lists: Sequence[tuple[Sequence[Step], Collection[Operand]]], adjoints: Collection[int]
) -> list[Parts]:
    """Lists of steps of one program with stretches in the place of affine steps, in order.

    Equal stretches of all lists share a function. One that occurs once in the first list stays as
    it is: as a function it would take longer to trace.

    Args:
      lists: steps without constant ones, and the names of the values read after the last; all
        steps of the program first.
      adjoints: as in `Program`.
    """
    runs = [list(_runs(steps, needed, adjoints)) for steps, needed in lists]
    counts = Counter(run.key for run in runs[0] if run.key is not None)
    functions = {run.key: _function(run) for run in runs[0] if counts[run.key] > 1}

    def parts(run: _Run) -> Parts:
        if run.key not in functions:
            return (*run.steps, *run.piece)
        steps, reads, prepared, writes = run[:4]
        call = functions[run.key]
        return (Stretch(steps, reads, prepared, writes, _common_scope(steps), call), *run.piece)

    return [tuple(part for run in each for part in parts(run)) for each in runs]


def _runs(
    steps: Sequence[Step], needed: Collection[Operand], adjoints: Collection[int]
) -> Iterator[_Run]:
    """What lies between the pieces, empty runs too."""
    last_read = dict.fromkeys(needed, len(steps))
    for position, step in enumerate(steps):
        for operand in step.operands:
            last_read[operand] = max(position, last_read.get(operand, -1))
    start = 0
    pieces = [position for position, step in enumerate(steps) if step.piece is not None]
    for stop in [*pieces, len(steps)]:
        run = tuple(steps[start:stop])
        results = dict.fromkeys(name for step in run for name in step.results)
        operands = dict.fromkeys(name for step in run for name in step.operands)
        reads = tuple(o for o in operands if isinstance(o, int) and o not in results)
        prepared = tuple(name for name in results if name in adjoints)
        writes = tuple(name for name in results if last_read.get(name, -1) >= stop)
        key = _key(run, reads, prepared, writes)
        yield _Run(run, reads, prepared, writes, tuple(steps[stop : stop + 1]), key)
        start = stop + 1


def _common_scope(steps: Sequence[Step]) -> str:
    """The name scopes around all steps."""
    levels = zip(*(step.scope.split("/") for step in steps), strict=False)
    return "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))


def _key(
    steps: Sequence[Step],
    reads: Sequence[int],
    adjoints: Collection[int],
    writes: Sequence[int],
) -> Hashable:
    """Equal for runs that differ in names alone; None for those that are not worth a function."""
    if len(steps) < 2 and not any(map(is_convolution_of_path, steps)):
        return None
    results = (name for step in steps for name in step.results)
    local = {name: position for position, name in enumerate((*reads, *results))}

    def signature(step: Step) -> Hashable:
        operands = tuple(
            _literal(operand.value) if isinstance(operand, Constant) else local[operand]
            for operand in step.operands
        )
        shapes = tuple(
            (variable.aval.shape, variable.aval.dtype) for variable in step.equation.invars
        )
        parameters = tuple(sorted(step.params.items(), key=lambda item: item[0]))
        is_prepared = step.results[0] in adjoints
        return step.equation.primitive, parameters, operands, shapes, step.depends, is_prepared

    key = tuple(map(signature, steps)), tuple(map(local.get, writes))
    try:
        hash(key)
    except TypeError:  # a parameter of an equation cannot be compared
        return None
    return key


def _literal(value: Any) -> Hashable:
    """Equal for equal numbers of one type; an array is equal to itself alone."""
    if isinstance(value, jax.core.Tracer) or np.ndim(value):
        return id(value)
    array = np.asarray(value)
    return type(value), str(array.dtype), array.tobytes()


def _function(run: _Run) -> Callable[[Arrays, Arrays], Arrays]:
    @jax.jit
    def stretch(read_values: Arrays, kernels: Arrays) -> Arrays:
        values = dict(zip(run.reads, read_values, strict=True))
        prepared = dict(zip(run.adjoints, kernels, strict=True))
        for step in run.steps:
            with user_code(step.equation, ""):  # a scope would be that of the first of equal ones
                evaluate_affine(step, values, prepared)
        return tuple(values[name] for name in run.writes)

    return stretch
