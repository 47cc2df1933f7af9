"""Random small networks, described once and evaluated twice: in JAX, and frozen at x in NumPy.

A network is a list of layers on feature maps (N, H, W, C); some hold lists of layers of their own.
Before every activation lies a convolution, so that no two of them are one function.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

IMAGE = (3, 4, 2)
CLASSES = 3
Layer = tuple[Any, ...]


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _secant(f):
    return lambda z: (f(z) - f(np.zeros_like(z))) / z


def _gelu(z):
    return 0.5 * z * (1 + np.vectorize(math.erf)(z / np.sqrt(2)))


# name -> the activation in JAX; f(z) and its slope by formula
ACTIVATIONS = {
    "relu": (jax.nn.relu, lambda z: np.maximum(z, 0), lambda z: 1.0 * (z > 0)),
    "leaky_relu": (
        jax.nn.leaky_relu,
        lambda z: np.where(z > 0, z, 0.01 * z),
        lambda z: np.where(z > 0, 1, 0.01),
    ),
    "relu6": (jax.nn.relu6, lambda z: np.clip(z, 0, 6), lambda z: 1.0 * ((z > 0) & (z < 6))),
    "hard_tanh": (jax.nn.hard_tanh, lambda z: np.clip(z, -1, 1), lambda z: 1.0 * (abs(z) < 1)),
    "abs": (jnp.abs, np.abs, np.sign),
    "silu": (jax.nn.silu, lambda z: z * _sigmoid(z), _sigmoid),
    "tanh": (jnp.tanh, np.tanh, _secant(np.tanh)),
    "gelu": (lambda z: jax.nn.gelu(z, approximate=False), _gelu, _secant(_gelu)),
    "softplus": (
        jax.nn.softplus,
        lambda z: np.log1p(np.exp(z)),
        _secant(lambda z: np.log1p(np.exp(z))),
    ),
}
AFFINE = ("convolution", "scale", "flip", "average")
POOLS = ("max_pool", "min_pool")


def layers(depth: int = 2) -> st.SearchStrategy[list[Layer]]:
    """Random lists of one to three layers, those with layers of their own nested to `depth`."""
    simple = st.one_of(
        st.tuples(st.just("activation"), st.sampled_from(sorted(ACTIVATIONS))),
        st.tuples(st.sampled_from(AFFINE + POOLS)),
        st.tuples(st.just("scan"), st.integers(1, 3), st.sampled_from(sorted(ACTIVATIONS))),
    )
    if depth == 0:
        return st.lists(simple, min_size=1, max_size=2)
    inner = layers(depth - 1)
    nested = st.one_of(
        st.tuples(st.just("residual"), inner),
        st.tuples(st.just("concatenation"), inner),
        st.tuples(st.sampled_from(("maximum", "minimum")), inner, inner),
    )
    return st.lists(st.one_of(simple, nested), min_size=1, max_size=3)


def networks() -> st.SearchStrategy[list[Layer]]:
    """Random networks with at least one activation."""
    return layers().map(lambda found: [("activation", "relu"), *found])


def make_params(network: list[Layer], seed: int) -> list[Any]:
    """Random float64 parameters of a network."""
    rng = np.random.default_rng(seed)
    params, features = _make(network, rng, IMAGE[-1])
    dense = rng.normal(size=(features, CLASSES)), rng.normal(size=CLASSES)
    return [params, dense]


def _kernel(rng: np.random.Generator, size: int, features: int, out: int) -> tuple:
    kernel = rng.normal(size=(size, size, features, out)) / (size * np.sqrt(features))
    return kernel, 0.3 * rng.normal(size=out)


def _make(network: list[Layer], rng: np.random.Generator, features: int) -> tuple[list, int]:
    params: list[Any] = []
    for kind, *options in network:
        if kind in ("activation", "convolution"):
            out = int(rng.integers(1, 4))
            params.append(_kernel(rng, 3, features, out))
            features = out
        elif kind == "scan":
            kernels = [_kernel(rng, 1, features, features) for _ in range(options[0])]
            params.append(tuple(np.stack(a) for a in zip(*kernels, strict=True)))
        elif kind == "scale":
            params.append((rng.uniform(0.5, 1.5, size=features), rng.normal(size=features)))
        elif kind in ("residual", "concatenation", "maximum", "minimum"):
            branches = []
            for branch in options:
                own, out = _make(branch, rng, features)
                last = features if kind == "residual" else 2
                branches.append((own, _kernel(rng, 1, out, last)))
            params.append(branches)
            features = {"residual": features, "concatenation": features + 2}.get(kind, 2)
        else:
            params.append(())
    return params, features


class InJax:
    """The operations in JAX, as a user writes them."""

    concatenate, mean = staticmethod(jnp.concatenate), staticmethod(jnp.mean)
    flip = staticmethod(lambda x: jnp.flip(x, 2))
    average = staticmethod(lambda x: (x[:, :, 1:] + x[:, :, :-1]) / 2)

    def convolution(self, x, kernel, bias):
        numbers = ("NHWC", "HWIO", "NHWC")
        out = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return out + bias

    def activation(self, name, z):
        return ACTIVATIONS[name][0](z)

    def pool(self, kind, x):
        initial, better = (-jnp.inf, lax.max) if kind == "max_pool" else (jnp.inf, lax.min)
        return lax.reduce_window(x, initial, better, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")

    def larger(self, kind, a, b):
        return jnp.maximum(a, b) if kind == "maximum" else jnp.minimum(a, b)

    def scan(self, x, params, step):
        return lax.scan(lambda h, own: (step(h, *own), None), x, params)[0]


class Frozen:
    """The operations in NumPy, affine: an unmasked pass at x alone has decided everything.

    Args:
      masks: of the activations in order of evaluation; None keeps what they return.
      decided: what the activations and pools met at x; None records it.
    """

    concatenate, mean = staticmethod(np.concatenate), staticmethod(np.mean)
    flip = staticmethod(lambda x: x[:, :, ::-1])
    average = staticmethod(lambda x: (x[:, :, 1:] + x[:, :, :-1]) / 2)

    def __init__(self, masks: list[np.ndarray] | None = None, decided: Any = None):
        self.masks, self.used = masks, 0
        self.decided = decided
        self.met: list[Any] = []

    def at_x(self, *values):
        self.met.append(values)
        return values if self.decided is None else self.decided[len(self.met) - 1]

    def masked(self, value):
        self.used += 1
        return value if self.masks is None else value * self.masks[self.used - 1]

    def convolution(self, x, kernel, bias):
        pad = kernel.shape[0] // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        out = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
        for i, j in np.ndindex(kernel.shape[:2]):
            out += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
        return out

    def activation(self, name, z):
        _, f, slope = ACTIVATIONS[name]
        (at_x,) = self.at_x(z)
        return self.masked(slope(at_x) * z + f(at_x) - slope(at_x) * at_x)

    def pool(self, kind, x):
        sign = 1 if kind == "max_pool" else -1
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=np.nan)
        seen = [padded[:, i : i + x.shape[1], j : j + x.shape[2]] for i in (0, 1) for j in (0, 1)]
        at_x = self.at_x(*seen)
        ranked = np.stack([np.nan_to_num(sign * one[0], nan=-np.inf) for one in at_x])
        winner = ranked.argmax(0)
        return np.select([np.broadcast_to(winner == k, x.shape) for k in range(4)], seen)

    def larger(self, kind, a, b):
        at_a, at_b = self.at_x(a, b)
        wins = at_a >= at_b if kind == "maximum" else at_a <= at_b
        return self.masked(np.where(wins, a, b))

    def scan(self, x, params, step):
        for own in zip(*params, strict=True):
            x = step(x, *own)
        return x


def run(
    network: list[Layer], params: list[Any], x: Any, xp: InJax | Frozen, extra: Any = None
) -> Any:
    """Logits of images (N, H, W, C).

    Args:
      extra: more kinds of layers, `name -> function of x`.
    """
    h = _run(network, params[0], x, xp, extra or {})
    return xp.mean(h, axis=(1, 2)) @ params[1][0] + params[1][1]


def _run(network: list[Layer], params: list[Any], x: Any, xp: Any, extra: Any) -> Any:
    for (kind, *options), own in zip(network, params, strict=True):
        if kind == "activation":
            x = xp.activation(options[0], xp.convolution(x, *own))
        elif kind == "convolution":
            x = xp.convolution(x, *own)
        elif kind == "scan":
            name = options[1]
            x = xp.scan(
                x, own, lambda h, k, b, name=name: xp.activation(name, xp.convolution(h, k, b))
            )
        elif kind == "scale":
            x = x * own[0] + own[1]
        elif kind in POOLS:
            x = xp.pool(kind, x)
        elif kind in extra:
            x = extra[kind](x)
        elif kind in ("flip", "average"):
            x = getattr(xp, kind)(x)
        else:
            branches = [
                xp.convolution(_run(branch, inner, x, xp, extra), *last)
                for branch, (inner, last) in zip(options, own, strict=True)
            ]
            x = _join(kind, x, branches, xp)
    return x


def _layer(xp: Any, name: str) -> Any:
    return lambda x, kernel, bias: xp.activation(name, xp.convolution(x, kernel, bias))


def _join(kind: str, x: Any, branches: list[Any], xp: Any) -> Any:
    if kind in ("maximum", "minimum"):
        width = min(branch.shape[2] for branch in branches)
        return xp.larger(kind, *(branch[:, :, :width] for branch in branches))
    width = min(x.shape[2], branches[0].shape[2])
    x, branch = x[:, :, :width], branches[0][:, :, :width]
    return x + branch if kind == "residual" else xp.concatenate([x, branch], axis=-1)
