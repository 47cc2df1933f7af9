"""Single maps as pictures: zero is white, the sign keeps its colour, nothing is ever NaN.

Expected colours are worked by hand, or come from matplotlib where it is installed.
"""

import doctest
import importlib

import ml_dtypes
import numpy as np
import pytest
from pixels import BLUE, RED, WHITE, pixels

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.pictures import diverging, overlay, seismic, shared_scale

RED_SHADES = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]])


@pytest.mark.parametrize("name", ["maps", "overlays", "layout"])
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"dmbp_jax.pictures.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


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
