"""Complementary insertion: the other labels, however they are given, and images without one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curve_oracle import MAPS, ONE, PIXELS, WEIGHTS, X, small_cnn, sums

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import complementary_insertion


def test_complementary_insertion_by_hand() -> None:
    # increasing order 2, 1, 0, 3: sums 0, -1, -1, 0, 2; the other label has 1 / (3^s + 1)
    curve = complementary_insertion(
        ONE, PIXELS, [1], jnp.array([[3.0, 1, 0, 9]]), apply_fn=sums, blur="zero", step=1
    )
    np.testing.assert_allclose(curve.scores, [1 / 2, 3 / 4, 3 / 4, 1 / 2, 1 / 10], rtol=1e-6)


def test_images_without_another_label_are_undefined_not_zero() -> None:
    x = jnp.stack([PIXELS] * 3)
    maps = jnp.broadcast_to(jnp.array([[3.0, 1, 0, 9]]), (3, 1, 4))
    curve = complementary_insertion(
        ONE, x, [[1], [], [0, 1]], maps, apply_fn=sums, blur="zero", step=1
    )
    assert np.isnan(curve.auc[1]) and np.isnan(curve.scores[1]).all()
    np.testing.assert_allclose(curve.scores[0], [1 / 2, 3 / 4, 3 / 4, 1 / 2, 1 / 10], rtol=1e-6)
    np.testing.assert_allclose(curve.scores[2], 0.5, rtol=1e-6)  # mean of p and 1 - p
    alone = complementary_insertion(ONE, PIXELS, [], maps[0], apply_fn=sums, blur="zero")
    assert alone.auc.shape == () and np.isnan(alone.auc)


def test_three_ways_to_say_the_other_labels() -> None:
    x = jnp.stack([PIXELS] * 2)
    maps = jnp.stack([jnp.array([[3.0, 1, 0, 9]])] * 2)
    ragged = complementary_insertion(ONE, x, [[1, 0], [1]], maps, apply_fn=sums)
    filled = complementary_insertion(ONE, x, np.array([[1, 0], [-1, 1]]), maps, apply_fn=sums)
    mask = np.array([[True, True], [False, True]])
    boolean = complementary_insertion(ONE, x, mask, maps, apply_fn=sums)
    np.testing.assert_array_equal(ragged.scores, filled.scores)
    np.testing.assert_array_equal(ragged.scores, boolean.scores)


def test_inside_jit_wrong_other_labels_are_undefined_or_refused() -> None:
    @jax.jit
    def area(others: jax.Array, maps: jax.Array) -> jax.Array:
        return complementary_insertion(WEIGHTS, X, others, maps, apply_fn=small_cnn, points=3).auc

    right = [[0, 4], [3, -1], [1, 2]]
    expected = area(jnp.array(right), MAPS)
    assert np.isfinite(expected).all()
    for wrong in ([3, 5], [3, -2], [3, 3]):  # as outside: no class, no filling, named twice
        found = area(jnp.array([right[0], wrong, right[2]]), MAPS)
        np.testing.assert_array_equal(found, expected.at[1].set(jnp.nan))
    bad = MAPS.copy()
    bad[1, 2, 3] = np.nan
    np.testing.assert_array_equal(area(jnp.array(right), bad), expected.at[1].set(jnp.nan))
    with pytest.raises(InputTypeError, match="labels_other: Expected integers"):
        area(jnp.ones((3, 2)), MAPS)
    with pytest.raises(InputError, match="labels_other: Expected 5 booleans, got 4"):
        area(jnp.ones((3, 4), bool), MAPS)


@pytest.mark.parametrize(
    "others, error, message",
    [
        ([[1], [2]], InputError, "labels_other: Expected 3 lists, one per image, got 2"),
        ([1, 2, 3], InputError, "labels_other: Expected a list of ints per image"),
        ([[1], [5], []], InputError, r"labels_other: Expected 0 <= label < 5 .*\[5\] for image 1"),
        ([[1], [2, 2], []], InputError, r"Expected every label once, got \[2, 2\] for image 1"),
        ([[1.5], [], []], InputTypeError, "labels_other: Expected integers"),
        (np.ones((3, 4), bool), InputError, "labels_other: Expected 5 booleans, got 4"),
        (7, InputTypeError, "labels_other: Expected a list of ints per image"),
        (None, InputTypeError, "labels_other: Expected a list of ints per image"),
    ],
)
def test_wrong_other_labels_are_named(others: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        complementary_insertion(WEIGHTS, X, others, MAPS, apply_fn=small_cnn)
