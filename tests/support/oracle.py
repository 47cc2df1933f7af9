"""The paper's Eq. 8–14, literally, in float64 NumPy with plain loops: slow, independent, simple.

Gradients come from what the equations say about the function, not from back-propagation: F_σ is
affine in x, so ∇ₓF_σ·e = F_σ(e) − F_σ(0) for every unit vector e; and affine in every single mask
value, so ∂F_σ/∂σ_i = F_σ|σ_i=1 − F_σ|σ_i=0.
"""

from typing import Any

import numpy as np


class Oracle:
    """One network frozen at one image."""

    def __init__(self, layers: list, params: list, x: np.ndarray, label: int):
        self.layers, self.params, self.x, self.label = layers, params, x, label
        self.gates: list[np.ndarray] = []
        self.winners: list[np.ndarray] = []
        self._recording = True
        self.logits = self._forward(x, None)
        self._recording = False
        self.shapes = [gate.shape for gate in self.gates]

    def gated(self, x: np.ndarray, masks: list[np.ndarray]) -> float:
        """F_σ(x) of the label (Eq. 8)."""
        return self._forward(x, masks)[self.label]

    def output_bias(self) -> float:
        """F_0: all masks closed."""
        return self.gated(self.x, [np.zeros(shape) for shape in self.shapes])

    def terms(self, masks: list[np.ndarray]) -> tuple[float, float, float]:
        """y, y⁺, y⁻ (Eq. 9)."""
        closed = self.output_bias()
        inverse = [1 - mask for mask in masks]
        return (
            self.logits[self.label] - closed,
            self.gated(self.x, masks) - closed,
            self.gated(self.x, inverse) - closed,
        )

    def loss(self, masks: list[np.ndarray], variant: str = "all") -> float:
        """Eq. 10 and the variants of Table 1."""
        y, y_positive, y_negative = self.terms(masks)
        if variant == "positive":
            return -y_positive
        rest = abs(y - y_positive - y_negative) if variant == "all" else 0.0
        return y_negative - y_positive + rest

    def attribution(self, masks: list[np.ndarray]) -> np.ndarray:
        """∇ₓF_σ ⊙ x, one unit vector at a time."""
        at_zero = self.gated(np.zeros_like(self.x), masks)
        gradient = np.zeros_like(self.x)
        for index in np.ndindex(*self.x.shape):
            unit = np.zeros_like(self.x)
            unit[index] = 1.0
            gradient[index] = self.gated(unit, masks) - at_zero
        return gradient * self.x

    def mask_gradient(self, masks: list[np.ndarray], variant: str = "all") -> list[np.ndarray]:
        """∂L/∂σ, one mask value at a time."""
        y, y_positive, y_negative = self.terms(masks)
        kink = np.sign(y - y_positive - y_negative) if variant == "all" else 0.0
        weight_positive = -1.0 - kink
        weight_negative = 0.0 if variant == "positive" else 1.0 - kink
        inverse = [1 - mask for mask in masks]
        gradients = []
        for layer, shape in enumerate(self.shapes):
            gradient = np.zeros(shape)
            for index in np.ndindex(*shape):
                of_positive = self._difference(masks, layer, index)
                of_negative = -self._difference(inverse, layer, index)
                gradient[index] = weight_positive * of_positive + weight_negative * of_negative
            gradients.append(gradient)
        return gradients

    def _difference(self, masks: list[np.ndarray], layer: int, index: tuple[int, ...]) -> float:
        values = []
        for value in (1.0, 0.0):
            changed = list(masks)
            changed[layer] = masks[layer].copy()
            changed[layer][index] = value
            values.append(self.gated(self.x, changed))
        return values[0] - values[1]

    def _forward(self, x: np.ndarray, masks: Any) -> np.ndarray:
        self._relu, self._pool = 0, 0
        return self._run(self.layers, self.params, x, masks)

    def _run(self, layers: list, params: list, x: np.ndarray, masks: Any) -> np.ndarray:
        for (kind, *options), p in zip(layers, params, strict=True):
            if kind == "conv":
                x = _convolve(x, p["weight"], p["bias"], *options[2:])
            elif kind == "dense":
                x = np.array([x @ column for column in p["weight"].T]) + p["bias"]
            elif kind == "norm":
                x = (x - p["mean"]) / np.sqrt(p["variance"] + 1e-5) * p["scale"] + p["offset"]
            elif kind == "relu":
                if self._recording:
                    self.gates.append(np.where(x > 0, 1.0, 0.0))
                gate = self.gates[self._relu]
                sigma = np.ones_like(gate) if masks is None else masks[self._relu]
                x = sigma * gate * x
                self._relu += 1
            elif kind == "max_pool":
                x = self._max_pool(x, *options)
            elif kind == "residual":
                x = x + self._run(options[0], p, x, masks)
            elif kind == "flatten":
                x = x.reshape(-1)
            elif kind == "mean":
                x = x.mean((0, 1))
        return x

    def _max_pool(self, x: np.ndarray, size: int, stride: int, pad: int) -> np.ndarray:
        height, width, channels = x.shape
        rows = (height + 2 * pad - size) // stride + 1
        columns = (width + 2 * pad - size) // stride + 1
        if self._recording:
            winner = np.zeros((rows, columns, channels, 2), int)
            for i, j, c in np.ndindex(rows, columns, channels):
                best = -np.inf
                for a in range(i * stride - pad, i * stride - pad + size):
                    for b in range(j * stride - pad, j * stride - pad + size):
                        if 0 <= a < height and 0 <= b < width and x[a, b, c] > best:
                            best = x[a, b, c]
                            winner[i, j, c] = a, b
            self.winners.append(winner)
        winner = self.winners[self._pool]
        self._pool += 1
        out = np.zeros((rows, columns, channels))
        for i, j, c in np.ndindex(rows, columns, channels):
            a, b = winner[i, j, c]
            out[i, j, c] = x[a, b, c]
        return out


def _convolve(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pad: int
) -> np.ndarray:
    size = weight.shape[0]
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    rows = (x.shape[0] - size) // stride + 1
    columns = (x.shape[1] - size) // stride + 1
    out = np.zeros((rows, columns, weight.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        patch = x[i * stride : i * stride + size, j * stride : j * stride + size]
        out[i, j] = np.einsum("abc,abco->o", patch, weight) + bias
    return out
