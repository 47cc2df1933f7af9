"""The blurred image that insertion starts from, against scipy and the numbers of RISE."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from curve_oracle import LABELS, MAPS, WEIGHTS, X, oracle_probabilities, rise_blur, small_cnn
from scipy import ndimage

from dmbp_jax.metrics import blur_images, blur_taps, insertion


def test_rise_taps_are_those_of_scipy_and_of_the_authors() -> None:
    impulse = np.zeros(11)
    impulse[5] = 1
    np.testing.assert_allclose(blur_taps("rise"), ndimage.gaussian_filter1d(impulse, 5), rtol=1e-12)
    printed = [0.08795815, 0.08889612, 0.0904742, 0.09219112, 0.09348939, 0.09398206]
    np.testing.assert_allclose(blur_taps("rise"), printed + printed[-2::-1], atol=5e-9)


@pytest.mark.parametrize("size, sigma", [(1, 3.0), (5, 1.0), (31, 5.0)])
def test_gaussian_taps(size: int, sigma: float) -> None:
    taps = blur_taps(("gaussian", size, sigma))
    assert taps.sum() == pytest.approx(1) and (taps == taps[::-1]).all()
    t = np.arange(size) - size // 2
    np.testing.assert_allclose(taps / taps[size // 2], np.exp(-(t**2) / (2 * sigma**2)))


@pytest.mark.parametrize("shape", [(2, 30, 17, 3), (1, 4, 4, 1)])
def test_blur_is_per_channel_with_zeros_outside(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    expected = np.stack([rise_blur(image.astype(np.float64)) for image in x])
    np.testing.assert_allclose(blur_images(jnp.asarray(x)), expected, atol=1e-6)


def test_start_and_finish_are_the_blur_and_the_image() -> None:
    curve = insertion(WEIGHTS, X, LABELS, MAPS, apply_fn=small_cnn, points=2)
    for i in range(3):
        x = X[i].astype(np.float64)
        ends = [oracle_probabilities(image, "softmax")[LABELS[i]] for image in (rise_blur(x), x)]
        np.testing.assert_allclose(curve.scores[i], ends, rtol=1e-5)


@pytest.mark.parametrize("blur", [0.0, np.zeros_like(X[0]), np.zeros_like(X), "zero"])
def test_any_array_can_be_the_start(blur: Any) -> None:
    given = insertion(WEIGHTS, X, LABELS, MAPS, apply_fn=small_cnn, points=3, blur=blur)
    zero = insertion(WEIGHTS, X, LABELS, MAPS, apply_fn=small_cnn, points=3, blur="zero")
    np.testing.assert_array_equal(given.scores, zero.scores)
