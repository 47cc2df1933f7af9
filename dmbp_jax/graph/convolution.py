"""Convolutions in the form in which XLA runs them fastest: how a graph evaluates its linear layers.

A 1 x 1 convolution is a matrix product, and is written as one. Any other reads a kernel prepared
for its input gradient: JAX's transpose of a convolution reads the same kernel flipped, with in and
out features swapped. Inside a loop XLA flips it again every step, and its fast kernels on a CPU are
there for channels last and a kernel that is read as it lies: any other layout takes several times
as long. The adjoint kernel does not change while the masks are learned.

`lax.optimization_barrier` is for GPUs; XLA takes it away again on CPU before it fuses anything.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from dmbp_jax.graph.jaxprs import bind
from dmbp_jax.graph.steps import Step


def evaluate_affine(step: Step, operands: Sequence[Any]) -> list[Any]:
    """The results of a step that is not a piece; an adjoint kernel is the last of its operands."""
    if not is_convolution_of_path(step):
        return bind(step.equation, operands)
    x, kernel, *adjoint = operands
    if _is_pointwise(kernel.shape, step.params):
        return [_mix_features(x, kernel, step.params)]
    if adjoint:
        return [_convolve(step, x, kernel, adjoint[0])]
    return [bind_convolution(step.equation, x, kernel)]


def reads_adjoint(step: Step) -> bool:
    """Whether the input gradient of a step reads an adjoint kernel, if its kernel is at hand."""
    return (
        is_convolution_of_path(step)
        and _has_plain_adjoint(step.params)
        and not _is_pointwise(step.shapes[1], step.params)
    )


def is_convolution_of_path(step: Step) -> bool:
    """A convolution of a value that depends on x with a kernel that does not."""
    return step.name == "conv_general_dilated" and step.depends == (True, False)


def _is_pointwise(kernel_shape: tuple[int, ...], params: Mapping[str, Any]) -> bool:
    """Whether a convolution mixes features and nothing else, features last."""
    numbers = params["dimension_numbers"]
    last = (0, len(kernel_shape) - 1, *range(1, len(kernel_shape) - 1))
    return (
        _has_plain_adjoint(params)
        and all(kernel_shape[axis] == 1 for axis in numbers.rhs_spec[2:])
        and all(low == high == 0 for low, high in params["padding"])
        and all(factor == 1 for factor in params["lhs_dilation"])
        and tuple(numbers.lhs_spec) == tuple(numbers.out_spec) == last
    )


def _mix_features(x: jax.Array, kernel: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """A pointwise convolution as a matrix product of every position it reads."""
    out_features, in_features, *space = params["dimension_numbers"].rhs_spec
    matrix = lax.squeeze(kernel, space)
    read = lax.slice(x, (0,) * x.ndim, x.shape, (1, *params["window_strides"], 1))
    if _is_strided(params):
        # XLA's default flags refuse a product that a strided slice was fused into.
        read = lax.optimization_barrier(read)
    product = lax.dot_general(
        read,
        matrix,
        (((x.ndim - 1,), (0 if in_features < out_features else 1,)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    # Or a residual is fused into the product, and copied first to where the product adds to it.
    return lax.optimization_barrier(product)


def _is_strided(params: Mapping[str, Any]) -> bool:
    return any(stride > 1 for stride in params["window_strides"])


def bind_convolution(equation: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of an equation; depthwise on a CPU a sum (`_depthwise`)."""

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return bind(equation, [x, kernel])[0]

    if not _is_depthwise(x, kernel, equation.params):
        return plain(x, kernel)
    shifted = partial(_depthwise, params=equation.params)
    return lax.platform_dependent(x, kernel, cpu=shifted, default=plain)


_MOST_TAPS = 25  # of a window: every one is an operation to trace and to compile


def _is_depthwise(x: jax.Array, kernel: jax.Array, params: Mapping[str, Any]) -> bool:
    """Whether each feature is convolved with its own small window, features last."""
    numbers, last = params["dimension_numbers"], (0, x.ndim - 1, *range(1, x.ndim - 1))
    groups = params["feature_group_count"]
    return (
        groups == x.shape[-1] == kernel.shape[-1] > 1
        and tuple(numbers.lhs_spec) == tuple(numbers.out_spec) == last
        and tuple(numbers.rhs_spec) == (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
        and math.prod(kernel.shape[:-2]) <= _MOST_TAPS
        and all(factor == 1 for factor in params["lhs_dilation"])
        and x.dtype == kernel.dtype
        and x.dtype.itemsize >= 4  # others are summed in float32
        and params["preferred_element_type"] in (None, x.dtype)
    )


def _depthwise(x: jax.Array, kernel: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """A sum of shifted images times weights: XLA's own kernel on a CPU takes 40 times as long."""
    pads = [(0, 0, 0), *((low, high, 0) for low, high in params["padding"]), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), pads)
    strides, dilation = ((1, *params[key], 1) for key in ("window_strides", "rhs_dilation"))
    views = window_views(padded, (1, *kernel.shape[:-2], 1), strides, dilation)
    weights = kernel.reshape(-1, kernel.shape[-1])
    parts = [view * weights[offset] for offset, view in enumerate(views)]
    return sum(parts[1:], start=parts[0])


def window_views(
    x: jax.Array, sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[jax.Array]:
    """For each offset in a window, in row-major order, the strided view of x that it sees."""
    axes = list(zip(x.shape, sizes, strides, dilation, strict=True))
    counts = [(length - (size - 1) * step - 1) // stride for length, size, stride, step in axes]
    views = []
    for offsets in itertools.product(*map(range, sizes)):
        start = [offset * step for offset, step in zip(offsets, dilation, strict=True)]
        stop = [a + n * s + 1 for a, n, s in zip(start, counts, strides, strict=True)]
        views.append(lax.slice(x, start, stop, strides))
    return views


def _has_plain_adjoint(params: Mapping[str, Any]) -> bool:
    """Whether `adjoint_kernel` covers a `conv_general_dilated` with these parameters."""
    return params["feature_group_count"] == 1 and params["batch_group_count"] == 1


def adjoint_kernel(kernel: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """The kernel of the input gradient: flipped in space, (space..., out features, in features)."""
    out_features, in_features, *space = params["dimension_numbers"].rhs_spec
    flipped = lax.rev(kernel, space)
    return flipped.transpose(*space, out_features, in_features)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(step: Step, x: jax.Array, kernel: jax.Array, adjoint: jax.Array) -> jax.Array:
    """A convolution of x whose gradient to x uses `adjoint_kernel(kernel, step.params)`."""
    return bind_convolution(step.equation, x, kernel)


def _forward(step: Step, *operands: Any) -> tuple:
    x, kernel, adjoint = (operand.value for operand in operands)
    # Only who differentiates to the parameters needs the kernel: none of it is traced otherwise.
    # Without elements, not None: JAX may take the tree of another call's residuals for this one's.
    differentiated = kernel if operands[1].perturbed else jnp.zeros(0, kernel.dtype)
    strided = kernel if _is_strided(step.params) else None
    return _convolve(step, x, kernel, adjoint), (x, differentiated, strided, adjoint)


def _backward(step: Step, residuals: tuple, cotangent: Any) -> tuple:
    x, differentiated, strided, adjoint = residuals
    if isinstance(cotangent, SymbolicZero):
        return None, None, None
    to_kernel = None
    if differentiated.size:
        _, pull_back = jax.vjp(lambda kernel: bind(step.equation, [x, kernel])[0], differentiated)
        (to_kernel,) = pull_back(cotangent)

    def prepared(cotangent: jax.Array, adjoint: jax.Array, _: jax.Array | None) -> jax.Array:
        # A kernel in bfloat16 may have cotangents in float32 (`preferred_element_type`).
        kernel = adjoint.astype(cotangent.dtype)
        return input_gradient(cotangent, kernel, x.shape, step.params).astype(x.dtype)

    def transposed(cotangent: jax.Array, adjoint: jax.Array, kernel: jax.Array) -> jax.Array:
        convolution = jax.linear_transpose(lambda x: bind(step.equation, [x, kernel])[0], x)
        return convolution(cotangent)[0]

    if strided is None:
        return prepared(cotangent, adjoint, None), to_kernel, None
    # GPUs have a kernel for JAX's transpose; the zeros between the cotangents cost them 4 x FLOPs.
    to_x = lax.platform_dependent(cotangent, adjoint, strided, cpu=prepared, default=transposed)
    return to_x, to_kernel, None


_convolve.defvjp(_forward, _backward, symbolic_zeros=True)


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
    return lax.conv_general_dilated(
        cotangent,
        adjoint,
        window_strides=params["lhs_dilation"],
        padding=pads,
        lhs_dilation=strides,
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=lax.ConvDimensionNumbers(
            numbers.out_spec, (rank + 1, rank, *range(rank)), numbers.lhs_spec
        ),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
