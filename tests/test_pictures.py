"""Pictures of maps: zero is white, the sign keeps its colour, nothing is ever NaN.

Expected colours are worked by hand, or come from matplotlib where it is installed.
"""

import doctest
import importlib

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.pictures import diverging, grid, overlay, panel, seismic, shared_scale

WHITE, RED, BLUE = (255, 255, 255), (128, 0, 0), (0, 0, 76)
RED_SHADES = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]])


def pixels(picture: Image.Image) -> np.ndarray:
    assert isinstance(picture, Image.Image)
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("name", ["colours", "maps", "overlays", "layout"])
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"dmbp_jax.pictures.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# colours


def test_seismic_is_the_function_matplotlib_samples() -> None:
    colormaps = pytest.importorskip("matplotlib").colormaps
    places = np.linspace(0, 1, 256)
    np.testing.assert_allclose(
        seismic(2 * places - 1), colormaps["seismic"](places)[:, :3], rtol=0, atol=1e-12
    )


def test_seismic_by_hand() -> None:
    expected = [
        [0, 0, 0.3],
        [0, 0, 0.65],
        [0, 0, 1],
        [0.5, 0.5, 1],
        [1, 1, 1],
        [1, 0.5, 0.5],
        [1, 0, 0],
        [0.75, 0, 0],
        [0.5, 0, 0],
    ]
    np.testing.assert_allclose(seismic(np.linspace(-1, 1, 9)), expected, atol=1e-15)


def test_seismic_beyond_its_ends_and_any_shape() -> None:
    assert seismic(np.full((2, 3, 4), 7.0)).shape == (2, 3, 4, 3)
    np.testing.assert_array_equal(seismic([-9.0, 9.0]), seismic([-1.0, 1.0]))


# diverging maps


def test_sign_and_zero_keep_their_colours() -> None:
    drawn = pixels(diverging(np.array([[-2.0, 0.0, 2.0]]), vmax=2.0))
    np.testing.assert_array_equal(drawn, [[BLUE, WHITE, RED]])


def test_zero_stays_white_where_the_map_is_lopsided() -> None:
    heat = np.array([[0.0, 5.0, 5.0, 5.0, 1.0]])
    assert tuple(pixels(diverging(heat, percentile=100))[0, 0]) == WHITE
    drawn = pixels(diverging(-heat, percentile=100)).astype(int)
    assert tuple(drawn[0, 0]) == WHITE
    assert (drawn[0, 1:, 2] > drawn[0, 1:, 0]).all()


def test_values_are_linear_in_the_scale_and_clipped() -> None:
    drawn = pixels(diverging(np.array([[1.0, 2.0, 3.0, 4.0, 400.0]]), vmax=4.0))
    np.testing.assert_array_equal(drawn[0, :4], np.rint(255 * seismic(RED_SHADES[0, 1:])))
    np.testing.assert_array_equal(drawn[0, 4], drawn[0, 3])


def test_channels_are_summed() -> None:
    channels = np.random.default_rng(0).normal(size=(5, 7, 3))
    np.testing.assert_array_equal(
        pixels(diverging(channels)), pixels(diverging(channels.sum(axis=-1)))
    )


def test_own_scale_is_the_percentile_and_does_not_know_the_units() -> None:
    heat = np.random.default_rng(1).normal(size=(20, 30))
    scale = np.percentile(np.abs(heat), 99.5)
    np.testing.assert_array_equal(pixels(diverging(heat)), pixels(diverging(heat, vmax=scale)))
    np.testing.assert_array_equal(pixels(diverging(heat)), pixels(diverging(1024 * heat)))
    assert diverging(heat).size == (30, 20)


@pytest.mark.parametrize("value", [0.0, -0.0, 3.0, -3.0, 5e-324, 1e308])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (1, 1)])
def test_zero_and_constant_maps_are_neutral(value: float, shape: tuple[int, ...]) -> None:
    assert (pixels(diverging(np.full(shape, value))) == 255).all()


def test_a_constant_map_on_a_given_scale_shows_its_value() -> None:
    assert (pixels(diverging(np.full((2, 2), 3.0), vmax=3.0)) == RED).all()
    assert (pixels(diverging(np.zeros((2, 2)), vmax=3.0)) == 255).all()


def test_one_pixel_in_a_large_empty_map_is_drawn() -> None:
    heat = np.zeros((100, 100))
    heat[3, 4] = -1e-30
    drawn = pixels(diverging(heat))
    assert tuple(drawn[3, 4]) == BLUE
    assert (drawn.reshape(-1, 3) == 255).all(axis=1).sum() == 9999


@pytest.mark.parametrize(
    "heat",
    [
        np.array([[5e-324, 1.0], [0.0, -1.0]]),
        np.array([[1e308, -1e308], [1e-308, 0.0]]),
        np.array([[6e4, -6e4]], np.float16)[..., None].repeat(3, axis=-1),
        np.array([[1.0, -2.0]], ml_dtypes.bfloat16),
        np.array([[1, -2]], np.int8),
        [[1, -2.0]],
    ],
)
@pytest.mark.parametrize("percentile", [0.1, 50, 100])
def test_extreme_values_and_all_number_types(heat: np.ndarray, percentile: float) -> None:
    drawn = pixels(diverging(heat, percentile=percentile)).astype(int)
    values = np.asarray(heat, np.float64)
    signs = np.sign(values if values.ndim == 2 else values.sum(axis=-1))
    assert ((drawn[..., 0] - drawn[..., 2]) * signs >= 0).all()
    assert drawn[signs == 0].tolist() == [list(WHITE)] * int((signs == 0).sum())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    heat = np.zeros((4, 5, 3))
    heat[2, 3, 1] = bad
    with pytest.raises(InputError, match="row 2, column 3"):
        diverging(heat)
    with pytest.raises(InputError, match="negative: Expected finite"):
        overlay(np.zeros((4, 5), np.uint8), negative=heat)
    with pytest.raises(InputError, match=r"maps\[1\]: Expected finite"):
        shared_scale([np.ones((2, 2)), heat])


def test_opposite_infinities_and_overflowing_sums_are_refused_without_warnings() -> None:
    with pytest.raises(InputError, match="finite"):
        diverging(np.array([[[np.inf, -np.inf]]]))
    with pytest.raises(InputError, match="finite"):
        diverging(np.full((2, 2, 3), 1e308))


@pytest.mark.parametrize(
    ("heat", "error"),
    [
        (np.zeros(5), InputError),
        (np.zeros((1, 4, 5, 3)), InputError),
        (np.zeros((0, 5)), InputError),
        (np.zeros((4, 5, 0)), InputError),
        (3.0, InputError),
        ("dog.jpg", InputTypeError),
        (None, InputError),
        (np.zeros((2, 2), complex), InputTypeError),
        ([[1.0, 2.0], [3.0]], InputTypeError),
    ],
)
def test_what_is_no_map_is_refused(heat: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="heatmap: Expected"):
        diverging(heat)  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize("vmax", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_not_positive_are_refused(vmax: float) -> None:
    with pytest.raises(InputError, match="vmax: Expected"):
        diverging(np.ones((2, 2)), vmax=vmax)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.5, np.nan])
def test_percentiles_outside_their_range_are_refused(percentile: float) -> None:
    with pytest.raises(InputError, match="percentile: Expected"):
        diverging(np.ones((2, 2)), percentile=percentile)
    with pytest.raises(InputError, match="percentile: Expected"):
        shared_scale([np.ones((2, 2))], percentile=percentile)
    with pytest.raises(InputError, match="percentile: Expected"):
        overlay(np.zeros((2, 2), np.uint8), np.ones((2, 2)), percentile=percentile)


def test_shared_scale_pools_the_pixels_of_all_maps() -> None:
    rng = np.random.default_rng(2)
    small, large = rng.normal(size=(8, 9)), 10 * rng.normal(size=(30, 20, 3))
    pooled = np.concatenate([small.ravel(), large.sum(axis=-1).ravel()])
    assert shared_scale([small, large]) == pytest.approx(np.percentile(np.abs(pooled), 99.5))


def test_maps_on_a_shared_scale_can_be_compared() -> None:
    weak, strong = np.array([[1.0, -1.0]]), np.array([[4.0, -4.0]])
    vmax = shared_scale([weak, strong], percentile=100)
    assert vmax == 4.0
    red_of_weak = pixels(diverging(weak, vmax=vmax))[0, 0]
    np.testing.assert_array_equal(red_of_weak, np.rint(255 * seismic(0.25)))
    assert tuple(pixels(diverging(strong, vmax=vmax))[0, 0]) == RED


def test_shared_scale_of_nothing_but_zeros_draws_white() -> None:
    zero = np.zeros((3, 3))
    assert (pixels(diverging(zero, vmax=shared_scale([zero, zero]))) == 255).all()
    with pytest.raises(InputError, match="at least one map"):
        shared_scale([])


# overlays


def literal_overlay(image: np.ndarray, parts: list[np.ndarray], alpha: float = 0.7) -> np.ndarray:
    """The authors' convention, pixel by pixel."""
    height, width = image.shape[:2]
    drawn = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            value = 0.0
            for part in parts:
                means = part.mean(axis=2)
                limit = np.percentile(abs(means), 99.95)
                value += max(-1.0, min(1.0, means[row, column] / limit))
            value = max(-1.0, min(1.0, value))
            if value < -0.5:
                colour = [0, 0, 1 + 0.7 * 2 * (value + 0.5)]
            elif value < 0:
                colour = [1 + 2 * value, 1 + 2 * value, 1]
            elif value < 0.5:
                colour = [1, 1 - 2 * value, 1 - 2 * value]
            else:
                colour = [1 - (value - 0.5), 0, 0]
            drawn[row, column] = alpha * np.array(colour) + (1 - alpha) * image[row, column] / 255
    return np.rint(255 * drawn).astype(np.uint8)


def test_overlay_is_the_authors_convention() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (9, 11, 3), np.uint8)
    positive, negative = rng.normal(1, 2, (9, 11, 3)), rng.normal(-3, 1, (9, 11, 3))
    for parts in ([positive, negative], [positive], [negative]):
        arguments = {"positive": None, "negative": None}
        arguments["positive"] = parts[0] if parts[0] is positive else None
        arguments["negative"] = parts[-1] if parts[-1] is negative else None
        difference = pixels(overlay(image, **arguments)).astype(int) - literal_overlay(image, parts)
        assert np.abs(difference).max() <= 1  # halves may round either way


def test_overlay_mean_and_sum_of_channels_are_one_picture() -> None:
    rng = np.random.default_rng(4)
    image, part = rng.integers(0, 256, (6, 5, 3), np.uint8), rng.normal(size=(6, 5, 3))
    np.testing.assert_array_equal(
        pixels(overlay(image, heatmap=part)), pixels(overlay(image, heatmap=part.sum(axis=-1)))
    )


def test_overlay_of_zero_maps_is_the_veiled_image() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    zero = np.zeros((2, 4, 3))
    expected = np.rint(0.7 * 255 + 0.3 * image)
    for parts in ((zero, zero), (zero, None), (np.full((2, 4), 8.0), zero)):
        np.testing.assert_allclose(pixels(overlay(image, *parts)), expected, atol=1)


def test_overlay_alpha_from_image_to_map() -> None:
    image = np.full((1, 2, 3), 40, np.uint8)
    heat = np.array([[1.0, -1.0]])
    np.testing.assert_array_equal(pixels(overlay(image, heatmap=heat, alpha=0.0)), image)
    np.testing.assert_array_equal(
        pixels(overlay(image, heatmap=heat, alpha=1.0)), pixels(diverging(heat, percentile=100))
    )


def test_overlay_accepts_every_kind_of_picture() -> None:
    grey = np.array([[0, 51, 255]], np.uint8)
    heat = np.array([[1.0, 0.0, -1.0]])
    expected = pixels(overlay(np.repeat(grey[..., None], 3, axis=-1), heatmap=heat))
    for image in (
        grey,
        grey[..., None],
        grey / 255,
        (grey / 255).astype(np.float32),
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGBA"),
    ):
        np.testing.assert_array_equal(pixels(overlay(image, heatmap=heat)), expected)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((4, 5, 2), np.uint8), InputError, "Expected shape"),
        (np.zeros((1, 4, 5, 3), np.uint8), InputError, "Expected shape"),
        (np.zeros((0, 5), np.uint8), InputError, "Expected shape"),
        (np.full((4, 5, 3), -2.1), InputError, r"net\.crop"),
        (np.full((4, 5, 3), np.nan), InputError, "floats in"),
        (np.zeros((4, 5), np.int64), InputTypeError, "Expected a Pillow picture"),
        ("dog.jpg", InputTypeError, "Expected a Pillow picture"),
        (np.zeros((5, 4), np.uint8), InputError, "size of the image"),
    ],
)
def test_overlay_refuses_what_is_no_picture(
    image: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        overlay(image, np.ones((4, 5)))


def test_overlay_needs_either_parts_or_a_heatmap() -> None:
    image, heat = np.zeros((4, 5), np.uint8), np.ones((4, 5))
    with pytest.raises(InputError, match="got none of them"):
        overlay(image)
    with pytest.raises(InputError, match="got positive, heatmap"):
        overlay(image, heat, heatmap=heat)
    with pytest.raises(InputError, match="alpha"):
        overlay(image, heat, alpha=1.5)


def test_inputs_are_left_alone() -> None:
    image, heat = np.zeros((4, 5), np.uint8), np.eye(4, 5)
    for array in (image, heat):
        array.setflags(write=False)
    overlay(image, heat, heat)
    diverging(heat)
    panel(image, heat, heat, heat)


# layout


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
    with pytest.raises(InputError, match=words):
        grid([[tile for _ in row] for row in rows], **options)
