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
        first_relu, first_pool = self._relu, self._pool

        def value(x: np.ndarray) -> np.ndarray:
            self._pool = first_pool
            return self._run([layer], [p], x, self._masks)

        bias = value(np.zeros_like(x))
        matrix = np.empty((bias.size, x.size))
        for index in range(x.size):
            unit = np.zeros(x.size)
            unit[index] = 1.0
            matrix[:, index] = (value(unit.reshape(x.shape)) - bias).ravel()
        even = _even_reading(layer, x.shape)
        if first_relu == 0 and layer[0] == "conv" and layer[2] < layer[3]:
            even = np.eye(x.size)  # a pixel that is not read has no part
        read = abs(matrix) @ even
        given = read @ m.ravel()
        is_output = bias.ndim == 1 and layer is self.layers[-1]  # F_0 belongs to neither sign

        def way(c: np.ndarray, r: np.ndarray) -> Any:
            own = r.ravel() + (0.0 if is_output else (c * bias).ravel())
            down = m.ravel() * (read.T @ _over(own, given))
            return (matrix.T @ c.ravel()).reshape(x.shape), down.reshape(x.shape)

        return (matrix @ x.ravel()).reshape(bias.shape) + bias, given.reshape(bias.shape), way


def _even_reading(layer: tuple, shape: tuple[int, ...]) -> np.ndarray:
    """What a convolution reads of each position when its stride is averaged over its phases."""
    matrix = np.eye(int(np.prod(shape)))
    kind, *options = layer
    if kind != "conv" or options[1] % options[2] == 0:
        return matrix
    _, _, stride, _ = options
    matrix = np.zeros((*shape, *shape))
    for i, j, c in np.ndindex(*shape):
        for a, b in np.ndindex(*shape[:2]):
            rows, columns = stride - abs(a - i), stride - abs(b - j)
            matrix[i, j, c, a, b, c] = max(rows, 0) * max(columns, 0) / stride**4
    return matrix.reshape(np.prod(shape), np.prod(shape))


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part + whole), where=whole > 0)
