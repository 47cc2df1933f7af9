"""The biases' part of F_σ taken back layer by layer, in float64 NumPy with plain loops.

Every layer is a matrix, built from the layer at unit vectors. What a layer hands down is the
cotangent of the logit, for ∇b ⊙ b, and the relevance R of its units.
"""

from typing import Any

import numpy as np
from oracle import Oracle


class LayerwiseOracle(Oracle):
    """∇ₓF_σ ⊙ x, and R_i = |h_i| Σ_j |w_ij| R_j / Σ_k |h_k| |w_kj| down to the pixels."""

    def carried(self, masks: list[np.ndarray]) -> np.ndarray:
        """The complete map of these masks; what no pixel reaches is shared equally."""
        self._masks, self._relu, self._pool = masks, 0, 0
        _, _, pull_back = self._layers(self.layers, self.params, self.x, abs(self.x))
        logit = np.zeros_like(self.logits)
        logit[self.label] = 1.0
        gradient, relevance = pull_back(logit, np.zeros_like(logit))
        whole = gradient * self.x + relevance
        total = self.gated(self.x, masks) - self.output_bias()
        return whole + (total - whole.sum()) / whole.size

    def _layers(self, layers: list, params: list, x: np.ndarray, m: np.ndarray) -> Any:
        """Value of F, sum of contributions, and the way back of a list of layers.

        Args:
          x: what they read.
          m: the contributions to x: |h| after an activation, |x| at the pixels.
        """
        ways = []
        for layer, p in zip(layers, params, strict=True):
            x, m, way = self._layer(layer, p, x, m)
            ways.append(way)

        def pull_back(cotangent: np.ndarray, relevance: np.ndarray) -> Any:
            for way in reversed(ways):
                cotangent, relevance = way(cotangent, relevance)
            return cotangent, relevance

        return x, m, pull_back

    def _layer(self, layer: tuple, p: Any, x: np.ndarray, m: np.ndarray) -> Any:
        kind, *options = layer
        if kind == "relu":
            h, slope = self.gates[self._relu] * x, self._masks[self._relu] * self.gates[self._relu]
            self._relu += 1
            return h, abs(h), lambda c, r: (slope * c, np.where(m > 0, r, 0))
        if kind == "residual":
            y, n, way = self._layers(options[0], p, x, m)

            def around(c: np.ndarray, r: np.ndarray) -> Any:
                below, inside = way(c, r * _over(n, m + n))
                return c + below, r * _over(m, m + n) + inside

            return x + y, m + n, around
        first_pool = self._pool

        def value(x: np.ndarray) -> np.ndarray:
            self._pool = first_pool
            return self._run([layer], [p], x, self._masks)

        bias = value(np.zeros_like(x))
        matrix = np.empty((bias.size, x.size))
        for index in range(x.size):
            unit = np.zeros(x.size)
            unit[index] = 1.0
            matrix[:, index] = (value(unit.reshape(x.shape)) - bias).ravel()
        given = abs(matrix) @ m.ravel()
        is_output = bias.ndim == 1 and layer is self.layers[-1]  # F_0 belongs to neither sign

        def way(c: np.ndarray, r: np.ndarray) -> Any:
            own = r.ravel() + (0.0 if is_output else (c * bias).ravel())
            down = m.ravel() * (abs(matrix).T @ _over(own, given))
            return (matrix.T @ c.ravel()).reshape(x.shape), down.reshape(x.shape)

        return (matrix @ x.ravel()).reshape(bias.shape) + bias, given.reshape(bias.shape), way


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part + whole), where=whole > 0)
