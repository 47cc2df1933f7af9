"""Mosaics and the grid pointing game on maps small enough to work out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import attribution_inside, grid_pointing_game, mosaic


def test_mosaic_is_row_by_row() -> None:
    images = np.arange(9 * 2 * 3 * 1, dtype=np.float32).reshape(9, 2, 3, 1)
    result = mosaic(images, 3)
    assert result.shape == (6, 9, 1)
    for i in range(9):
        row, column = divmod(i, 3)
        cell = result[2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        np.testing.assert_array_equal(cell, images[i])
    with pytest.raises(InputError, match="images: Expected n \\* n = 4 images, got 9"):
        mosaic(images, 2)


def test_share_by_hand() -> None:
    heatmap = np.array([[3.0, -9, 1, 0], [0, 1, 2, -2], [0, 0, 0, 1], [0, 0, -1, 0]])
    shares = [float(grid_pointing_game(heatmap, cell, 2)) for cell in range(4)]
    np.testing.assert_allclose(shares, [4 / 8, 3 / 8, 0, 1 / 8], rtol=1e-6)
    batch = grid_pointing_game(np.stack([heatmap] * 4), np.arange(4), 2)
    np.testing.assert_allclose(batch, shares, rtol=1e-6)
    for scale in (3e37, 1e36, 1e-36):
        np.testing.assert_allclose(grid_pointing_game(scale * heatmap, 0, 2), 0.5, rtol=1e-5)


def test_the_share_is_that_inside_the_mask_of_the_cell() -> None:
    maps = np.random.default_rng(2).normal(size=(9, 6, 12)).astype(np.float32)
    masks = np.zeros((9, 6, 12), bool)
    for cell in range(9):
        row, column = divmod(cell, 3)
        masks[cell, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4] = True
    shares = grid_pointing_game(maps, np.arange(9), 3)
    np.testing.assert_allclose(shares, attribution_inside(maps, masks), rtol=1e-6)


def test_blank_maps_score_zero_and_uniform_maps_their_area() -> None:
    assert grid_pointing_game(np.zeros((6, 6)), 4, 3) == 0
    assert grid_pointing_game(-np.ones((6, 6)), 4, 3) == 0
    assert grid_pointing_game(np.ones((6, 6)), 4, 3) == pytest.approx(1 / 9)


def test_jit() -> None:
    heatmap = jnp.arange(32.0).reshape(2, 4, 4) - 9
    jitted = jax.jit(lambda h, c: grid_pointing_game(h, c, 2))(heatmap, jnp.array([1, 3]))
    np.testing.assert_allclose(jitted, grid_pointing_game(heatmap, [1, 3], 2), rtol=1e-6)
    outside = jax.jit(lambda c: grid_pointing_game(heatmap, c, 2))(jnp.array([-1, 4]))
    assert np.isnan(outside).all()  # refused outside


@pytest.mark.parametrize(
    "shape, cell, n, error, message",
    [
        ((5, 4), 0, 2, InputError, "heatmap: Expected sides that 2 divides"),
        ((4, 4), 4, 2, InputError, "cell: Expected 0 <= cell < 4, got 4"),
        ((2, 4, 4), [0, 1, 2], 2, InputError, "cell: Expected an int or 2 labels"),
        ((4, 4), 0.0, 2, InputTypeError, "cell: Expected integers"),
        ((4, 4), 0, 0, InputError, "n: Expected at least 1"),
    ],
)
def test_grid_mistakes(
    shape: tuple[int, ...], cell: Any, n: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        grid_pointing_game(np.ones(shape), cell, n)
