"""Max- and min-pooling with a frozen winner: linear once every window's winner is fixed.

The paper says nothing of pooling; with this rule its Eq. 4 stays true. Winners are small integers
(the offset inside the window), so that the frozen pool is a sum of selected strided slices: no
gather, no scatter, and its transpose is the exact adjoint. An ordinary pool is differentiated so
too: on a CPU XLA computes JAX's own derivative with four indices of every value and a scatter.

The smallest of a window is the largest of the negatives. The first of equal values wins, in
row-major order.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dmbp_jax.graph.convolution import window_views
from dmbp_jax.graph.pieces.protocol import Equation

_SIGNS = {"max_pool": 1, "min_pool": -1}  # of the values whose largest wins
_WINDOWS = {"reduce_window_max": "max_pool", "reduce_window_min": "min_pool"}
_AXES = {"reduce_max": "max_pool", "reduce_min": "min_pool"}


@dataclass(frozen=True)
class WindowPool:
    """`lax.reduce_window` with max or min: one winner per window."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    kind: str = "max_pool"
    masked: ClassVar[bool] = False
    has_intercept: ClassVar[bool] = False

    @staticmethod
    def match(equation: Equation) -> "WindowPool | None":
        """`lax.reduce_window` without dilation of its input."""
        params = equation.params
        if equation.is_call or equation.name not in _WINDOWS:
            return None
        if any(dilation != 1 for dilation in params["base_dilation"]):
            return None
        return WindowPool(
            tuple(params["window_dimensions"]),
            tuple(params["window_strides"]),
            tuple((int(low), int(high)) for low, high in params["padding"]),
            tuple(params["window_dilation"]),
            _WINDOWS[equation.name],
        )

    def __call__(self, z: jax.Array) -> jax.Array:
        """The ordinary pool."""
        return _pool(self, z)

    def reads_padding_alone(self, shape: tuple[int, ...]) -> bool:
        """Whether a window sees nothing of a value of this shape: its maximum is −∞."""
        axes = zip(shape, self.window, self.strides, self.padding, self.dilation, strict=True)
        return any(
            not any(low <= first + offset * step < low + length for offset in range(size))
            for length, size, stride, (low, high), step in axes
            for first in range(0, length + low + high - (size - 1) * step, stride)
        )

    def choose(self, z: jax.Array) -> jax.Array:
        """The winners: row-major offset in each window; shape of the pool's output."""
        dtype = jnp.uint8 if math.prod(self.window) <= 256 else jnp.int32
        best, *others = self._slices(_SIGNS[self.kind] * z, -jnp.inf)
        winner = jnp.zeros(best.shape, dtype)
        for offset, candidate in enumerate(others, start=1):
            wins = candidate > best
            winner = jnp.where(wins, dtype(offset), winner)
            best = jnp.where(wins, candidate, best)
        return winner

    def apply(self, choice: jax.Array, z: jax.Array) -> jax.Array:
        """The value at each window's recorded winner. Linear in `z`."""
        zero = jnp.zeros((), z.dtype)
        chosen = [
            jnp.where(choice == offset, value, zero)
            for offset, value in enumerate(self._slices(z, 0.0))
        ]
        return sum(chosen[1:], start=chosen[0])

    def _slices(self, z: jax.Array, fill: float) -> list[jax.Array]:
        """For each offset of the window, the strided view of `z` that it sees."""
        padded = lax.pad(
            z, jnp.asarray(fill, z.dtype), [(low, high, 0) for low, high in self.padding]
        )
        return window_views(padded, self.window, self.strides, self.dilation)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pool(pool: WindowPool, z: jax.Array) -> jax.Array:
    sign = _SIGNS[pool.kind]
    return lax.reduce_window(
        z,
        np.array(-sign * np.inf, z.dtype),
        lax.max if sign == 1 else lax.min,
        pool.window,
        pool.strides,
        pool.padding,
        window_dilation=pool.dilation,
    )


def _forward(pool: WindowPool, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _pool(pool, z), z


def _backward(pool: WindowPool, z: jax.Array, cotangent: jax.Array) -> tuple[Any]:
    # Winners are chosen anew: z is kept for the ReLU before it, and XLA fuses the comparisons.
    return tuple(jax.linear_transpose(partial(pool.apply, pool.choose(z)), z)(cotangent))


_pool.defvjp(_forward, _backward)


@dataclass(frozen=True)
class GlobalPool:
    """`jnp.max` and `jnp.min` over whole axes, a pool with one window."""

    axes: tuple[int, ...]
    kind: str = "max_pool"
    masked: ClassVar[bool] = False
    has_intercept: ClassVar[bool] = False

    @staticmethod
    def match(equation: Equation) -> "GlobalPool | None":
        """`lax.reduce_max`, `lax.reduce_min`."""
        if equation.is_call or equation.name not in _AXES:
            return None
        return GlobalPool(tuple(equation.params["axes"]), _AXES[equation.name])

    def __call__(self, z: jax.Array) -> jax.Array:
        """The ordinary maximum or minimum over `axes`."""
        return (jnp.max if self.kind == "max_pool" else jnp.min)(z, axis=self.axes)

    def choose(self, z: jax.Array) -> jax.Array:
        """The winner: row-major index over `axes`; shape of the maximum."""
        return jnp.argmax(_SIGNS[self.kind] * self._flatten(z), axis=-1).astype(jnp.int32)

    def apply(self, choice: jax.Array, z: jax.Array) -> jax.Array:
        """The value at the recorded winner. Linear in `z`."""
        flat = self._flatten(z)
        index = jax.lax.broadcasted_iota(jnp.int32, flat.shape, flat.ndim - 1)
        is_winner = index == choice[..., None]
        return jnp.where(is_winner, flat, jnp.zeros((), z.dtype)).sum(-1)

    def _flatten(self, z: jax.Array) -> jax.Array:
        kept = [axis for axis in range(z.ndim) if axis not in self.axes]
        return z.transpose(*kept, *self.axes).reshape(*(z.shape[axis] for axis in kept), -1)
