"""Panels and galleries: sizes, one scale for all tiles, text that stays inside its column."""

import numpy as np
import pytest
from PIL import Image
from pixels import pixels

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.pictures import diverging, grid, panel, shared_scale


def test_panel_shows_four_tiles_on_one_scale() -> None:
    image = np.full((64, 48, 3), 90, np.uint8)
    positive, negative = np.zeros((64, 48, 3)), np.zeros((64, 48, 3))
    positive[:8], negative[-8:] = 1.0, -0.25
    drawn = panel(image, positive, negative, positive + negative, scale=3)
    assert drawn.size == (4 * 3 * 48 + 40, 3 * 64 + 38)
    tiles = [
        pixels(drawn)[-8 - 192 : -8, 8 + i * (144 + 8) :][:, :144][1::3, 1::3] for i in range(4)
    ]
    np.testing.assert_array_equal(tiles[0], image)
    vmax = shared_scale([positive, negative, positive + negative])
    for tile, heat in zip(tiles[1:], (positive, negative, positive + negative), strict=True):
        np.testing.assert_array_equal(tile, pixels(diverging(heat, vmax=vmax)))


def test_panel_has_a_title_and_enlarges_small_images() -> None:
    zero = np.zeros((64, 64))
    plain = panel(zero, zero, zero, zero)
    titled = panel(zero, zero, zero, zero, title="circle")
    assert plain.size == (4 * 192 + 40, 192 + 38)
    assert titled.size == (plain.width, plain.height + 30)
    assert (pixels(titled)[8:38] == 0).any(), "the title is not drawn in black"
    large = np.zeros((224, 300))
    assert panel(large, large, large, large).size == (4 * 300 + 40, 224 + 38)


def test_panel_of_a_method_without_parts() -> None:
    heat = np.random.default_rng(5).normal(size=(224, 200))
    drawn = panel(np.zeros((224, 200)), None, None, heat)
    assert drawn.size == (2 * 208 + 8, 224 + 38)
    np.testing.assert_array_equal(pixels(drawn)[30:254, 216:416], pixels(diverging(heat)))


def test_panel_refuses_maps_of_another_size() -> None:
    zero = np.zeros((6, 6))
    with pytest.raises(InputError, match="negative: Expected the size of the image"):
        panel(zero, zero, np.zeros((6, 5)), zero)
    with pytest.raises(InputError, match="scale"):
        panel(zero, zero, zero, zero, scale=0)


def test_grid_of_ragged_rows_and_mixed_sizes() -> None:
    wide, high = Image.new("RGB", (40, 10), "red"), Image.new("L", (10, 30), 0)
    drawn = grid([[wide, high], [high]], row_titles=["first", "second"])
    assert drawn.size == (40 + 10 + 3 * 8, 8 + 30 + 30 + 2 * 8 + 2 * 22)
    reds = np.argwhere((pixels(drawn) == (255, 0, 0)).all(axis=-1))
    assert reds.min(axis=0).tolist() == [8 + 22 + 10, 8]  # centred in a row that is 30 high
    assert reds.max(axis=0).tolist() == [8 + 22 + 19, 8 + 39]


def test_long_text_stays_inside_its_column() -> None:
    tile = Image.new("RGB", (80, 20), "white")
    drawn = pixels(grid([[tile, tile]], captions=["a long caption\nof two lines " * 50, ""]))
    ink = np.argwhere((drawn < 200).any(axis=-1))
    assert ink.size
    assert ink[:, 1].max() < 8 + 80
    empty = pixels(grid([[tile]], captions=["   "], title="é ü ツ"))
    assert empty.shape == (8 + 20 + 8 + 22 + 30, 96, 3)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([], {}, "at least one picture"),
        ([[]], {}, "at least one picture"),
        ([["tile"]], {"captions": ["a", "b"]}, "captions"),
        ([["tile"]], {"row_titles": ["a", "b"]}, "row_titles"),
        ([["tile"]], {"scale": 1.5}, "scale"),
    ],
)
def test_grid_refuses_what_it_cannot_lay_out(rows: list, options: dict, words: str) -> None:
    tile = Image.new("RGB", (4, 4))
    with pytest.raises((InputError, InputTypeError), match=words):
        grid([[tile for _ in row] for row in rows], **options)
