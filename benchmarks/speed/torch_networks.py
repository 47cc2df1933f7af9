"""The timed networks in PyTorch: weights and function of the Flax modules in dmbp_jax.models.

A network is a list of operations, so that passes in both directions are loops over it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
