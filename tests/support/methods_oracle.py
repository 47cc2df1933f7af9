"""The compared methods, literally, in float64 NumPy: layer-by-layer back-propagation with rules.

Evaluates the networks of `small_networks.py` with plain loops and knows nothing of JAX.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from oracle import _convolve
from scipy.ndimage import gaussian_filter
from scipy.special import roots_legendre


@dataclass
class Node:
    """One evaluated layer: what came in and went out, its index among ReLUs or max-pools."""

    kind: str
    options: tuple[Any, ...]
    p: Any
    before: np.ndarray
    after: np.ndarray
    index: int = -1
    inner: list["Node"] = field(default_factory=list)
    cotangent: np.ndarray | None = None  # at its output, after `backward`


def forward(layers: list, params: list, x: np.ndarray, count: dict | None = None) -> list[Node]:
    count = {"relu": 0, "max_pool": 0} if count is None else count
    nodes = []
    for (kind, *options), p in zip(layers, params, strict=True):
        node = Node(kind, tuple(options), p, x, x)
        if kind in count:
            node.index, count[kind] = count[kind], count[kind] + 1
        if kind == "conv":
            node.after = _convolve(x, p["weight"], p["bias"], *options[2:])
        elif kind == "dense":
            node.after = x @ p["weight"] + p["bias"]
        elif kind == "norm":
            node.after = _norm_scale(p) * (x - p["mean"]) + p["offset"]
        elif kind == "relu":
            node.after = np.maximum(x, 0)
        elif kind == "max_pool":
            node.after = np.zeros(_pooled(x, *options))
            for out, window in windows(x, *options):
                node.after[out] = max(x[where] for where in window)
        elif kind == "residual":
            node.inner = forward(options[0], p, x, count)
            node.after = x + node.inner[-1].after
        elif kind == "flatten":
            node.after = x.reshape(-1)
        elif kind == "mean":
            node.after = x.mean((0, 1))
        x = node.after
        nodes.append(node)
    return nodes


def relu_derivative(node: Node, c: np.ndarray) -> np.ndarray:
    return c * (node.before > 0)


def max_pool_derivative(node: Node, c: np.ndarray) -> np.ndarray:
    result = np.zeros_like(node.before)
    for out, window in windows(node.before, *node.options):
        result[max(window, key=lambda where: node.before[where])] += c[out]
    return result


def backward(
    nodes: list[Node],
    c: np.ndarray,
    relu: Callable[[Node, np.ndarray], np.ndarray] = relu_derivative,
    max_pool: Callable[[Node, np.ndarray], np.ndarray] = max_pool_derivative,
) -> np.ndarray:
    """Cotangent at the input; every node keeps the cotangent at its output."""
    for node in reversed(nodes):
        node.cotangent = c
        if node.kind == "conv":
            c = _convolve_back(node, c)
        elif node.kind == "dense":
            c = node.p["weight"] @ c
        elif node.kind == "norm":
            c = _norm_scale(node.p) * c
        elif node.kind == "relu":
            c = relu(node, c)
        elif node.kind == "max_pool":
            c = max_pool(node, c)
        elif node.kind == "residual":
            c = c + backward(node.inner, c, relu, max_pool)
        elif node.kind == "flatten":
            c = c.reshape(node.before.shape)
        elif node.kind == "mean":
            c = np.broadcast_to(c / node.before[..., 0].size, node.before.shape)
    return c


def flatten(nodes: list[Node]) -> list[Node]:
    """All nodes in order of evaluation, those inside residuals included."""
    return [leaf for node in nodes for leaf in [*flatten(node.inner), node]]


class Methods:
    """Every deterministic method for one network and label."""

    def __init__(self, layers: list, params: list, label: int):
        self.layers, self.params, self.label = layers, params, label

    def nodes(self, x: np.ndarray) -> list[Node]:
        return forward(self.layers, self.params, x)

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.nodes(x)[-1].after

    def logit(self, x: np.ndarray) -> float:
        return self.logits(x)[self.label]

    def backward(self, nodes: list[Node], **rules: Any) -> np.ndarray:
        c = np.zeros_like(nodes[-1].after)
        c[self.label] = 1
        return backward(nodes, c, **rules)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self.backward(self.nodes(x))

    def integrated_gradients(self, x: np.ndarray, start: np.ndarray, points: int, rule: str):
        if rule == "trapezoid":
            alphas = np.arange(points) / (points - 1)
            mean = np.trapezoid(
                [self.gradient(start + a * (x - start)) for a in alphas], alphas, axis=0
            )
        else:
            nodes, weights = roots_legendre(points)
            mean = sum(
                w / 2 * self.gradient(start + (t + 1) / 2 * (x - start))
                for t, w in zip(nodes, weights, strict=True)
            )
        return (x - start) * mean

    def blur_ig(self, x: np.ndarray, sigmas: np.ndarray, grad_step: float) -> np.ndarray:
        def blur(sigma: float) -> np.ndarray:
            return gaussian_filter(x, (sigma, sigma, 0), mode="constant")

        heat = np.zeros_like(x)
        for sigma, following in pairwise(sigmas):
            change = (blur(sigma + grad_step) - blur(sigma)) / grad_step
            heat -= (following - sigma) * self.gradient(blur(sigma)) * change
        return heat

    def guided_backprop(self, x: np.ndarray) -> np.ndarray:
        return self.backward(
            self.nodes(x), relu=lambda node, c: np.where((node.before > 0) & (c > 0), c, 0)
        )

    def deeplift(self, x: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Multipliers; times (x − start) they are the map."""
        reference = {(n.kind, n.index): n for n in flatten(self.nodes(start)) if n.index >= 0}

        def relu(node: Node, c: np.ndarray) -> np.ndarray:
            there = reference["relu", node.index]
            change = node.before - there.before
            slope = np.where(node.before > 0, 1.0, 0.0)
            np.divide(node.after - there.after, change, out=slope, where=change != 0)
            return slope * c

        def max_pool(node: Node, c: np.ndarray) -> np.ndarray:
            there = reference["max_pool", node.index]
            result = np.zeros_like(node.before)
            for out, window in windows(node.before, *node.options):
                change = node.after[out] - there.after[out]
                values = node.before if change >= 0 else there.before
                winner = max(window, key=lambda where, values=values: values[where])
                change_in = node.before[winner] - there.before[winner]
                result[winner] += c[out] * (change / change_in if change_in else 1.0)
            return result

        return self.backward(self.nodes(x), relu=relu, max_pool=max_pool)

    def gradcam(self, x: np.ndarray, kind: str, index: int) -> np.ndarray:
        """Before enlarging."""
        nodes = self.nodes(x)
        self.backward(nodes)
        (node,) = [n for n in flatten(nodes) if (n.kind, n.index) == (kind, index)]
        assert node.cotangent is not None
        return np.maximum((node.cotangent.sum((0, 1)) * node.after).sum(-1), 0)

    def fullgrad(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """The map, and Σ of all terms − F_c(x)."""
        nodes = self.nodes(x)
        terms = [self.backward(nodes) * x]
        flat = flatten(nodes)
        for node, after in zip(flat, [*flat[1:], None], strict=True):
            if node.kind not in ("conv", "dense"):
                continue
            constant, last = node.p["bias"], node
            if after is not None and after.kind == "norm":
                constant = _norm_scale(after.p) * (constant - after.p["mean"]) + after.p["offset"]
                last = after
            terms.append(last.cotangent * constant)
        heat = np.zeros(x.shape[:2])
        for term in terms:
            if term.ndim == 3:
                size = abs(term) - abs(term).min()
                heat += enlarge_corners((size / (size.max() + 1e-6)).sum(-1), x.shape[:2])
        return heat, sum(term.sum() for term in terms) - nodes[-1].after[self.label]

    def lpr_map(self, x: np.ndarray, theta: list[np.ndarray]) -> np.ndarray:
        """Positive evidence of the backward pass with weights sigmoid(θ) on the cotangents."""

        def relu(node: Node, c: np.ndarray) -> np.ndarray:
            return c * (node.before > 0) / (1 + np.exp(-theta[node.index]))

        return np.maximum((self.backward(self.nodes(x), relu=relu) * x).sum(-1), 0)

    def lpr_loss(
        self, x: np.ndarray, theta: list[np.ndarray], fill: np.ndarray, area_weight: float
    ) -> float:
        positive = self.lpr_map(x, theta)
        scale = np.percentile(positive, 90) or positive.max() or 1.0
        mask = np.minimum(positive / scale, 1)[..., None]
        lost = self.logit(x) - self.logit(mask * x + (1 - mask) * fill)
        return max(lost, 0.0) / abs(self.logit(x)) + area_weight * mask.mean()


def windows(x: np.ndarray, size: int, stride: int, pad: int) -> list:
    """(output index, input indices in row-major order) of every window."""
    height, width, _ = x.shape
    result = []
    for i, j, c in np.ndindex(*_pooled(x, size, stride, pad)):
        rows = range(max(i * stride - pad, 0), min(i * stride - pad + size, height))
        columns = range(max(j * stride - pad, 0), min(j * stride - pad + size, width))
        result.append(((i, j, c), [(a, b, c) for a in rows for b in columns]))
    return result


def enlarge_corners(heat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bilinear, corners aligned: sample (h, w) at linspace(0, h − 1, H), linspace(0, w − 1, W)."""
    rows, columns = (np.linspace(0, n - 1, m) for n, m in zip(heat.shape, shape, strict=True))
    return _sample(heat, rows, columns)


def enlarge_centres(heat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bilinear, half-pixel centres, clamped at the borders."""
    rows, columns = (
        np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        for n, m in zip(heat.shape, shape, strict=True)
    )
    return _sample(heat, rows, columns)


def _sample(heat: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    along_rows = np.stack(
        [np.interp(rows, np.arange(heat.shape[0]), column) for column in heat.T], axis=1
    )
    return np.stack([np.interp(columns, np.arange(heat.shape[1]), row) for row in along_rows])


def _pooled(x: np.ndarray, size: int, stride: int, pad: int) -> tuple[int, int, int]:
    rows, columns = ((n + 2 * pad - size) // stride + 1 for n in x.shape[:2])
    return rows, columns, x.shape[2]


def _norm_scale(p: dict) -> np.ndarray:
    return p["scale"] / np.sqrt(p["variance"] + 1e-5)


def _convolve_back(node: Node, c: np.ndarray) -> np.ndarray:
    _, size, stride, pad = node.options
    height, width, channels = node.before.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, channels))
    for i, j in np.ndindex(*c.shape[:2]):
        patch = np.einsum("abco,o->abc", node.p["weight"], c[i, j])
        padded[i * stride : i * stride + size, j * stride : j * stride + size] += patch
    return padded[pad : pad + height, pad : pad + width]
