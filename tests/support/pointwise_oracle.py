"""A dense network with any activation, frozen at x: literal float64 NumPy, written by hand.

Slopes and intercepts are given by formulas of the mathematics, not by differentiation of code.
"""

import itertools
from collections.abc import Callable

import numpy as np

Formula = Callable[[np.ndarray], np.ndarray]
IMAGE = (2, 2, 3)
WIDTHS = (12, 6, 5, 4)


def make_params(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights and biases of three dense layers."""
    rng = np.random.default_rng(seed)
    params = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(WIDTHS)):
        params[f"w{layer}"] = rng.normal(size=(fan_in, fan_out)) * 2 / np.sqrt(fan_in)
        params[f"b{layer}"] = 0.3 * rng.normal(size=fan_out)
    return params


def apply_fn_of(activation: Callable) -> Callable:
    """The JAX network with this activation."""

    def network(params, x):
        h = x.reshape(len(x), -1)
        h = activation(h @ params["w0"] + params["b0"])
        h = activation(h @ params["w1"] + params["b1"])
        return h @ params["w2"] + params["b2"]

    return network


class FrozenDense:
    """The same network at one image, with f(z) and slope(z) of its activation."""

    def __init__(self, params: dict, x: np.ndarray, label: int, f: Formula, slope: Formula):
        self.params, self.x, self.label = params, x, label
        h, self.slopes, self.intercepts = x.reshape(-1), [], []
        for layer in range(2):
            z = h @ params[f"w{layer}"] + params[f"b{layer}"]
            self.slopes.append(slope(z))
            self.intercepts.append(f(z) - slope(z) * z)
            h = f(z)
        self.logits = h @ params["w2"] + params["b2"]

    def gated(self, x: np.ndarray, masks: list[np.ndarray]) -> float:
        """F_σ(x) of the label: every activation returns σ ⊙ (slope ⊙ z + intercept)."""
        h = x.reshape(-1)
        for layer, mask in enumerate(masks):
            z = h @ self.params[f"w{layer}"] + self.params[f"b{layer}"]
            h = mask * (self.slopes[layer] * z + self.intercepts[layer])
        return (h @ self.params["w2"] + self.params["b2"])[self.label]

    def terms(self, masks: list[np.ndarray]) -> tuple[float, float, float]:
        """y, y⁺, y⁻ (Eq. 9); F_0 is the output bias."""
        closed = self.params["b2"][self.label]
        inverse = [1 - mask for mask in masks]
        return (
            self.logits[self.label] - closed,
            self.gated(self.x, masks) - closed,
            self.gated(self.x, inverse) - closed,
        )

    def loss(self, masks: list[np.ndarray]) -> float:
        """Eq. 10."""
        y, y_positive, y_negative = self.terms(masks)
        return y_negative - y_positive + abs(y - y_positive - y_negative)

    def attribution(self, masks: list[np.ndarray]) -> np.ndarray:
        """∇ₓF_σ ⊙ x, one unit vector at a time."""
        at_zero = self.gated(np.zeros(IMAGE), masks)
        units = np.eye(self.x.size).reshape(-1, *IMAGE)
        gradient = [self.gated(unit, masks) - at_zero for unit in units]
        return np.reshape(gradient, IMAGE) * self.x
