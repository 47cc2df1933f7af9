"""Seconds per image of every method, beside the same method in Captum where it has one.

One VGG-like network (two 3x3 convolutions a stage, max-pool, mean, dense) with the same random
weights in JAX and PyTorch; they take turns, and ratios are medians of those of the rounds. "Of the
bare rate" is the time that the passes of a method take alone, as a share of its own: so many jitted
calls of the network or its gradient, with the batch and the compiler options of the method. Prints
a Markdown table; Captum is optional:

    python -m benchmarks method_speed --size 64 --images 2
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.engine.compiling import compiler_options
from dmbp_jax.methods import METHODS

WIDTHS = (32, 64, 128, 256)
CLASSES = 100
LABEL = 7
RISE_MASKS = 400
PASSES = {  # of an image, where a method does little else
    "integrated_gradients": ("gradients", 50),
    "smoothgrad": ("gradients", 50),
    "blur_ig": ("gradients", 100),
    "rise": ("forwards", RISE_MASKS),
}


def make_weights() -> dict[str, np.ndarray]:
    """He-normal weights, small biases; PyTorch's layout and names."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    inputs, name = 3, 0
    for width in WIDTHS:
        for _ in range(2):
            scale = np.sqrt(2 / (9 * inputs))
            weights[f"conv{name}.weight"] = scale * rng.normal(size=(width, inputs, 3, 3))
            weights[f"conv{name}.bias"] = 0.1 * rng.normal(size=width)
            inputs, name = width, name + 1
    weights["dense.weight"] = rng.normal(size=(CLASSES, inputs)) / np.sqrt(inputs)
    weights["dense.bias"] = 0.1 * rng.normal(size=CLASSES)
    return {key: value.astype(np.float32) for key, value in weights.items()}


def network(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Logits (N, 100) of images (N, H, W, 3)."""
    for name in range(2 * len(WIDTHS)):
        kernel = weights[f"conv{name}.weight"]
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
        )
        x = jax.nn.relu(x + weights[f"conv{name}.bias"])
        if name % 2:
            window = ((1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
    return x.mean((1, 2)) @ weights["dense.weight"].T + weights["dense.bias"]


def captum_methods(weights: dict[str, np.ndarray], x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The same call in Captum, with the same samples and chunks, ready to be timed."""
    import torch
    from captum import attr
    from torch import nn

    layers: list[nn.Module] = []
    for name in range(2 * len(WIDTHS)):
        conv = nn.Conv2d(*reversed(weights[f"conv{name}.weight"].shape[:2]), 3, padding=1)
        conv.weight.data = torch.tensor(weights[f"conv{name}.weight"])
        conv.bias.data = torch.tensor(weights[f"conv{name}.bias"])
        layers += [conv, nn.ReLU(), nn.MaxPool2d(2)] if name % 2 else [conv, nn.ReLU()]
    last_relu = layers[-2]
    dense = nn.Linear(WIDTHS[-1], CLASSES)
    dense.weight.data = torch.tensor(weights["dense.weight"])
    dense.bias.data = torch.tensor(weights["dense.bias"])
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = net.to(device)
    images = torch.tensor(x.transpose(0, 3, 1, 2)).to(device)

    def cam() -> Any:
        heat = attr.LayerGradCam(net, last_relu).attribute(images, LABEL, relu_attributions=True)
        return attr.LayerAttribution.interpolate(heat, images.shape[2:], "bilinear")

    calls: dict[str, Callable[[], Any]] = {
        "gradient": lambda: attr.Saliency(net).attribute(images, LABEL, abs=False),
        "integrated_gradients": lambda: attr.IntegratedGradients(net).attribute(
            images, target=LABEL, n_steps=50, internal_batch_size=64
        ),
        "smoothgrad": lambda: attr.NoiseTunnel(attr.Saliency(net)).attribute(
            images, nt_samples=50, nt_samples_batch_size=32, stdevs=0.5, target=LABEL, abs=False
        ),
        "deeplift": lambda: attr.DeepLift(net).attribute(images, target=LABEL),
        "guided_backprop": lambda: attr.GuidedBackprop(net).attribute(images, LABEL),
        "gradcam": cam,
        "guided_gradcam": lambda: attr.GuidedGradCam(net, last_relu).attribute(
            images, LABEL, interpolate_mode="bilinear"
        ),
    }

    def finished(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            result = call()
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return run

    return {name: finished(call) for name, call in calls.items()}


def bare_passes(name: str, arrays: dict[str, jax.Array], x: np.ndarray) -> Callable[[], Any]:
    """The passes of a method of `PASSES` and nothing else, 64 at once or a little fewer."""
    kind, count = PASSES[name]
    total = count * len(x)
    calls = -(-total // 64)
    batch = jnp.asarray(np.resize(x, (-(-total // calls), *x.shape[1:])))

    def score(images: jax.Array, arrays: dict[str, jax.Array]) -> jax.Array:
        return network(arrays, images)[:, LABEL].sum()

    function = jax.grad(score) if kind == "gradients" else score
    options = compiler_options(jax.default_backend())
    compiled = jax.jit(function, compiler_options=options).lower(batch, arrays).compile()
    return lambda: jax.block_until_ready([compiled(batch, arrays) for _ in range(calls)])


def seconds(calls: Sequence[Callable[[], Any]], rounds: int) -> np.ndarray:
    """(1 + rounds, calls): of the first call of each, then of later ones, in turns."""
    times = np.zeros((1 + rounds, len(calls)))
    for index in np.ndindex(times.shape):
        start = time.perf_counter()
        calls[index[1]]()
        times[index] = time.perf_counter() - start
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--images", type=int, default=2, help="images in the batch")
    parser.add_argument("--rounds", type=int, default=5, help="calls of each after the first")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    x = np.random.default_rng(1).normal(size=(arguments.images, arguments.size, arguments.size, 3))
    x = x.astype(np.float32)
    weights = make_weights()
    try:
        theirs = captum_methods(weights, x)
    except ImportError:
        theirs = {}
    arrays = jax.tree.map(jnp.asarray, weights)
    print(
        f"{arguments.images} images of {arguments.size} x {arguments.size}, float32, "
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}\n\n"
        "| method | first call, s | s / image | Captum, s / image | ratio | of the bare rate |\n"
        "|---|---|---|---|---|---|"
    )
    for name in arguments.methods:
        options = {"n_masks": RISE_MASKS} if name == "rise" else {}
        method = partial(METHODS[name], arrays, x, LABEL, apply_fn=network, **options)
        calls = {"ours": lambda method=method: jax.block_until_ready(method())}
        if name in theirs:
            calls["theirs"] = theirs[name]
        if name in PASSES:
            calls["bare"] = bare_passes(name, arrays, x)
        first, *later = seconds(list(calls.values()), arguments.rounds)
        times = dict(zip(calls, np.array(later).T, strict=True))
        cells = [f"{first[0]:.1f}", f"{np.median(times['ours']) / len(x):.4f}", "–", "–", "–"]
        if "theirs" in times:
            cells[2] = f"{np.median(times['theirs']) / len(x):.4f}"
            cells[3] = f"{np.median(times['ours'] / times['theirs']):.2f}"
        if "bare" in times:
            cells[4] = f"{np.median(times['bare'] / times['ours']):.0%}"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
