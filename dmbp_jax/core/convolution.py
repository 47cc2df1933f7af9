"""Convolution whose input gradient is itself a plain convolution, with a kernel prepared once.

JAX's transpose of a convolution reads the same kernel flipped, with in and out features swapped.
Inside a loop XLA flips it again every step, and on CPU misses its fast kernels for that layout.
The adjoint kernel does not change while the masks are learned, so it is made outside the loop.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from jax import lax


def has_plain_adjoint(params: Mapping[str, Any]) -> bool:
    """Whether `adjoint_kernel` covers a `conv_general_dilated` with these parameters."""
    return params["feature_group_count"] == 1 and params["batch_group_count"] == 1


def adjoint_kernel(kernel: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """The kernel of the input gradient: flipped in space, (space..., out features, in features)."""
    out_features, in_features, *space = params["dimension_numbers"].rhs_spec
    flipped = lax.rev(kernel, space)
    return flipped.transpose(*space, out_features, in_features)


def convolve(x: jax.Array, kernel: jax.Array, adjoint: jax.Array, step: Any) -> jax.Array:
    """`step`'s convolution of x; its gradient to x uses `adjoint`. No gradient to the kernels.

    Args:
      x: the operand that depends on the image.
      kernel: as the network has it.
      adjoint: `adjoint_kernel(kernel, step.params)`.
      step: the equation, hashable by identity.
    """
    return _convolve(step, x, kernel, adjoint)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(step: Any, x: jax.Array, kernel: jax.Array, adjoint: jax.Array) -> jax.Array:
    return step.evaluate([x, kernel])[0]


def _forward(step: Any, x: jax.Array, kernel: jax.Array, adjoint: jax.Array) -> tuple:
    return _convolve(step, x, kernel, adjoint), (adjoint, x.shape)


def _backward(step: Any, residuals: tuple, cotangent: jax.Array) -> tuple:
    adjoint, shape = residuals
    return input_gradient(cotangent, adjoint, shape, step.params), None, None


_convolve.defvjp(_forward, _backward)


def input_gradient(
    cotangent: jax.Array, adjoint: jax.Array, shape: tuple[int, ...], params: Mapping[str, Any]
) -> jax.Array:
    """The gradient to an input of `shape`: a convolution of the cotangent with `adjoint`."""
    numbers = params["dimension_numbers"]
    rank = len(shape) - 2
    pads, strides = [], params["window_strides"]
    for axis in range(rank):
        reach = (adjoint.shape[axis] - 1) * params["rhs_dilation"][axis] + 1
        before = reach - 1 - params["padding"][axis][0]
        length = (shape[numbers.lhs_spec[2 + axis]] - 1) * params["lhs_dilation"][axis] + 1
        spread = (cotangent.shape[numbers.out_spec[2 + axis]] - 1) * strides[axis] + 1
        pads.append((before, length + reach - 1 - spread - before))
    convolution = partial(
        lax.conv_general_dilated,
        window_strides=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=lax.ConvDimensionNumbers(
            numbers.out_spec, (rank + 1, rank, *range(rank)), numbers.lhs_spec
        ),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    pointwise = all(size == 1 for size in adjoint.shape[:rank])
    if pointwise and any(stride > 1 for stride in strides):
        # Spread the result instead of the operand: fewer products, and a fast kernel.
        small = convolution(cotangent, adjoint, padding=[(0, 0)] * rank)
        config = [(0, 0, 0)] * len(shape)
        for axis, (low, high) in enumerate(pads):
            config[numbers.lhs_spec[2 + axis]] = (low, high, strides[axis] - 1)
        return lax.pad(small, small.dtype.type(0), config)
    return convolution(cotangent, adjoint, padding=pads, lhs_dilation=strides)
