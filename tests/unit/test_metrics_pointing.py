"""Pointing game on maps small enough to work out by hand."""

from typing import Any

import jax
import numpy as np
import pytest

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import pointing_game


def peak(row: int, column: int, size: int = 40) -> np.ndarray:
    heatmap = np.full((size, size), -1.0)
    heatmap[row, column] = 2
    return heatmap


def mask(row: int, column: int, size: int = 40) -> np.ndarray:
    result = np.zeros((size, size), bool)
    result[row, column] = True
    return result


@pytest.mark.parametrize(
    "row, column, tolerance, hit",
    [
        (10, 10, 0, 1),  # on the mask
        (10, 11, 0, 0),
        (10, 11, 1, 0),  # strict: distance 1 is not below 1
        (10, 11, 1.5, 1),
        (10, 24, 15, 1),
        (10, 25, 15, 0),
        (19, 22, 15, 0),  # 9² + 12² = 15²
        (19, 21, 15, 1),
    ],
)
def test_tolerance_is_a_strict_radius(row: int, column: int, tolerance: float, hit: int) -> None:
    assert pointing_game(peak(row, column), mask(10, 10), tolerance=tolerance).hit == hit


def test_accuracy_per_class_and_its_mean() -> None:
    maps = np.stack([peak(0, 0), peak(0, 0), peak(39, 39), peak(39, 39), peak(0, 0)])
    masks = np.stack([mask(0, 5)] * 4 + [np.zeros((40, 40), bool)])
    game = pointing_game(maps, masks, [7, 7, 7, 2, 3])
    np.testing.assert_array_equal(game.hit, [1, 1, 0, 0, np.nan])
    assert game.classes.tolist() == [2, 3, 7] and game.class_count.tolist() == [1, 0, 3]
    np.testing.assert_allclose(game.class_accuracy, [0, np.nan, 2 / 3])
    assert game.mean == pytest.approx(1 / 3)
    plain = pointing_game(maps, masks)
    assert plain.mean == pytest.approx(1 / 2) and plain.classes.shape == (0,)


def test_a_constant_map_points_nowhere() -> None:
    everywhere = np.ones((8, 8), bool)
    assert pointing_game(np.zeros((8, 8)), everywhere).hit == 0
    assert np.isnan(pointing_game(np.zeros((8, 8)), ~everywhere).hit)


def test_the_first_of_two_peaks_counts() -> None:
    heatmap = np.zeros((40, 40))
    heatmap[0, 39] = heatmap[39, 0] = 1
    assert pointing_game(heatmap, mask(0, 39), tolerance=1).hit == 1
    assert pointing_game(heatmap, mask(39, 0), tolerance=1).hit == 0


def test_inside_jit() -> None:
    maps = np.stack([peak(0, 0), peak(39, 39), np.full((40, 40), np.nan)])
    masks = np.stack([mask(0, 5)] * 3)
    game = jax.jit(lambda maps: pointing_game(maps, masks, [7, 7, 2]))(maps)
    np.testing.assert_array_equal(game.hit, [1, 0, np.nan])
    np.testing.assert_array_equal(game.class_accuracy, [np.nan, 1 / 2])
    with pytest.raises(InputError, match="label: Expected classes that are known"):
        jax.jit(lambda label: pointing_game(maps, masks, label))(np.array([7, 7, 2]))


@pytest.mark.parametrize(
    "heatmap, masks, options, error, message",
    [
        (np.ones((4, 4)), np.ones((3, 4)), {}, InputError, "masks: Expected shape"),
        (np.ones((4, 4)), np.full((4, 4), 0.5), {}, InputError, "masks: Expected booleans"),
        (np.ones((4, 4)), np.ones((4, 4)), {"tolerance": -1}, InputError, "tolerance: Expected"),
        (np.ones((4, 4)), np.ones((4, 4)), {"tolerance": "5"}, InputTypeError, "tolerance: Expec"),
        (
            np.ones((2, 4, 4)),
            np.ones((2, 4, 4)),
            {"label": [1]},
            InputError,
            "label: Expected an int or 2",
        ),
        (np.ones((1, 4, 4)), np.ones((1, 4, 4)), {"label": [1.0]}, InputTypeError, "label: Exp"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), {}, InputError, "heatmap: Expected finite"),
    ],
)
def test_pointing_mistakes(
    heatmap: Any, masks: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pointing_game(heatmap, masks, **options)
