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
from dmbp_jax.graph.steps import Step


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
        and not is_pointwise(step.shapes[1], step.params)
    )


def evaluate_affine(step: Step, operands: Sequence[Any]) -> list[Any]:
    """The results of a step that is not a piece.

    Args:
      step: affine, or a constant.
      operands: of a convolution that reads one, its adjoint kernel last.
    """
    if not is_convolution_of_path(step):
        return bind(step.equation, operands)
    x, kernel, *adjoint = operands
    if is_pointwise(kernel.shape, step.params):
        return [mix_features(x, kernel, step.params)]
    if adjoint:
        return [convolve(x, kernel, adjoint[0], step)]
    return [bind_convolution(step.equation, x, kernel)]
