"""DMBP in PyTorch, twice: as the paper describes it, and as fast as we can write it in PyTorch.

`DoubleBackprop` masks the ReLUs' cotangents and differentiates the backward pass (Eq. 8-14);
`GatedPasses` takes the three passes of `dmbp_jax.dmbp.loop`. Both minimise Eq. 10 with RMSProp.
Networks have the weights and the function of the Flax modules in dmbp_jax.models: a list of
operations, so that passes in both directions are loops over it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LEARNING_RATE, _ALPHA, _EPS = 0.01, 0.99, 1e-8  # torch.optim.RMSprop(lr=0.01)
_aten = torch.ops.aten


@dataclass(frozen=True)
class Op:
    """One operation on numbered values; value 0 is the image (N, C, H, W)."""

    kind: str  # conv, dense, relu, max_pool, add, mean, adaptive_pool, flatten
    inputs: tuple[int, ...]
    output: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    stride: int = 1
    padding: int = 0
    window: int = 0
    site: int = -1  # index among the ReLUs, or among the max-pools


Rule = Callable[[Op, Tensor], Tensor]


def forward(
    ops: Sequence[Op],
    values: dict[int, Tensor],
    relu: Rule,
    max_pool: Rule,
    biases: Sequence[Tensor] | None = None,
) -> Tensor:
    """Logits (N, classes); fills `values`, which holds what the first operation reads.

    `biases` replaces the networks' own; those of shape (N, features) are added per image, so that
    every image has a bias gradient of its own.
    """
    remaining = iter(biases or [op.bias for op in ops if op.weight is not None])
    for op in ops:
        x = values[op.inputs[0]]
        if op.kind == "relu":
            value = relu(op, x)
        elif op.kind == "max_pool":
            value = max_pool(op, x)
        elif op.kind == "add":
            value = x + values[op.inputs[1]]
        elif op.kind == "mean":
            value = x.mean((2, 3))
        elif op.kind == "adaptive_pool":
            value = x if x.shape[2:] == (7, 7) else F.adaptive_avg_pool2d(x, 7)
        elif op.kind == "flatten":  # positions first, as in Flax
            value = x.permute(0, 2, 3, 1).flatten(1)
        else:
            value = _with_weight(op, x, next(remaining))
        values[op.output] = value
    return values[ops[-1].output]


def _with_weight(op: Op, x: Tensor, bias: Tensor) -> Tensor:
    assert op.weight is not None
    inside, outside = (bias, None) if bias.ndim == 1 else (None, bias)
    if op.kind == "conv":
        value = F.conv2d(x, op.weight, inside, op.stride, op.padding)
        return value if outside is None else value + outside[:, :, None, None]
    value = F.linear(x, op.weight, inside)
    return value if outside is None else value + outside


def backward(
    ops: Sequence[Op], values: Mapping[int, Tensor], cotangent: Tensor, relu: Rule, max_pool: Rule
) -> None:
    """The adjoint of `forward` without biases; the rules see and return cotangents.

    Only the shapes of `values` matter. Nothing is pulled back beyond the first operation.
    """
    cotangents = {ops[-1].output: cotangent}
    wanted = {op.output for op in ops}
    for op in reversed(ops):
        c, x = cotangents.pop(op.output), values[op.inputs[0]]
        if op.kind == "relu":
            c = relu(op, c)
        elif op.kind == "max_pool":
            c = max_pool(op, c)
        elif op.kind == "mean":
            c = (c / (x.shape[2] * x.shape[3]))[:, :, None, None].expand(x.shape)
        elif op.kind == "adaptive_pool":
            c = c if x.shape[2:] == (7, 7) else _aten._adaptive_avg_pool2d_backward(c, x)
        elif op.kind == "flatten":
            c = c.unflatten(1, (x.shape[2], x.shape[3], x.shape[1])).permute(0, 3, 1, 2)
        elif op.kind == "conv" and op.inputs[0] in wanted:
            strides, paddings = [op.stride] * 2, [op.padding] * 2
            c = _aten.convolution_backward(
                c, x, op.weight, None, strides, paddings, [1, 1], False, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        elif op.kind == "dense":
            c = c @ op.weight
        for value in op.inputs:
            if value in wanted:
                cotangents[value] = cotangents[value] + c if value in cotangents else c


def channels_last(ops: Sequence[Op], dtype: torch.dtype) -> list[Op]:
    """The same operations with weights of another dtype, in the layout that convolutions like."""

    def convert(weight: Tensor | None) -> Tensor | None:
        if weight is None or weight.ndim != 4:
            return weight if weight is None else weight.to(dtype)
        return weight.to(dtype, memory_format=torch.channels_last)

    return [replace(op, weight=convert(op.weight), bias=convert(op.bias)) for op in ops]


def operations(name: str, variables: Mapping[str, Any], device: torch.device) -> list[Op]:
    """The operations of "resnet50", "vgg16" or "builtin" with the weights of its Flax variables.

    BatchNorm is folded into its convolution, in favour of PyTorch: fewer operations.
    """
    builder = _Builder(device)
    params = variables["params"]
    if name == "resnet50":
        builder.resnet(params, (3, 4, 6, 3))
    elif name == "vgg16":
        builder.vgg(params, (2, 2, 3, 3, 3))
    else:
        builder.builtin(params, variables["batch_stats"])
    return builder.ops


class _Builder:
    """Appends operations; methods return the number of the value they make."""

    def __init__(self, device: torch.device) -> None:
        self.ops: list[Op] = []
        self._device = device

    def append(self, kind: str, *inputs: int, **fields: Any) -> int:
        site = sum(op.kind == kind for op in self.ops)
        self.ops.append(Op(kind, inputs, len(self.ops) + 1, site=site, **fields))
        return len(self.ops)

    def conv(self, x: int, params: Mapping[str, Any], stride: int = 1, norm: Any = None) -> int:
        kernel = np.asarray(params["kernel"])
        bias = np.asarray(params.get("bias", np.zeros(kernel.shape[-1], kernel.dtype)))
        if norm is not None:
            affine, running = (_to_numpy(part) for part in norm)
            scale = affine["scale"] / np.sqrt(running["var"] + 1e-5)
            kernel, bias = kernel * scale, affine["bias"] + (bias - running["mean"]) * scale
        return self.append(
            "conv",
            x,
            weight=self._tensor(kernel.transpose(3, 2, 0, 1)),
            bias=self._tensor(bias),
            stride=stride,
            padding=kernel.shape[0] // 2,
        )

    def dense(self, x: int, params: Mapping[str, Any]) -> int:
        weight = self._tensor(np.asarray(params["kernel"]).T)
        return self.append("dense", x, weight=weight, bias=self._tensor(params["bias"]))

    def _tensor(self, array: Any) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), device=self._device)

    def resnet(self, params: Mapping[str, Any], stage_sizes: tuple[int, ...]) -> None:
        x = self.append("relu", self.conv(0, params["conv1"], 2))
        x = self.append("max_pool", x, window=3, stride=2, padding=1)
        for i, size in enumerate(stage_sizes, 1):
            for j in range(size):
                block, stride = params[f"layer{i}_{j}"], 2 if i > 1 and j == 0 else 1
                y = self.append("relu", self.conv(x, block["conv1"]))
                y = self.append("relu", self.conv(y, block["conv2"], stride))
                y = self.conv(y, block["conv3"])
                if "downsample" in block:
                    x = self.conv(x, block["downsample"], stride)
                x = self.append("relu", self.append("add", x, y))
        self.dense(self.append("mean", x), params["fc"])

    def vgg(self, params: Mapping[str, Any], stage_sizes: tuple[int, ...]) -> None:
        x = 0
        for i, size in enumerate(stage_sizes, 1):
            for j in range(1, size + 1):
                x = self.append("relu", self.conv(x, params[f"conv{i}_{j}"]))
            x = self.append("max_pool", x, window=2, stride=2)
        x = self.append("flatten", self.append("adaptive_pool", x))
        x = self.append("relu", self.dense(x, params["fc6"]))
        x = self.append("relu", self.dense(x, params["fc7"]))
        self.dense(x, params["fc8"])

    def builtin(self, params: Mapping[str, Any], running: Mapping[str, Any]) -> None:
        x = self.conv(0, params["conv1"], 2, (params["bn1"], running["bn1"]))
        x = self.append("max_pool", self.append("relu", x), window=3, stride=2, padding=1)
        previous = "layer1"
        for name in sorted(key for key in params if key.startswith("layer")):
            block, statistics = params[name], running[name]
            stride = 1 if name.startswith(previous) else 2
            previous = name.split("_")[0]
            norms = {key: (block[key], statistics[key]) for key in statistics}
            y = self.append("relu", self.conv(x, block["conv1"], stride, norms["bn1"]))
            y = self.conv(y, block["conv2"], 1, norms["bn2"])
            if "conv_proj" in block:
                x = self.conv(x, block["conv_proj"], stride, norms["bn_proj"])
            x = self.append("relu", self.append("add", x, y))
        self.dense(self.append("mean", x), params["dense"])


def _to_numpy(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in arrays.items()}


def _plain_relu(op: Op, z: Tensor) -> Tensor:
    return z.relu()


def _plain_max_pool(op: Op, z: Tensor) -> Tensor:
    return F.max_pool2d(z, op.window, op.stride, op.padding)


@torch.no_grad()
def plain_logits(ops: Sequence[Op], x: Tensor) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), without any mask."""
    return forward(ops, {0: x}, _plain_relu, _plain_max_pool)


class MaskedReLU(torch.autograd.Function):
    """ReLU whose backward pass multiplies the cotangent by gate and mask (Eq. 8)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, mask: Tensor) -> Tensor:
        """The ordinary ReLU of z."""
        ctx.save_for_backward(z, mask)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Cotangent of z; the mask is learned through the second differentiation only."""
        z, mask = ctx.saved_tensors
        return cotangents[0] * (z > 0) * mask, None


class DoubleBackprop:
    """The paper's description: y± by Eq. 11 and 14 with `create_graph=True`, then its gradient.

    Images are (N, C, H, W); masks start from θ = 0.
    """

    def __init__(self, ops: Sequence[Op], x: Tensor, labels: Tensor) -> None:
        self._ops, self._x, self._labels = ops, x, labels
        self._biases = [op.bias for op in ops if op.bias is not None]
        values = {0: x}
        with torch.no_grad():
            logits = forward(ops, values, _plain_relu, _plain_max_pool)
        self._y = (logits - self._biases[-1]).gather(1, labels[:, None])[:, 0]
        self._theta = [
            torch.zeros_like(values[op.output]).requires_grad_() for op in ops if op.kind == "relu"
        ]
        self._optimizer = torch.optim.RMSprop(
            self._theta, lr=_LEARNING_RATE, alpha=_ALPHA, eps=_EPS
        )

    def step(self) -> Tensor:
        """One optimiser step; (N, 3): y⁺, y⁻ and ỹ of the masks before it."""
        masks = [torch.sigmoid(theta) for theta in self._theta]
        y_positive = self._signed_part(masks)
        y_negative = self._signed_part([1 - mask for mask in masks])
        rest = self._y - y_positive - y_negative
        loss = y_negative - y_positive + rest.abs()
        self._optimizer.zero_grad()
        loss.sum().backward(inputs=self._theta)
        self._optimizer.step()
        return torch.stack([y_positive, y_negative, rest], 1).detach()

    def _signed_part(self, masks: list[Tensor]) -> Tensor:
        """∇ₓFᵀx + Σ ∇_bFᵀb of each image, the output bias left out."""
        x = self._x.clone().requires_grad_()
        # A batch needs a copy of every bias per image; one image does with the convolution's own.
        copies = 1 if len(x) == 1 else (len(x), 1)
        leaves = [bias.repeat(copies).requires_grad_() for bias in self._biases]
        logits = forward(
            self._ops,
            {0: x},
            lambda op, z: MaskedReLU.apply(z, masks[op.site]),
            _plain_max_pool,
            leaves,
        )
        logit = logits.gather(1, self._labels[:, None]).sum()
        inner = leaves[:-1]
        grad_x, *grad_b = torch.autograd.grad(logit, [x, *inner], create_graph=True)
        total = (grad_x * self._x).flatten(1).sum(1)
        for gradient, bias in zip(grad_b, inner, strict=True):
            total = total + (gradient * bias.detach()).sum(-1)
        return total


class GatedPasses:
    """The best we can write: both signs' gated forwards in one batch, one backward per image.

    No double back-propagation: the backward pass is written by hand and runs for the sign that
    pulls. Gates, winners and the first pre-activation are frozen; memory is channels-last; the
    step is compiled by `torch.compile` and can be captured as a CUDA graph.
    """

    def __init__(
        self, ops: Sequence[Op], x: Tensor, labels: Tensor, dtype: torch.dtype, compiled: bool
    ) -> None:
        first = next(i for i, op in enumerate(ops) if op.kind == "relu")
        ops = channels_last(ops, dtype)
        self._ops, self._count, self._in_place = ops[first:], len(x), compiled
        self._labels = labels[:, None]

        values = {0: x.to(dtype, memory_format=torch.channels_last)}
        with torch.no_grad():
            logits = forward(ops, values, _plain_relu, _plain_max_pool)
        self._gates = [values[op.inputs[0]] > 0 for op in ops if op.kind == "relu"]
        self._winners = [
            F.max_pool2d(
                values[op.inputs[0]], op.window, op.stride, op.padding, return_indices=True
            )[1]
            for op in ops
            if op.kind == "max_pool"
        ]
        self._first = values[ops[first].inputs[0]].repeat(2, 1, 1, 1)
        self._first = self._first.contiguous(memory_format=torch.channels_last)

        assert ops[-1].bias is not None
        self._output_bias = ops[-1].bias.float()[labels]
        self._y = self._of_label(logits) - self._output_bias
        self._one_hot = F.one_hot(labels, logits.shape[1]).to(dtype)
        self._theta = [torch.zeros_like(gate, dtype=torch.float32) for gate in self._gates]
        self._square = [torch.zeros_like(theta) for theta in self._theta]
        self._run = (
            torch.compile(self._step, fullgraph=True, dynamic=False) if compiled else self._step
        )
        self._graph: Any = None
        self._terms = torch.empty(0)

    def step(self) -> Tensor:
        """One optimiser step; (N, 3): y⁺, y⁻ and ỹ of the masks before it."""
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._terms

    def capture(self) -> None:
        """Record the step as a CUDA graph; later steps replay it without Python in between."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._terms = self._run()
        self._graph = graph

    @torch.no_grad()
    def _step(self) -> Tensor:
        n = self._count
        masks = [
            _both_signs(torch.sigmoid(t), gate)
            for t, gate in zip(self._theta, self._gates, strict=True)
        ]
        activations: dict[int, Tensor] = {}

        def gate(op: Op, z: Tensor) -> Tensor:
            activations[op.site] = masks[op.site].to(z.dtype) * z
            return activations[op.site]

        values = {self._ops[0].inputs[0]: self._first}
        logits = forward(self._ops, values, gate, self._take_winners)
        y_positive = self._of_label(logits[:n]) - self._output_bias
        y_negative = self._of_label(logits[n:]) - self._output_bias
        rest = self._y - y_positive - y_negative

        gradients: dict[int, Tensor] = {}

        def pull(op: Op, c: Tensor) -> Tensor:
            positive = (rest >= 0).view(-1, *[1] * (c.ndim - 1))
            on, off = masks[op.site][:n], masks[op.site][n:]
            u = torch.where(positive, activations[op.site][:n], activations[op.site][n:])
            # -2 u c (1 - m): of a gated mask's complement only the gated part matters.
            gradients[op.site] = -2 * u.float() * c.float() * torch.where(positive, off, on)
            return c * torch.where(positive, on, off).to(c.dtype)

        half = {key: value[:n] for key, value in values.items()}

        def spread(op: Op, c: Tensor) -> Tensor:
            return _aten.max_pool2d_with_indices_backward(
                c, half[op.inputs[0]], [op.window] * 2, [op.stride] * 2, [op.padding] * 2,
                [1, 1], False, self._winners[op.site],
            )  # fmt: skip

        backward(self._ops, half, self._one_hot, pull, spread)
        self._rmsprop([gradients[site] for site in range(len(self._theta))])
        return torch.stack([y_positive, y_negative, rest], 1)

    def _of_label(self, logits: Tensor) -> Tensor:
        return logits.gather(1, self._labels)[:, 0].float()

    def _take_winners(self, op: Op, z: Tensor) -> Tensor:
        winners = self._winners[op.site].repeat(2, 1, 1, 1).permute(0, 2, 3, 1)
        taken = z.permute(0, 2, 3, 1).flatten(1, 2).gather(1, winners.flatten(1, 2))
        return taken.view(winners.shape).permute(0, 3, 1, 2)

    def _rmsprop(self, gradients: list[Tensor]) -> None:
        if self._in_place:  # torch.compile fuses each update with the gradient before it
            for theta, square, g in zip(self._theta, self._square, gradients, strict=True):
                square.mul_(_ALPHA).addcmul_(g, g, value=1 - _ALPHA)
                theta.addcdiv_(g, square.sqrt().add_(_EPS), value=-_LEARNING_RATE)
            return
        torch._foreach_mul_(self._square, _ALPHA)
        torch._foreach_addcmul_(self._square, gradients, gradients, 1 - _ALPHA)
        roots = torch._foreach_sqrt(self._square)
        torch._foreach_add_(roots, _EPS)
        torch._foreach_addcdiv_(self._theta, gradients, roots, -_LEARNING_RATE)


def _both_signs(sigma: Tensor, gate: Tensor) -> Tensor:
    """Σ ⊙ H and (1 − Σ) ⊙ H in one batch."""
    zero = sigma.new_zeros(())
    return torch.cat([torch.where(gate, sigma, zero), torch.where(gate, 1 - sigma, zero)])
