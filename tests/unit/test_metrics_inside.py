"""Share of one sign's attribution inside a mask: by hand, against a loop, and at extreme scales."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import attribution_inside

MAP = np.array([[3.0, -4.0, 0.5], [-1.0, 0.0, 0.5]])
LEFT = np.array([[True, False, False], [True, False, False]])


def share_by_loop(heatmap: np.ndarray, mask: np.ndarray, sign: float) -> float:
    """The definition, pixel by pixel, in Python numbers."""
    inside = total = 0.0
    for row, column in np.ndindex(*heatmap.shape):
        value = max(sign * float(heatmap[row, column]), 0.0)
        total += value
        inside += value if mask[row, column] else 0.0
    return inside / total if total > 0 else 0.0


def test_shares_by_hand() -> None:
    assert attribution_inside(MAP, LEFT) == pytest.approx(3 / 4)
    assert attribution_inside(MAP, LEFT, sign="negative") == pytest.approx(1 / 5)
    assert attribution_inside(MAP, ~LEFT, sign="negative") == pytest.approx(4 / 5)
    assert attribution_inside(np.ones((2, 3)), LEFT) == pytest.approx(1 / 3)  # uniform: the area


@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_a_batch_is_its_images_one_by_one(sign: Any, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(6, 31, 17)).astype(np.float32)
    masks = rng.random(size=maps.shape) < np.linspace(0.1, 1, 6)[:, None, None]
    shares = attribution_inside(maps, masks, sign=sign)
    assert shares.shape == (6,) and shares.dtype == jnp.float32
    factor = 1 if sign == "positive" else -1
    for heatmap, mask, share in zip(maps, masks, shares, strict=True):
        np.testing.assert_allclose(share, share_by_loop(heatmap, mask, factor), rtol=2e-6)
        alone = attribution_inside(heatmap, mask.astype(int), sign=sign)
        assert alone.shape == ()
        np.testing.assert_allclose(alone, share, rtol=1e-6)


def test_nothing_of_the_sign_is_zero_and_an_empty_mask_is_nan() -> None:
    maps = np.stack([-np.abs(MAP), np.zeros((2, 3)), MAP, np.zeros((2, 3))])
    masks = np.stack([LEFT, LEFT, np.zeros((2, 3), bool), np.zeros((2, 3), bool)])
    np.testing.assert_array_equal(attribution_inside(maps, masks), [0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(
        attribution_inside(-maps, masks, sign="negative"), [0, 0, np.nan, np.nan]
    )


@pytest.mark.parametrize("scale", [1e38, 1e-37])
def test_sums_neither_overflow_nor_vanish(scale: float) -> None:
    heatmap = np.full((224, 224), scale, np.float32)  # the plain float32 sum of 1e38 is infinite
    mask = np.zeros((224, 224), bool)
    mask[:56] = True
    assert attribution_inside(heatmap, mask) == pytest.approx(1 / 4, rel=1e-6)
    assert attribution_inside(-heatmap, mask, sign="negative") == pytest.approx(1 / 4, rel=1e-6)


def test_float64_agrees_to_float64(rng: np.random.Generator) -> None:
    heatmap, mask = rng.normal(size=(50, 40)) * 1e300, rng.random(size=(50, 40)) < 0.3
    with jax.enable_x64(True):
        share = attribution_inside(heatmap, mask)
        assert share.dtype == jnp.float64
        np.testing.assert_allclose(share, share_by_loop(heatmap, mask, 1), rtol=1e-12)


def test_an_attribution_is_taken_by_its_heat_map() -> None:
    class Explained:
        heatmap = MAP

    assert attribution_inside(Explained(), LEFT) == pytest.approx(3 / 4)


def test_jit_and_vmap() -> None:
    maps, masks = jnp.stack([jnp.asarray(MAP)] * 2), jnp.stack([jnp.asarray(LEFT)] * 2)
    expected = [3 / 4, 3 / 4]
    np.testing.assert_allclose(jax.jit(attribution_inside)(maps, masks), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(attribution_inside)(maps, masks), expected, rtol=1e-6)
    captured = jax.jit(lambda scale: scale * attribution_inside(maps, masks))(1.0)
    np.testing.assert_allclose(captured, expected, rtol=1e-6)
    bad = maps.at[1, 0, 0].set(jnp.nan)  # refused outside
    np.testing.assert_allclose(jax.jit(attribution_inside)(bad, masks), [3 / 4, np.nan], rtol=1e-6)


def test_arrays_of_other_libraries() -> None:
    for dtype in (">f4", np.longdouble, np.float16):
        assert attribution_inside(MAP.astype(dtype), LEFT) == pytest.approx(3 / 4)
    with pytest.raises(InputTypeError, match="heatmap: Expected an array, got one with masked"):
        attribution_inside(np.ma.masked_array(MAP, LEFT), LEFT)


@pytest.mark.parametrize(
    "heatmap, masks, options, error, message",
    [
        (MAP, LEFT[:1], {}, InputError, r"masks: Expected shape \(2, 3\) as the maps"),
        (MAP, LEFT[None], {}, InputError, "masks: Expected shape"),
        (MAP[None], LEFT, {}, InputError, r"masks: Expected shape \(1, 2, 3\) as the maps"),
        (MAP, 0.5 * LEFT, {}, InputError, "masks: Expected booleans or 0/1"),
        (MAP, np.where(LEFT, np.nan, 0), {}, InputError, "masks: Expected booleans or 0/1"),
        (MAP, "dog", {}, InputTypeError, "masks: Expected an array, got str"),
        (MAP[0], LEFT, {}, InputError, r"heatmap: Expected shape \(H, W\) or \(N, H, W\)"),
        (np.where(LEFT, np.inf, MAP), LEFT, {}, InputError, "heatmap: Expected finite values"),
        (MAP, LEFT, {"sign": "both"}, InputError, "sign: Expected one of"),
        (MAP, LEFT, {"sign": 1}, InputTypeError, "sign: Expected one of"),
    ],
)
def test_mistakes_are_named(
    heatmap: Any, masks: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        attribution_inside(heatmap, masks, **options)
