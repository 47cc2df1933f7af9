"""Networks with gates in literal float64 NumPy, every gate frozen at x by hand.

A value goes through the network twice: `exact` at x, and `value` with masks, at any other input.
Gates, statistics and attention weights are computed from `exact` alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Params = Mapping[str, Any]


class Pair(NamedTuple):
    """(H, W, C) or (tokens, C): the frozen network's value, and the network's own at x."""

    value: np.ndarray
    exact: np.ndarray


def each(pair: Pair, f: Callable[[np.ndarray], np.ndarray]) -> Pair:
    """The same affine function of both."""
    return Pair(f(pair.value), f(pair.exact))


def add(a: Pair, b: Pair) -> Pair:
    return Pair(a.value + b.value, a.exact + b.exact)


def dense(p: Params, h: Pair) -> Pair:
    kernel = np.asarray(p["kernel"])
    return each(h, lambda a: a @ kernel + np.asarray(p.get("bias", 0.0)))


def gated(h: Pair, factor: np.ndarray) -> Pair:
    """A product with a factor that was computed from `exact`."""
    return each(h, lambda a: a * factor)


def relu(h: Pair, mask: np.ndarray) -> Pair:
    return Pair(mask * (h.exact > 0) * h.value, np.maximum(h.exact, 0))


def gelu(h: Pair, mask: np.ndarray) -> Pair:
    """The form with tanh; its secant through f(0) = 0."""
    z = h.exact
    gate = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    return Pair(mask * gate * h.value, gate * z)


def normalise(p: Params, h: Pair, axes: tuple[int, ...], eps: float, centre: bool = True) -> Pair:
    """Mean and deviation over `axes`; the mean is affine, the deviation is frozen."""
    mean = (lambda a: a.mean(axes, keepdims=True)) if centre else (lambda a: 0.0)
    deviation = np.sqrt(((h.exact - mean(h.exact)) ** 2).mean(axes, keepdims=True) + eps)
    scale, bias = np.asarray(p.get("scale", 1.0)), np.asarray(p.get("bias", 0.0))
    return each(h, lambda a: (a - mean(a)) / deviation * scale + bias)


def group_normalise(p: Params, h: Pair, groups: int, eps: float) -> Pair:
    height, width, channels = h.exact.shape
    grouped = each(h, lambda a: a.reshape(height, width, groups, channels // groups))
    normal = normalise({}, grouped, (0, 1, 3), eps)
    scale, bias = np.asarray(p["scale"]), np.asarray(p["bias"])
    return each(normal, lambda a: a.reshape(height, width, channels) * scale + bias)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(
    p: Params, h: Pair, unit: bool = False, mask: np.ndarray | None = None, scale: float = 0.0
) -> Pair:
    """Flax's multi-head attention: kernels (C, heads, c) and (heads, c, C); weights frozen.

    Args:
      unit: queries and keys have length 1 (cosine attention).
      mask: (tokens, tokens), False where a query does not see a key.
      scale: of the scores; 0 is 1/√c.
    """

    def project(name: str, a: np.ndarray) -> np.ndarray:  # (heads, tokens, c)
        kernel, bias = np.asarray(p[name]["kernel"]), np.asarray(p[name]["bias"])
        return np.einsum("tc,chd->htd", a, kernel) + bias[:, None]

    q, k = project("query", h.exact), project("key", h.exact)
    if unit:
        q, k = (a / np.sqrt((a * a).sum(-1, keepdims=True)) for a in (q, k))
    scores = np.einsum("hqd,hkd->hqk", q, k) * (scale or 1 / np.sqrt(q.shape[-1]))
    weights = softmax(scores if mask is None else np.where(mask, scores, -np.inf))
    kernel, bias = np.asarray(p["out"]["kernel"]), np.asarray(p["out"]["bias"])

    def mixed(a: np.ndarray) -> np.ndarray:
        seen = np.einsum("hqk,hkd->qhd", weights, project("value", a))
        return np.einsum("qhd,hdc->qc", seen, kernel) + bias

    return each(h, mixed)


class Frozen:
    """A network of such pairs at one image.

    Args:
      network: `(pair of x, masks) -> pair of logits`.
      x: image.
    """

    def __init__(
        self,
        network: Callable[[Pair, Sequence[Any]], Pair],
        x: np.ndarray,
        label: int,
        count: int,
    ):
        self.network, self.x, self.label = network, x, label
        self.logits = network(Pair(x, x), [1.0] * count).exact
        self.closed = self.gated(0 * x, [0.0] * count)  # F_0

    def gated(self, x: np.ndarray, masks: Sequence[Any]) -> float:
        """F_σ of the label, frozen at the image."""
        return self.network(Pair(x, self.x), masks).value[self.label]

    def terms(self, masks: Sequence[np.ndarray]) -> tuple[float, float, float]:
        """y, y⁺, y⁻ (Eq. 9)."""
        inverse = [1 - mask for mask in masks]
        return (
            self.logits[self.label] - self.closed,
            self.gated(self.x, masks) - self.closed,
            self.gated(self.x, inverse) - self.closed,
        )

    def loss(self, masks: Sequence[np.ndarray]) -> float:
        """Eq. 10."""
        y, y_positive, y_negative = self.terms(masks)
        return y_negative - y_positive + abs(y - y_positive - y_negative)

    def attribution(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """∇ₓF_σ ⊙ x, one unit vector at a time."""
        at_zero = self.gated(0 * self.x, masks)
        units = np.eye(self.x.size).reshape(-1, *self.x.shape)
        gradient = [self.gated(unit, masks) - at_zero for unit in units]
        return np.reshape(gradient, self.x.shape) * self.x
