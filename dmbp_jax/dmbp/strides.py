"""Strides that read positions unevenly, smoothed in the network of magnitudes.

A 1 x 1 kernel of stride 2 reads one position in four, a 3 x 3 kernel some of them four times and
others once. A map taken back through such layers draws that lattice, whatever the picture shows.
"""

import jax
import jax.numpy as jnp

from dmbp_jax.graph.steps import Step


def smooth_over_strides(step: Step, x: jax.Array, reads_pixels: bool) -> jax.Array:
    """The first operand of a strided step, averaged so that every position is read equally.

    Along an axis of stride s, x becomes Σ_d (s − |d|) / s² x[· + d], |d| < s: the mean over the s
    phases that the stride may have, taken to both sides. Where it reads evenly x stays as it is.
    A kernel narrower than its stride that reads pixels, before the first piece, also leaves x
    alone: a pixel that is never read has no part.
    """
    for axis, stride, taps, dilation in _windows(step):
        phases = [
            sum(tap * dilation % stride == phase for tap in range(taps)) for phase in range(stride)
        ]
        covers = not reads_pixels or (taps - 1) * dilation + 1 >= stride
        if len(set(phases)) > 1 and covers:
            x = _average(x, axis, stride)
    return x


def _windows(step: Step) -> list[tuple[int, int, int, int]]:
    """(Axis, stride, taps, their distance) of a convolution or a sum over windows."""
    params = step.params
    if step.name == "conv_general_dilated":
        numbers, kernel = params["dimension_numbers"], step.shapes[1]
        axes, taps = numbers.lhs_spec[2:], [kernel[axis] for axis in numbers.rhs_spec[2:]]
        dilations, zeros_between = params["rhs_dilation"], params["lhs_dilation"]
    elif step.name == "reduce_window_sum":
        axes, taps = range(len(params["window_dimensions"])), params["window_dimensions"]
        dilations, zeros_between = params["window_dilation"], params["base_dilation"]
    else:
        return []
    if any(factor > 1 for factor in zeros_between):
        return []
    return list(zip(axes, params["window_strides"], taps, dilations, strict=True))


def _average(x: jax.Array, axis: int, stride: int) -> jax.Array:
    """Σ_d (s − |d|) / s² x[· + d] along an axis, zeros outside."""
    reach, size = stride - 1, x.shape[axis]
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)])
    parts = [
        (stride - abs(shift))
        / stride**2
        * jax.lax.slice_in_dim(padded, reach + shift, reach + shift + size, axis=axis)
        for shift in range(-reach, reach + 1)
    ]
    return sum(parts[1:], start=parts[0])
