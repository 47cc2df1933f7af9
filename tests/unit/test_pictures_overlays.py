"""Attributions over their image: each part on its own scale, and the authors' picture.

The oracles draw pixel by pixel, in the steps of the docstrings.
"""

import numpy as np
import pytest
from PIL import Image
from pixels import BLUE, RED, WHITE, pixels

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.pictures import authors_overlay, diverging, overlay, panel


def literal_seismic(value: float) -> list[float]:
    """Colour of a value in [-1, 1]."""
    if value < -0.5:
        return [0, 0, 1 + 0.7 * 2 * (value + 0.5)]
    if value < 0:
        return [1 + 2 * value, 1 + 2 * value, 1]
    if value < 0.5:
        return [1, 1 - 2 * value, 1 - 2 * value]
    return [1 - (value - 0.5), 0, 0]


def literal_overlay(image: np.ndarray, parts: list[np.ndarray], alpha: float = 0.7) -> np.ndarray:
    """Each part on its own scale, pixel by pixel."""
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
            colour = literal_seismic(value)
            drawn[row, column] = alpha * np.array(colour) + (1 - alpha) * image[row, column] / 255
    return np.rint(255 * drawn).astype(np.uint8)


def test_overlay_scales_each_part_by_itself() -> None:
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


def literal_percentile(values: list[float], percent: float) -> float:
    """Linear between the two nearest of the sorted values."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def literal_authors_overlay(
    image: np.ndarray, positive: np.ndarray, negative: np.ndarray, percent: float, alpha: float
) -> np.ndarray:
    """The authors' steps one by one, on lists: mean, clip, minimum, common maximum, colours."""
    height, width = image.shape[:2]
    places = [(row, column) for row in range(height) for column in range(width)]
    parts = []
    for part, sign in ((positive, 1.0), (negative, -1.0)):
        values = [sign * sum(part[place]) / len(part[place]) for place in places]
        limit = literal_percentile([abs(value) for value in values], percent)
        values = [max(-limit, min(limit, value)) for value in values]
        lowest = min(values)
        parts.append([value - lowest for value in values])
    maximum = max(max(parts[0]), max(parts[1]))
    drawn = np.zeros((height, width, 3))
    for place, for_label, against in zip(places, *parts, strict=True):
        colour = literal_seismic(for_label / maximum - against / maximum)
        drawn[place] = alpha * np.array(colour) + (1 - alpha) * image[place] / 255
    return np.rint(255 * drawn).astype(np.uint8)


@pytest.mark.parametrize(("percent", "alpha"), [(99.95, 0.7), (90, 0.7), (99.95, 1.0)])
def test_the_authors_overlay_step_by_step(percent: float, alpha: float) -> None:
    rng = np.random.default_rng(6)
    image = rng.integers(0, 256, (9, 11, 3), np.uint8)
    positive, negative = rng.normal(1, 2, (9, 11, 3)), rng.normal(-0.6, 0.5, (9, 11, 3))
    drawn = authors_overlay(image, positive, negative, percentile=percent, alpha=alpha)
    expected = literal_authors_overlay(image, positive, negative, percent, alpha)
    assert np.abs(pixels(drawn).astype(int) - expected).max() <= 1  # halves may round either way


def test_the_authors_overlay_by_hand() -> None:
    """Parts of one sign: minimum 0, common maximum 4; -1 is a quarter, so half way to blue."""
    positive, negative = np.array([[4.0, 0.0, 0.0, 1.0]]), np.array([[0.0, -1.0, 0.0, -1.0]])
    options = {"percentile": 100, "alpha": 1.0}
    drawn = pixels(authors_overlay(np.zeros((1, 4), np.uint8), positive, negative, **options))
    np.testing.assert_array_equal(drawn, [[RED, (128, 128, 255), WHITE, WHITE]])
    # The minimum is subtracted: 3, 1 become 2, 0, and nothing here is evidence against.
    drawn = pixels(
        authors_overlay(np.zeros((1, 2), np.uint8), [[3.0, 1.0]], [[0.0, 0.0]], **options)
    )
    np.testing.assert_array_equal(drawn, [[RED, WHITE]])


def test_a_weak_part_is_pale_only_in_the_authors_overlay() -> None:
    image = np.zeros((1, 2), np.uint8)
    parts = np.array([[1.0, 0.0]]), np.array([[0.0, -0.001]])
    weak = pixels(authors_overlay(image, *parts, alpha=1.0))[0, 1]
    assert weak.min() >= 254
    np.testing.assert_array_equal(pixels(overlay(image, *parts, alpha=1.0))[0, 1], BLUE)


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1.0, 1e308])
def test_the_authors_overlay_of_constant_and_extreme_parts(scale: float) -> None:
    image = np.zeros((2, 3), np.uint8)
    for parts in ((0.0, 0.0), (scale, -scale), (-scale, scale)):
        drawn = authors_overlay(image, *(np.full((2, 3), part) for part in parts), alpha=1.0)
        assert (pixels(drawn) == 255).all()
    signs = np.array([[1.0, 0.0, -1.0]] * 2)
    drawn = pixels(authors_overlay(image, scale * signs, scale * signs, alpha=1.0)).astype(int)
    assert tuple(drawn[0, 0]) == RED and tuple(drawn[0, 2]) == BLUE and tuple(drawn[0, 1]) == WHITE


def test_the_authors_overlay_refuses_what_overlay_refuses() -> None:
    image, part = np.zeros((4, 5), np.uint8), np.ones((4, 5))
    for options, words in (({"alpha": 1.5}, "alpha"), ({"percentile": 0}, "percentile: Expected")):
        with pytest.raises(InputError, match=words):
            authors_overlay(image, part, part, **options)
    with pytest.raises(InputError, match="negative: Expected the size of the image"):
        authors_overlay(image, part, np.ones((4, 4)))
    with pytest.raises(InputError, match="positive: Expected finite"):
        authors_overlay(image, np.full((4, 5), np.nan), part)
    with pytest.raises(InputError, match=r"net\.crop"):
        authors_overlay(np.full((4, 5, 3), -2.1), part, part)
