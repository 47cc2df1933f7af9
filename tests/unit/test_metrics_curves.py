"""The three curves against a literal loop, and what must not change them."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from curve_oracle import (
    LABELS,
    MAPS,
    ONE,
    OTHERS,
    PIXELS,
    WEIGHTS,
    X,
    oracle_curve,
    oracle_logits,
    rise_blur,
    small_cnn,
    sums,
)
from short_methods import slow_beside

from benchmarks.faithfulness import real_networks
from dmbp_jax.metrics import Curve, complementary_insertion, deletion, insertion


@pytest.mark.parametrize(
    ("step", "activation"),
    slow_beside(
        list(itertools.product([1, 7, 10], ["softmax", "sigmoid"])),
        (1, "sigmoid"),
        (7, "softmax"),
        (10, "sigmoid"),
    ),
)
def test_against_the_literal_oracle(step: int, activation: Any) -> None:
    options = {"apply_fn": small_cnn, "step": step, "activation": activation}
    inserted = insertion(WEIGHTS, X, LABELS, MAPS, **options)
    complement = complementary_insertion(WEIGHTS, X, OTHERS, MAPS, **options)
    deleted = deletion(WEIGHTS, X, LABELS, MAPS, **options)
    for i, x in enumerate(X.astype(np.float64)):
        blurred, own = rise_blur(x), [int(LABELS[i])]
        cases = [
            (inserted, oracle_curve(blurred, x, MAPS[i], own, -1, step, activation)),
            (deleted, oracle_curve(x, 0 * x, MAPS[i], own, -1, step, activation)),
        ]
        if OTHERS[i]:
            expected = oracle_curve(blurred, x, MAPS[i], OTHERS[i], 1, step, activation)
            cases.append((complement, expected))
        for curve, (fractions, scores, auc) in cases:
            np.testing.assert_allclose(curve.fractions, fractions, rtol=1e-6)
            np.testing.assert_allclose(curve.scores[i], scores, atol=2e-6)
            np.testing.assert_allclose(curve.auc[i], auc, atol=2e-6)
    assert np.isnan(complement.auc[1])


def test_float64_agrees_to_float64() -> None:
    with jax.enable_x64(True):
        x = X.astype(np.float64)
        curve = insertion(WEIGHTS, x, LABELS, MAPS, apply_fn=small_cnn, step=7)
        for i in range(3):
            expected = oracle_curve(
                rise_blur(x[i]), x[i], MAPS[i], [int(LABELS[i])], -1, 7, "softmax"
            )
            np.testing.assert_allclose(curve.auc[i], expected[2], rtol=1e-12)


def test_increasing_insertion_is_deletion_backwards(rng: np.random.Generator) -> None:
    x, heatmap = X[0, :8], rng.permutation(8 * 7).reshape(8, 7)  # 56 pixels, no ties
    common = {"apply_fn": small_cnn, "step": 8}
    there = insertion(WEIGHTS, x, 3, heatmap, order="increasing", blur="rise", **common)
    back = deletion(WEIGHTS, x, 3, heatmap, baseline="rise", **common)
    np.testing.assert_allclose(there.scores, back.scores[::-1], rtol=1e-6)
    np.testing.assert_allclose(there.auc, back.auc, rtol=1e-6)


@pytest.mark.parametrize("chunk_size", slow_beside([1, 2, 5, 10, 30, 31, 1000], 2, 5, 31))
def test_chunk_size_does_not_change_values(chunk_size: int) -> None:
    options = {"apply_fn": small_cnn, "step": 7}
    whole = insertion(WEIGHTS, X, LABELS, MAPS, **options)
    parts = insertion(WEIGHTS, X, LABELS, MAPS, chunk_size=chunk_size, **options)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-6)


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    options = {"apply_fn": small_cnn, "points": 6}
    together = insertion(WEIGHTS, X, LABELS, MAPS, **options)
    assert together.scores.shape == (3, 6) and together.auc.shape == (3,)
    for i in range(3):
        alone = insertion(WEIGHTS, X[i], LABELS[i], MAPS[i], **options)
        assert alone.scores.shape == (6,) and alone.auc.shape == ()
        np.testing.assert_allclose(alone.scores, together.scores[i], rtol=1e-6)


def test_jit_and_vmap() -> None:
    plain = insertion(WEIGHTS, X, LABELS, MAPS, apply_fn=small_cnn, points=6, chunk_size=4)

    @jax.jit
    def jitted(weights: Any, x: Any, labels: Any, maps: Any) -> Curve:
        return insertion(weights, x, labels, maps, apply_fn=small_cnn, points=6, chunk_size=4)

    np.testing.assert_allclose(jitted(WEIGHTS, X, LABELS, MAPS).auc, plain.auc, rtol=1e-6)
    vmapped = jax.vmap(
        lambda x, label, m: insertion(WEIGHTS, x, label, m, apply_fn=small_cnn, points=6)
    )(X, LABELS, MAPS)
    np.testing.assert_allclose(vmapped.auc, plain.auc, rtol=1e-6)
    others = np.array([[0, 1], [-1, -1], [3, -1]])
    complement = jax.jit(
        lambda x, others, m: complementary_insertion(WEIGHTS, x, others, m, apply_fn=small_cnn)
    )(X, others, MAPS)
    eager = complementary_insertion(WEIGHTS, X, OTHERS, MAPS, apply_fn=small_cnn)
    np.testing.assert_allclose(complement.auc, eager.auc, rtol=1e-6)


def test_half_precision_images_are_scored_in_single_precision() -> None:
    half = X.astype(jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        curve = insertion(WEIGHTS, half, LABELS, MAPS, apply_fn=small_cnn, points=6)
        complement = complementary_insertion(WEIGHTS, half, OTHERS, MAPS, apply_fn=small_cnn)
    full = insertion(WEIGHTS, X, LABELS, MAPS, apply_fn=small_cnn, points=6)
    assert curve.scores.dtype == complement.auc.dtype == jnp.float32
    np.testing.assert_allclose(curve.scores, full.scores, atol=0.02)


def test_points_are_equally_spaced_whole_pixels() -> None:
    x, heatmap = np.zeros((227, 227, 1), np.float32), np.zeros((227, 227), np.float32)
    curve = insertion(ONE, x, 0, heatmap, apply_fn=sums, points=65, blur="zero")
    counts = np.asarray(curve.fractions) * 227**2
    assert counts.shape == (65,) and counts[0] == 0 and counts[-1] == 227**2
    np.testing.assert_allclose(counts, np.round(counts), atol=0.01)
    assert set(np.round(np.diff(counts)).astype(int)) <= {805, 806}


def test_default_step_gives_the_225_scores_of_rise() -> None:
    x, heatmap = np.zeros((224, 224, 1), np.float32), np.zeros((224, 224), np.float32)
    assert insertion(ONE, x, 0, heatmap, apply_fn=sums, blur="zero").scores.shape == (225,)


def test_channels_move_together_and_may_be_summed() -> None:
    maps = np.stack([MAPS, np.zeros_like(MAPS)], -1)
    a = insertion(WEIGHTS, X, LABELS, maps, apply_fn=small_cnn, points=6)
    b = insertion(WEIGHTS, X, LABELS, MAPS, apply_fn=small_cnn, points=6)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_no_label_means_first_choice() -> None:
    top = np.array([oracle_logits(x.astype(np.float64)).argmax() for x in X])
    a = insertion(WEIGHTS, X, None, MAPS, apply_fn=small_cnn, points=6, chunk_size=2)
    b = insertion(WEIGHTS, X, top, MAPS, apply_fn=small_cnn, points=6)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-6)


def test_activation_of_the_network_is_the_default() -> None:
    @jax.tree_util.register_static
    class MultiLabel:
        activation = "sigmoid"

        def __call__(self, x: jax.Array) -> jax.Array:
            return sums(ONE, x)

    map_ = jnp.array([[3.0, 1, 0, 9]])
    own = insertion(MultiLabel(), PIXELS, 1, map_, step=1)
    assert own.scores[0] == 0.5 and own.scores[-1] == 0.5  # sigmoid(0), whatever logit 0 is
    other = insertion(MultiLabel(), PIXELS, 1, map_, step=1, activation="softmax")
    assert other.scores[-1] == pytest.approx(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not real_networks.HAVE_REAL, reason="no real network beside the repository")
def test_gradient_times_input_beats_random_on_squeezenet() -> None:
    params, apply_fn, preprocess = real_networks.squeezenet()
    paths, labels = real_networks.photos()
    x = np.stack([preprocess(path) for path in paths[:2]])

    def target(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(apply_fn(params, x), labels[:2, None], 1).sum()

    ours = jax.jit(lambda x: (jax.grad(target)(x) * x).sum(-1))(x)
    options = {"apply_fn": apply_fn, "points": 7}
    noise = np.random.default_rng(0).normal(size=ours.shape)
    good = insertion(params, x, labels[:2], ours, **options)
    random = insertion(params, x, labels[:2], noise, **options)
    assert good.auc.mean() > random.auc.mean()
    np.testing.assert_allclose(good.scores[:, [0, -1]], random.scores[:, [0, -1]], atol=1e-5)
