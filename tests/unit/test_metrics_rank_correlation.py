"""Spearman's rank correlation against scipy, and where it is undefined."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dmbp_jax.errors import InputError
from dmbp_jax.metrics import rank_correlation


@pytest.mark.parametrize("decimals", [8, 1, 0])  # 1, 0: many ties
def test_rank_correlation_is_that_of_scipy(decimals: int, rng: np.random.Generator) -> None:
    a = np.round(rng.normal(size=(4, 40, 31)), decimals).astype(np.float32)
    b = np.round(0.5 * a + rng.normal(size=a.shape), decimals).astype(np.float32)
    expected = [stats.spearmanr(p.ravel(), q.ravel()).statistic for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected, atol=2e-6)
    np.testing.assert_allclose(rank_correlation(a[0], b[0]), expected[0], atol=2e-6)


def test_rank_correlation_of_large_maps(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 224, 224)).astype(np.float32)
    for other in (b, a + b, np.exp(a)):  # exp: 20 pixels become equal
        expected = stats.spearmanr(a.ravel(), other.ravel()).statistic
        np.testing.assert_allclose(rank_correlation(a, other), expected, atol=5e-7)
    np.testing.assert_allclose(rank_correlation(a, -a), -1, atol=5e-7)


def test_rank_correlation_by_hand() -> None:
    # ranks 1, 2.5, 2.5, 4 and 4, 3, 2, 1: covariance -4.5, norms sqrt(4.5) and sqrt(5)
    value = rank_correlation(jnp.array([[0.0, 1, 1, 7]]), jnp.array([[9.0, 8, 7, -1]]))
    np.testing.assert_allclose(value, -4.5 / np.sqrt(4.5 * 5), rtol=1e-6)


def test_constant_maps_are_undefined(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(3, 5, 5))
    maps[1] = 2.5
    result = rank_correlation(maps, maps[::-1].copy())
    assert np.isnan(result).tolist() == [False, True, False]


def test_rank_correlation_mistakes() -> None:
    a = np.zeros((2, 3, 3))
    with pytest.raises(InputError, match="b: Expected shape"):
        rank_correlation(a, a[:1])
    with pytest.raises(InputError, match="b: Expected shape"):
        rank_correlation(a[:1], a[0])
    with pytest.raises(InputError, match=r"a: Expected shape \(H, W\) or \(N, H, W\), got \(3,\)"):
        rank_correlation(np.zeros(3), a)
    with pytest.raises(
        InputError, match=r"b: Expected finite values, got inf at index \(0, 1, 0\)"
    ):
        rank_correlation(a, np.where(np.arange(18).reshape(2, 3, 3) == 3, np.inf, 0))
