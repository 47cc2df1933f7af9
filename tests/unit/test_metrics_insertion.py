"""Insertion and deletion: curves worked out by hand, in which order and on which scale."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from curve_oracle import LOG3, ONE, PIXELS, sums

from dmbp_jax.metrics import Curve, deletion, insertion


def hand(metric: Callable[..., Curve], heatmap: Sequence[float], **options: Any) -> Curve:
    key = "baseline" if metric is deletion else "blur"
    map_ = jnp.array(heatmap, jnp.float32).reshape(1, 4)
    return metric(ONE, PIXELS, 0, map_, apply_fn=sums, **{key: "zero", "step": 1, **options})


def test_insertion_by_hand() -> None:
    # order 3, 0, 1, 2: sums 0, 2, 3, 3, 2
    curve = hand(insertion, [3, 1, 0, 9])
    np.testing.assert_allclose(curve.fractions, [0, 0.25, 0.5, 0.75, 1])
    expected = [1 / 2, 9 / 10, 27 / 28, 27 / 28, 9 / 10]
    np.testing.assert_allclose(curve.scores, expected, rtol=1e-6)
    assert curve.auc == pytest.approx((0.5 * 1 / 2 + 9 / 10 + 27 / 14 + 0.5 * 9 / 10) / 4, rel=1e-6)


def test_deletion_by_hand() -> None:
    # order 3, 0, 1, 2: sums 2, 0, -1, -1, 0
    curve = hand(deletion, [3, 1, 0, 9])
    np.testing.assert_allclose(curve.scores, [9 / 10, 1 / 2, 1 / 4, 1 / 4, 1 / 2], rtol=1e-6)


def test_sigmoid_and_bare_logits_by_hand() -> None:
    sigmoid = hand(insertion, [3, 1, 0, 9], activation="sigmoid")
    np.testing.assert_allclose(sigmoid.scores[1], 9 / 10, rtol=1e-6)  # 1 / (1 + 3^-2)
    bare = hand(insertion, [3, 1, 0, 9], activation="none")
    np.testing.assert_allclose(bare.scores, np.array([0, 2, 3, 3, 2]) * LOG3, rtol=1e-6)


def test_short_last_step_counts_for_less() -> None:
    curve = hand(insertion, [3, 1, 0, 9], step=3, activation="none")
    np.testing.assert_allclose(curve.fractions, [0, 0.75, 1])
    np.testing.assert_allclose(curve.scores, np.array([0, 3, 2]) * LOG3, rtol=1e-6)
    assert curve.auc == pytest.approx((0.75 * 1.5 + 0.25 * 2.5) * LOG3, rel=1e-6)


def test_step_larger_than_the_image_has_both_ends() -> None:
    curve = hand(insertion, [3, 1, 0, 9], step=224, activation="none")
    np.testing.assert_allclose(curve.scores, np.array([0, 2]) * LOG3, rtol=1e-6)
    assert curve.auc == pytest.approx(LOG3, rel=1e-6)


@pytest.mark.parametrize("order", ["decreasing", "increasing"])
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_constant_map_goes_in_row_major_order(order: str, value: float) -> None:
    curve = hand(insertion, [value] * 4, order=order, activation="none")
    np.testing.assert_allclose(curve.scores, np.array([0, 1, 1, 0, 2]) * LOG3, atol=1e-6)


def test_ties_keep_row_major_order_in_both_directions() -> None:
    down = hand(insertion, [5, 1, 1, 5], activation="none")  # 0, 3, 1, 2
    np.testing.assert_allclose(down.scores, np.array([0, 1, 3, 3, 2]) * LOG3, rtol=1e-6)
    up = hand(insertion, [5, 1, 1, 5], order="increasing", activation="none")  # 1, 2, 0, 3
    np.testing.assert_allclose(up.scores, np.array([0, 0, -1, 0, 2]) * LOG3, atol=1e-6)


def test_zero_and_minus_zero_tie() -> None:
    curve = hand(insertion, [-0.0, 0.0, 0.0, -0.0], activation="none")
    np.testing.assert_allclose(curve.scores, np.array([0, 1, 1, 0, 2]) * LOG3, atol=1e-6)
