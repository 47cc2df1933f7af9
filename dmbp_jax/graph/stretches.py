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

from dmbp_jax.graph.convolution import convolve, has_plain_adjoint, is_pointwise, mix_features
from dmbp_jax.graph.jaxprs import bind, user_code
from dmbp_jax.graph.program import Constant, Operand, Parts, Step, Stretch

Arrays = tuple[Any, ...]


class Stretches:
    """Divides lists of steps of one program; equal stretches of all lists share a function.

    A stretch that occurs once stays as it is: as a function it would take longer to trace.

    Args:
      whole: all steps that depend on x.
      logits: what they make.
      adjoints: as in `Program`.
    """

    def __init__(self, whole: Sequence[Step], logits: Operand, adjoints: Collection[int]):
        self._adjoints = adjoints
        counts = Counter(run.key for run in self._runs(whole, {logits}))
        self._repeated = {key for key, count in counts.items() if key is not None and count > 1}
        self._calls: dict[Hashable, Callable[[Arrays, Arrays], Arrays]] = {}

    def divide(self, steps: Sequence[Step], needed: Collection[Operand]) -> Parts:
        """The same steps in the same order, with stretches in the place of affine ones.

        Args:
          steps: no constant ones.
          needed: names of the values that are read after the last step.
        """
        parts: list[Step | Stretch] = []
        for run in self._runs(steps, needed):
            if run.key in self._repeated:
                parts.append(self._stretch(run))
            else:
                parts += run.steps
            parts += run.piece
        return tuple(parts)

    def _runs(self, steps: Sequence[Step], needed: Collection[Operand]) -> Iterator["_Run"]:
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
            adjoints = tuple(name for name in results if name in self._adjoints)
            writes = tuple(name for name in results if last_read.get(name, -1) >= stop)
            key = _key(run, reads, adjoints, writes)
            yield _Run(run, reads, adjoints, writes, tuple(steps[stop : stop + 1]), key)
            start = stop + 1

    def _stretch(self, run: "_Run") -> Stretch:
        steps, reads, adjoints, writes = run[:4]
        if run.key not in self._calls:
            self._calls[run.key] = _function(steps, reads, adjoints, writes)
        levels = zip(*(step.scope.split("/") for step in steps), strict=False)
        common = takewhile(lambda names: len(set(names)) == 1, levels)
        scope = "/".join(names[0] for names in common)
        return Stretch(steps, reads, adjoints, writes, scope, self._calls[run.key])


class _Run(NamedTuple):
    """Affine steps, as in `Stretch`, the piece after them, and a key that equal ones share."""

    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    adjoints: tuple[int, ...]
    writes: tuple[int, ...]
    piece: tuple[Step, ...]
    key: Hashable  # or None


def is_convolution_of_path(step: Step) -> bool:
    """A convolution of a value that depends on x with a kernel that does not."""
    return step.name == "conv_general_dilated" and step.depends == (True, False)


def find_adjoints(steps: Sequence[Step], inputs: Collection[int]) -> frozenset[int]:
    """Convolutions with a kernel of the parameters whose input gradient reads an adjoint kernel.

    Args:
      steps: of a program.
      inputs: names of the network's arrays and constants.
    """
    known = {*inputs, *(name for s in steps if s.kind == "constant" for name in s.results)}
    return frozenset(
        step.results[0]
        for step in steps
        if is_convolution_of_path(step)
        and step.operands[1] in known  # and is not a factor that is frozen
        and has_plain_adjoint(step.params)
        and not is_pointwise(step.equation.invars[1].aval.shape, step.params)
    )


def evaluate_affine(step: Step, values: dict[int, Any], adjoints: dict[int, Any]) -> None:
    """One step that is not a piece: its results are added to `values`.

    Args:
      step: affine, or a constant.
      values: by name, what it reads among them.
      adjoints: kernels by the name of the convolution that reads them.
    """
    operands = [read(values, operand) for operand in step.operands]
    if is_convolution_of_path(step) and is_pointwise(operands[1].shape, step.params):
        x, kernel = operands
        results = [mix_features(x, kernel, step.params)]
    elif step.results[0] in adjoints:
        x, kernel = operands
        results = [convolve(x, kernel, adjoints[step.results[0]], step)]
    else:
        results = bind(step.equation, operands)
    values.update(zip(step.results, results, strict=True))


def read(values: dict[int, Any], operand: Operand) -> Any:
    """The value of an operand."""
    return operand.value if isinstance(operand, Constant) else values[operand]


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


def _function(
    steps: tuple[Step, ...], reads: tuple[int, ...], adjoints: tuple[int, ...], writes: Arrays
) -> Callable[[Arrays, Arrays], Arrays]:
    @jax.jit
    def stretch(read_values: Arrays, kernels: Arrays) -> Arrays:
        values = dict(zip(reads, read_values, strict=True))
        prepared = dict(zip(adjoints, kernels, strict=True))
        for step in steps:
            with user_code(step.equation, ""):  # a scope would be that of the first of equal ones
                evaluate_affine(step, values, prepared)
        return tuple(values[name] for name in writes)

    return stretch
