"""One affine step of a program: how it is evaluated, and which ones read an adjoint kernel."""

from collections.abc import Collection, Sequence
from typing import Any

from dmbp_jax.graph.convolution import (
    bind_convolution,
    convolve,
    has_plain_adjoint,
    is_pointwise,
    mix_features,
)
from dmbp_jax.graph.jaxprs import bind
from dmbp_jax.graph.program import Constant, Operand, Step


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
    elif is_convolution_of_path(step):
        results = [bind_convolution(step.equation, *operands)]
    else:
        results = bind(step.equation, operands)
    values.update(zip(step.results, results, strict=True))


def read(values: dict[int, Any], operand: Operand) -> Any:
    """The value of an operand."""
    return operand.value if isinstance(operand, Constant) else values[operand]
