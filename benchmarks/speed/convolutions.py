"""Each convolution of a network, forwards for both signs and backwards to its input for one.

    python -m benchmarks convolutions --network vgg16 --rounds 5

XLA as dmbp-jax calls it, beside PyTorch (channels last) on the same shapes: the part of a step in
which the two differ. Needs PyTorch (extra `[bench]`).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from dmbp_jax import models
from dmbp_jax.engine.compiling import compiler_options
from dmbp_jax.graph.convolution import (
    adjoint_kernel,
    evaluate_affine,
    is_convolution_of_path,
)
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.steps import Step
from dmbp_jax.graph.tracing import trace

NETWORKS = {"vgg16": models.VGG16, "resnet50": models.ResNet50}


class Layer(NamedTuple):
    """A convolution with square windows, strides and pads, as VGG16 and ResNet50 have them."""

    side: int
    channels: int
    features: int
    window: int
    stride: int
    padding: int

    @property
    def gigaflops(self) -> float:
        """Of one image in one direction."""
        out = -(-self.side // self.stride)
        return 2e-9 * (out * self.window) ** 2 * self.channels * self.features


def main(arguments: list[str] | None = None) -> None:
    """Time every distinct layer, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="vgg16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    heads = ("forward, XLA", "PyTorch", "backward, XLA", "PyTorch")
    print(f"{'layer':28}{'times':>6}{'GFLOP':>8}" + "".join(f"{head:>15}" for head in heads))
    totals = np.zeros(4)
    for layer, steps in find_layers(args.network, args.size).items():
        seconds = np.array(median_seconds(contenders(layer, steps[0]), args.rounds))
        totals += len(steps) * seconds
        name = f"{layer.window}x{layer.window} {layer.channels}-{layer.features} at {layer.side}"
        name += f" / {layer.stride}" if layer.stride > 1 else ""
        cells = "".join(f"{1e3 * value:13.2f}ms" for value in seconds)
        print(f"{name:28}{len(steps):6}{layer.gigaflops:8.2f}{cells}", flush=True)
    print(f"{'all':42}" + "".join(f"{1e3 * value:13.0f}ms" for value in totals))
    forward, torch_forward, backward, torch_backward = totals
    ratios = forward / torch_forward, backward / torch_backward
    both = (forward + backward) / (torch_forward + torch_backward)
    print(f"XLA / PyTorch: forward {ratios[0]:.2f}, backward {ratios[1]:.2f}, both {both:.2f}")


def find_layers(name: str, size: int) -> dict[Layer, list[Step]]:
    """The distinct convolutions of a network, and the steps of its program with each."""
    module = NETWORKS[name](classes=1000)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    found: dict[Layer, list[Step]] = {}
    for step in trace(bind(variables, module.apply), image).program().steps:
        if is_convolution_of_path(step):
            x, kernel = (variable.aval for variable in step.equation.invars)
            (padding, _), stride = step.params["padding"][0], step.params["window_strides"][0]
            layer = Layer(x.shape[1], x.shape[3], kernel.shape[3], kernel.shape[0], stride, padding)
            found.setdefault(layer, []).append(step)
    return found


def contenders(layer: Layer, step: Step) -> list[Callable[[], object]]:
    """Forward of two images and backward of one, by XLA and by PyTorch, in that order."""
    rng = np.random.default_rng(0)
    out = -(-layer.side // layer.stride)
    x = rng.standard_normal((2, layer.side, layer.side, layer.channels), np.float32)
    cotangent = rng.standard_normal((1, out, out, layer.features), np.float32)
    shape = layer.window, layer.window, layer.channels, layer.features
    kernel = rng.standard_normal(shape, np.float32)

    def forward(x: jax.Array, kernel: jax.Array, adjoint: jax.Array) -> jax.Array:
        return evaluate_affine(step, (x, kernel, adjoint))[0]

    def backward(
        cotangent: jax.Array, x: jax.Array, kernel: jax.Array, adjoint: jax.Array
    ) -> jax.Array:
        _, pull_back = jax.vjp(lambda x: forward(x, kernel, adjoint), x)
        return pull_back(cotangent)[0]

    images_, kernel_, cotangent_ = (jnp.asarray(a) for a in (x, kernel, cotangent))
    adjoint = jax.block_until_ready(adjoint_kernel(kernel_, step.params))
    ours = (images_, kernel_, adjoint), (cotangent_, images_[:1], kernel_, adjoint)
    options = compiler_options(jax.default_backend())  # those of dmbp-jax
    forwards = jax.jit(forward, compiler_options=options).lower(*ours[0]).compile()
    backwards = jax.jit(backward, compiler_options=options).lower(*ours[1]).compile()

    def channels_last(a: np.ndarray, axes: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(a.transpose(axes).copy()).to(memory_format=torch.channels_last)

    images, cotangents = (channels_last(a, (0, 3, 1, 2)) for a in (x, cotangent))
    weight = channels_last(kernel, (3, 2, 0, 1))
    geometry = [layer.stride] * 2, [layer.padding] * 2

    def torch_backward() -> torch.Tensor:
        settings = (None, *geometry, [1, 1], False, [0, 0], 1, [True, False, False])
        return torch.ops.aten.convolution_backward(cotangents, images[:1], weight, *settings)[0]

    return [
        lambda: jax.block_until_ready(forwards(*ours[0])),
        lambda: torch.nn.functional.conv2d(images, weight, None, *geometry),
        lambda: jax.block_until_ready(backwards(*ours[1])),
        torch_backward,
    ]


def median_seconds(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Of each function, in turn, after a call that is not counted."""
    samples: list[list[float]] = [[] for _ in functions]
    with torch.no_grad():
        for _ in range(rounds + 1):
            for function, sample in zip(functions, samples, strict=True):
                begin = time.perf_counter()
                function()
                sample.append(time.perf_counter() - begin)
    return [statistics.median(sample[1:]) for sample in samples]
