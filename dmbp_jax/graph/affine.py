"""One affine step of a program: how it is evaluated, and which ones read an adjoint kernel."""

from collections.abc import Sequence
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


def reads_adjoint(step: Step) -> bool:
    """Whether the input gradient of a step reads an adjoint kernel, if its kernel is at hand."""
    return (
        is_convolution_of_path(step)
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
