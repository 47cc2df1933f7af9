"""The layers that the networks share: named activations, PyTorch's pools, inverted residual blocks.

Shapes are NHWC and static, so what PyTorch decides at run time is plain Python here.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import InputError

Activation = Callable[[jax.Array], jax.Array]


def activate(function: Activation, x: jax.Array, name: str) -> jax.Array:
    """An activation in a name scope of its own, so that its site in the jaxpr carries `name`."""
    with jax.named_scope(name):
        return function(x)


def relu(x: jax.Array, name: str) -> jax.Array:
    """ReLU in a name scope of its own."""
    return activate(nn.relu, x, name)


def exact_gelu(x: jax.Array, name: str) -> jax.Array:
    """GELU by the error function, x Φ(x), as PyTorch's default."""
    return activate(partial(nn.gelu, approximate=False), x, name)


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm over the channels with the epsilon of ConvNeXt and Vision Transformer.

    The variance is the mean square of x − mean: the mean of squares less the square of the mean
    loses digits where x is far from 0.
    """
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name=name)


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


class SqueezeExcite(nn.Module):
    """A factor for each channel, from the means of all channels (Hu et al. 2018).

    out = x · gate(expand(activation(squeeze(mean of x over positions))))

    Attributes:
      squeezed: features between the two 1×1 convolutions.
      activation: between them.
      gate: after them; gives the factor.
    """

    squeezed: int
    activation: Activation
    gate: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H, W, C)."""
        y = jnp.mean(x, axis=(1, 2), keepdims=True)
        y = nn.Conv(self.squeezed, (1, 1), name="squeeze")(y)
        y = activate(self.activation, y, "act")
        y = nn.Conv(x.shape[-1], (1, 1), name="expand")(y)
        return x * activate(self.gate, y, "gate")


class InvertedResidual(nn.Module):
    """Expand by a 1×1 convolution, filter every channel alone, project back (Sandler et al. 2018).

    out = project(excite(act(filter(act(expand(x))))))        + x where the shapes are equal

    The expansion is left out where it would not widen x, squeeze-and-excite where `squeezed` is 0.

    Attributes:
      features: of the output, which has no activation.
      expanded: features inside the block.
      activation: after expansion and filter.
      kernel: side of the filter.
      stride: of the filter.
      padding: "torch" pads both sides alike, "SAME" as TensorFlow does.
      squeezed: features between the two layers of squeeze-and-excite.
      squeeze_activation: between them.
      gate: after them.
    """

    features: int
    expanded: int
    activation: Activation
    kernel: int = 3
    stride: int = 1
    padding: str = "torch"
    squeezed: int = 0
    squeeze_activation: Activation = nn.relu
    gate: Activation = nn.sigmoid

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H / stride, W / stride, features)."""
        padding = self.kernel // 2 if self.padding == "torch" else self.padding
        y = x
        if self.expanded != x.shape[-1]:
            y = nn.Conv(self.expanded, (1, 1), name="expand")(y)
            y = activate(self.activation, y, "act1")
        y = nn.Conv(
            self.expanded,
            (self.kernel, self.kernel),
            self.stride,
            padding=padding,
            feature_group_count=self.expanded,
            name="filter",
        )(y)
        y = activate(self.activation, y, "act2")
        if self.squeezed:
            y = SqueezeExcite(self.squeezed, self.squeeze_activation, self.gate, name="excite")(y)
        y = nn.Conv(self.features, (1, 1), name="project")(y)
        return x + y if x.shape == y.shape else y
