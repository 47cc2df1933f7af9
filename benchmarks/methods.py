"""Seconds per image of every method, beside the same method in Captum where it has one.

One VGG-like network (two 3x3 convolutions a stage, max-pool, mean, dense) with the same random
weights in JAX and PyTorch; prints a Markdown table. Captum is optional:

    python benchmarks/methods.py --size 64 --images 2
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.methods import METHODS

WIDTHS = (32, 64, 128, 256)
CLASSES = 100
LABEL = 7
REPEATS = 3


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


def seconds(call: Callable[[], Any], images: int) -> tuple[float, float]:
    """(first call, median of later calls per image)."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[1:]) / images


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--images", type=int, default=2, help="images in the batch")
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
        "| method | first call, s | s / image | Captum, s / image |\n|---|---|---|---|"
    )
    for name in arguments.methods:

        def ours(method: Callable[..., Any] = METHODS[name]) -> Any:
            return jax.block_until_ready(method(arrays, x, LABEL, apply_fn=network))

        first, later = seconds(ours, arguments.images)
        captum = f"{seconds(theirs[name], arguments.images)[1]:.4f}" if name in theirs else "–"
        print(f"| {name} | {first:.1f} | {later:.4f} | {captum} |", flush=True)


if __name__ == "__main__":
    main()
