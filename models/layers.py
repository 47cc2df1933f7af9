"""The layers that ResNet and VGG share: a named ReLU, PyTorch's max-pool, adaptive averaging.

Shapes are NHWC and static, so what PyTorch decides at run time is plain Python here.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import InputError


def relu(x: jax.Array, name: str) -> jax.Array:
    """ReLU in a name scope of its own, so that its site in the jaxpr carries `name`."""
    with jax.named_scope(name):
        return nn.relu(x)


def max_pool(
    x: jax.Array, window: int, stride: int, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
    """Max-pool of (N, H, W, C) with PyTorch's output size.

    With `ceil_mode` a last window that hangs over the lower right edge counts, as in Caffe, unless
    it would start in the padding.
    """
    sides = []
    for size in x.shape[1:3]:
        span = size + 2 * padding - window
        outputs = (-(-span // stride) if ceil_mode else span // stride) + 1
        if (outputs - 1) * stride >= size + padding:
            outputs -= 1
        overhang = max(0, (outputs - 1) * stride - span)
        sides.append((padding, padding + overhang))
    return nn.max_pool(x, (window, window), (stride, stride), padding=tuple(sides))


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Average of (N, H, W, C) over size × size cells, as `torch.nn.AdaptiveAvgPool2d(size)`.

    Cell i of an axis of length n covers positions floor(i n / size) up to ceil((i + 1) n / size).
    """
    if x.shape[1:3] == (size, size):
        return x
    if 0 in x.shape:
        raise InputError("x: Expected larger images; pooling leaves no position of these.")
    rows, columns = (jnp.asarray(_cells(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x, columns)


def _cells(length: int, size: int) -> np.ndarray:
    """(size, length) matrix whose row i averages cell i."""
    matrix = np.zeros((size, length))
    for i in range(size):
        cell = slice(i * length // size, -(-(i + 1) * length // size))
        matrix[i, cell] = 1 / (cell.stop - cell.start)
    return matrix
