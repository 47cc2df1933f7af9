"""Wrong arguments of the curves are refused by name."""

from typing import Any

import jax
import numpy as np
import pytest
from curve_oracle import LABELS, MAPS, WEIGHTS, X, small_cnn

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import insertion

BAD_MAP = MAPS.copy()
BAD_MAP[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"heatmap": MAPS[:2]}, InputError, r"heatmap: Expected shape \(3, 9, 7\)"),
        ({"heatmap": MAPS[0]}, InputError, "heatmap: Expected shape"),
        ({"heatmap": BAD_MAP}, InputError, r"heatmap: Expected finite.*nan at index \(1, 2, 3\)"),
        ({"heatmap": "saliency"}, InputTypeError, "heatmap: Expected an array, got str"),
        ({"heatmap": MAPS + 1j}, InputTypeError, "heatmap: Expected real numbers"),
        ({"label": [1, 2]}, InputError, "label: Expected an int or 3 labels"),
        ({"label": 5}, InputError, "label: Expected 0 <= label < 5"),
        ({"step": 0}, InputError, "step: Expected at least 1"),
        ({"step": 1.5}, InputTypeError, "step: Expected an int"),
        ({"points": 1}, InputError, "points: Expected at least 2"),
        ({"points": 65}, InputError, r"points: Expected at most 64"),
        ({"points": 5, "step": 5}, InputError, "points: Expected step or points, got both"),
        ({"chunk_size": 0}, InputError, "chunk_size: Expected at least 1"),
        ({"activation": "relu"}, InputError, "activation: Expected one of"),
        ({"activation": jax.nn.softmax}, InputTypeError, "activation: Expected one of"),
        ({"order": "random"}, InputError, "order: Expected"),
        ({"blur": "box"}, InputError, "blur: Expected one of .*'rise'.* got 'box'"),
        ({"blur": ("gaussian", 4, 1.0)}, InputError, "blur: Expected an odd size"),
        ({"blur": ("gaussian", 5, 0.0)}, InputError, "blur sigma: Expected a number"),
        ({"blur": ("gaussian", 5, "wide")}, InputTypeError, "blur sigma: Expected a number"),
        ({"blur": np.zeros((2, 2, 2))}, InputError, r"blur: Expected shape \(9, 7, 2\)"),
        ({"blur": None}, InputTypeError, "blur: Expected"),
        ({"apply_fn": None}, InputTypeError, "params: Expected a callable pytree"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"label": LABELS, "heatmap": MAPS, "apply_fn": small_cnn, **change}
    with pytest.raises(error, match=message):
        insertion(WEIGHTS, X, **arguments)
