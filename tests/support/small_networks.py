"""Small random networks, described once and evaluated in JAX; `oracle.py` evaluates them in NumPy.

A network is a list of layers; a residual holds a list of its own. Parameters are float64 NumPy.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Layer = tuple[Any, ...]

NETWORKS: dict[str, list[Layer]] = {
    "dense": [("flatten",), ("dense", 7), ("relu",), ("dense", 6), ("relu",), ("dense", 4)],
    "conv": [
        ("conv", 4, 3, 1, 1),
        ("relu",),
        ("conv", 5, 3, 2, 0),
        ("relu",),
        ("flatten",),
        ("dense", 3),
    ],
    "pool": [
        ("conv", 3, 3, 1, 1),
        ("relu",),
        ("max_pool", 3, 2, 1),
        ("conv", 4, 2, 1, 0),
        ("max_pool", 2, 2, 0),
        ("relu",),
        ("mean",),
        ("dense", 4),
    ],
    "pointwise": [
        ("conv", 4, 1, 1, 0),
        ("relu",),
        ("conv", 5, 1, 2, 0),
        ("norm",),
        ("relu",),
        ("conv", 3, 1, 1, 0),
        ("relu",),
        ("flatten",),
        ("dense", 3),
    ],
    "residual": [
        ("conv", 4, 3, 1, 1),
        ("norm",),
        ("relu",),
        ("max_pool", 3, 2, 1),
        (
            "residual",
            [("conv", 4, 3, 1, 1), ("norm",), ("relu",), ("conv", 4, 3, 1, 1), ("norm",)],
        ),
        ("relu",),
        ("mean",),
        ("dense", 5),
    ],
}
IMAGE = (6, 5, 2)


def make_params(layers: list[Layer], seed: int, shape: tuple[int, ...] = IMAGE) -> list[Any]:
    """Random float64 parameters (weights, biases, BatchNorm statistics) of a network."""
    return _make(layers, np.random.default_rng(seed), shape)[0]


def _make(layers: list[Layer], rng: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    params: list[Any] = []
    for kind, *options in layers:
        if kind == "conv":
            features, size, stride, pad = options
            fan_in = size * size * shape[-1]
            weight = rng.normal(size=(size, size, shape[-1], features)) * np.sqrt(2 / fan_in)
            params.append({"weight": weight, "bias": 0.3 * rng.normal(size=features)})
            shape = (*((n + 2 * pad - size) // stride + 1 for n in shape[:2]), features)
        elif kind == "dense":
            weight = rng.normal(size=(shape[0], options[0])) * np.sqrt(2 / shape[0])
            params.append({"weight": weight, "bias": 0.3 * rng.normal(size=options[0])})
            shape = (options[0],)
        elif kind == "norm":
            c = shape[-1]
            params.append(
                {
                    "mean": 0.3 * rng.normal(size=c),
                    "variance": rng.uniform(0.5, 2.0, size=c),
                    "scale": rng.uniform(0.5, 1.5, size=c),
                    "offset": 0.3 * rng.normal(size=c),
                }
            )
        elif kind == "residual":
            inner, shape = _make(options[0], rng, shape)
            params.append(inner)
        else:
            params.append({})
            if kind == "flatten":
                shape = (int(np.prod(shape)),)
            elif kind == "mean":
                shape = (shape[-1],)
            elif kind == "max_pool":
                size, stride, pad = options
                shape = (*((n + 2 * pad - size) // stride + 1 for n in shape[:2]), shape[-1])
    return params, shape


def apply_fn_of(layers: list[Layer]) -> Any:
    """The network as a JAX function `(params, x (N, H, W, C)) -> logits`."""

    def apply_fn(params: Any, x: jax.Array) -> jax.Array:
        for (kind, *options), p in zip(layers, params, strict=True):
            if kind == "conv":
                _, _, stride, pad = options
                x = jax.lax.conv_general_dilated(
                    x,
                    p["weight"].astype(x.dtype),
                    (stride, stride),
                    [(pad, pad), (pad, pad)],
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                ) + p["bias"].astype(x.dtype)
            elif kind == "dense":
                x = x @ p["weight"].astype(x.dtype) + p["bias"].astype(x.dtype)
            elif kind == "norm":
                p = jax.tree.map(lambda a, dtype=x.dtype: jnp.asarray(a, dtype), p)
                x = (x - p["mean"]) * jax.lax.rsqrt(p["variance"] + 1e-5) * p["scale"]
                x = x + p["offset"]
            elif kind == "relu":
                x = jax.nn.relu(x)
            elif kind == "max_pool":
                size, stride, pad = options
                x = jax.lax.reduce_window(
                    x,
                    -jnp.inf,
                    jax.lax.max,
                    (1, size, size, 1),
                    (1, stride, stride, 1),
                    [(0, 0), (pad, pad), (pad, pad), (0, 0)],
                )
            elif kind == "residual":
                x = x + apply_fn_of(options[0])(p, x)
            elif kind == "flatten":
                x = x.reshape(x.shape[0], -1)
            elif kind == "mean":
                x = x.mean((1, 2))
        return x

    return apply_fn


def make_image(seed: int, shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    """A random float64 image."""
    return np.random.default_rng([seed, 1]).normal(size=shape)
