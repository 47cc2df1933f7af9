"""Insertion, complementary insertion and deletion: hand-worked curves and a literal loop oracle."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real_networks
from scipy import ndimage

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import (
    Curve,
    blur_images,
    blur_taps,
    complementary_insertion,
    deletion,
    insertion,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

# --- a network whose probabilities can be worked out by hand -----------------------------------
# Two classes, four pixels in a row; logit 0 is the sum of the pixels, logit 1 is always 0.


def sums(params: Any, x: jax.Array) -> jax.Array:
    total = x.sum((1, 2, 3)) * params
    return jnp.stack([total, jnp.zeros_like(total)], axis=1)


ONE = jnp.float32(1)
LOG3 = float(np.log(3))
PIXELS = jnp.array([LOG3, 0.0, -LOG3, 2 * LOG3]).reshape(1, 4, 1)
# softmax of (s log 3, 0) is 3^s / (3^s + 1): s = 0, 1, 2, 3 -> 1/2, 3/4, 9/10, 27/28


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


def test_complementary_insertion_by_hand() -> None:
    # increasing order 2, 1, 0, 3: sums 0, -1, -1, 0, 2; the other label has 1 / (3^s + 1)
    curve = complementary_insertion(
        ONE, PIXELS, [1], jnp.array([[3.0, 1, 0, 9]]), apply_fn=sums, blur="zero", step=1
    )
    np.testing.assert_allclose(curve.scores, [1 / 2, 3 / 4, 3 / 4, 1 / 2, 1 / 10], rtol=1e-6)


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


# --- a literal oracle: NumPy float64, one pixel after the other --------------------------------

_RNG = np.random.default_rng(7)
WEIGHTS = {
    "kernel": _RNG.normal(size=(3, 3, 2, 4)) / 3,
    "dense": _RNG.normal(size=(4, 5)),
}
X = _RNG.normal(size=(3, 9, 7, 2)).astype(np.float32)
MAPS = np.round(_RNG.normal(size=(3, 9, 7)), 1).astype(np.float32)  # rounded: there are ties
LABELS = np.array([4, 0, 2])
OTHERS = [[0, 1], [], [3]]


def small_cnn(params: Any, x: jax.Array) -> jax.Array:
    kernel = jnp.asarray(params["kernel"], x.dtype)
    z = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(z).mean((1, 2)) @ jnp.asarray(params["dense"], x.dtype)


def oracle_logits(x: np.ndarray) -> np.ndarray:
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    z = sum(
        padded[i : i + height, j : j + width] @ WEIGHTS["kernel"][i, j]
        for i in range(3)
        for j in range(3)
    )
    return np.maximum(z, 0).mean((0, 1)) @ WEIGHTS["dense"]


def oracle_probabilities(x: np.ndarray, activation: str) -> np.ndarray:
    logits = oracle_logits(x)
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    return np.exp(logits) / np.exp(logits).sum()


def rise_blur(x: np.ndarray) -> np.ndarray:
    """As in the authors' code: a 2-D kernel from scipy, a convolution padded with zeros."""
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = ndimage.gaussian_filter(impulse, 5)
    channels = [ndimage.convolve(x[..., c], kernel, mode="constant") for c in range(x.shape[-1])]
    return np.stack(channels, -1)


def oracle_curve(
    start: np.ndarray,
    finish: np.ndarray,
    heatmap: np.ndarray,
    labels: list[int],
    sign: int,
    step: int,
    activation: str,
) -> tuple[list[float], list[float], float]:
    pixels = [(r, c) for r in range(heatmap.shape[0]) for c in range(heatmap.shape[1])]
    pixels.sort(key=lambda p: sign * float(heatmap[p]))  # Python's sort is stable
    picture = start.copy()
    fractions, scores, changed = [0.0], [], 0
    scores.append(float(np.mean(oracle_probabilities(picture, activation)[labels])))
    while changed < len(pixels):
        for p in pixels[changed : changed + step]:
            picture[p] = finish[p]
        changed = min(changed + step, len(pixels))
        fractions.append(changed / len(pixels))
        scores.append(float(np.mean(oracle_probabilities(picture, activation)[labels])))
    auc = sum(
        (fractions[i + 1] - fractions[i]) * (scores[i] + scores[i + 1]) / 2
        for i in range(len(scores) - 1)
    )
    return fractions, scores, auc


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("step", [1, 7, 10])
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


# --- identities and invariances ----------------------------------------------------------------


def test_increasing_insertion_is_deletion_backwards(rng: np.random.Generator) -> None:
    x, heatmap = X[0, :8], rng.permutation(8 * 7).reshape(8, 7)  # 56 pixels, no ties
    common = {"apply_fn": small_cnn, "step": 8}
    there = insertion(WEIGHTS, x, 3, heatmap, order="increasing", blur="rise", **common)
    back = deletion(WEIGHTS, x, 3, heatmap, baseline="rise", **common)
    np.testing.assert_allclose(there.scores, back.scores[::-1], rtol=1e-6)
    np.testing.assert_allclose(there.auc, back.auc, rtol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 10, 30, 31, 1000])
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


# --- blurs -------------------------------------------------------------------------------------


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


# --- mistakes ----------------------------------------------------------------------------------

BAD_MAP = MAPS.copy()
BAD_MAP[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"heatmap": MAPS[:2]}, InputError, r"heatmap: Expected shape \(3, 9, 7\)"),
        ({"heatmap": MAPS[0]}, InputError, "heatmap: Expected shape"),
        ({"heatmap": BAD_MAP}, InputError, r"heatmap: Expected finite.*nan at index \(1, 2, 3\)"),
        ({"heatmap": "saliency"}, InputTypeError, "heatmap: Expected an array, got str"),
        ({"heatmap": MAPS + 1j}, InputTypeError, "heatmap: Expected real numbers"),
        ({"label": [1, 2]}, InputError, "label: Expected an int or 3 labels"),
        ({"label": 5}, InputError, "label: Expected 0 <= label < 5"),
        ({"step": 0}, InputError, "step: Expected at least 1"),
        ({"step": 1.5}, InputTypeError, "step: Expected an int"),
        ({"points": 1}, InputError, "points: Expected at least 2"),
        ({"points": 65}, InputError, r"points: Expected at most 64"),
        ({"points": 5, "step": 5}, InputError, "points: Expected step or points, got both"),
        ({"chunk_size": 0}, InputError, "chunk_size: Expected at least 1"),
        ({"activation": "relu"}, InputError, "activation: Expected one of"),
        ({"activation": jax.nn.softmax}, InputTypeError, "activation: Expected one of"),
        ({"order": "random"}, InputError, "order: Expected"),
        ({"blur": "box"}, InputError, 'blur: Expected "rise"'),
        ({"blur": ("gaussian", 4, 1.0)}, InputError, "blur: Expected an odd size"),
        ({"blur": ("gaussian", 5, 0.0)}, InputError, "blur: Expected sigma > 0"),
        ({"blur": np.zeros((2, 2, 2))}, InputError, "blur: Expected a number or an array"),
        ({"blur": None}, InputTypeError, "blur: Expected"),
        ({"apply_fn": None}, InputTypeError, "params: Expected a callable pytree"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"label": LABELS, "heatmap": MAPS, "apply_fn": small_cnn, **change}
    with pytest.raises(error, match=message):
        insertion(WEIGHTS, X, **arguments)


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


# --- a real network ----------------------------------------------------------------------------


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
