"""Rank correlation against scipy; the last layer is found, redrawn and nothing else is touched."""

from functools import partial
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real_networks
from scipy import stats

from dmbp_jax.errors import InputError, InputTypeError, SiteNotFoundError
from dmbp_jax.metrics import layer_reinitialisation, rank_correlation, redraw_last_layer

pytestmark = pytest.mark.usefixtures("quick_compilation")

# --- rank correlation ----------------------------------------------------------------------------


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


# --- finding and redrawing the last layer --------------------------------------------------------


class Linen(nn.Module):
    """A hidden layer as wide as there are classes, so that shapes alone do not tell."""

    head: str = "dense"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        if self.head == "conv":
            return nn.relu(nn.Conv(6, (1, 1), name="a_first_name")(x)).mean((1, 2))
        x = nn.relu(nn.Dense(6, name="zz_hidden")(x.mean((1, 2))))
        if self.head == "two":
            return nn.Dense(6, name="one")(x) + nn.Dense(6, name="two")(x)
        return nn.Dense(6, name="a_first_name")(x)


X = np.random.default_rng(3).normal(size=(3, 8, 8, 2)).astype(np.float32)


def linen(head: str) -> tuple[Any, Any]:
    module = Linen(head)
    return module.init(jax.random.key(0), X), module.apply


@pytest.mark.parametrize("head", ["dense", "conv"])
def test_only_the_last_kernel_changes(head: str) -> None:
    params, apply_fn = linen(head)
    new = redraw_last_layer(params, X, apply_fn=apply_fn, key=jax.random.key(1))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, new)
    paths = [jax.tree_util.keystr(p) for p, c in jax.tree.leaves_with_path(changed) if c]
    assert paths == ["['params']['a_first_name']['kernel']"]


def test_new_weights_have_the_mean_and_deviation_of_the_old(rng: np.random.Generator) -> None:
    params = {"w": rng.normal(3, 0.5, size=(2000, 10)).astype(np.float32)}

    def net(params: Any, x: jax.Array) -> jax.Array:
        return x.reshape(-1, 2000) @ params["w"]

    x = np.ones((20, 100, 1), np.float32)
    new = redraw_last_layer(params, x, apply_fn=net, key=jax.random.key(0))["w"]
    assert new.shape == (2000, 10)
    assert new.mean() == pytest.approx(params["w"].mean(), abs=5 * 0.5 / np.sqrt(20_000))
    assert new.std() == pytest.approx(params["w"].std(), rel=0.03)
    again = redraw_last_layer(params, x, apply_fn=net, key=jax.random.key(0))["w"]
    other = redraw_last_layer(params, x, apply_fn=net, key=jax.random.key(1))["w"]
    np.testing.assert_array_equal(new, again)
    assert (new != other).mean() > 0.99


def test_equinox_keeps_classes_first() -> None:
    class Net(eqx.Module):
        hidden: eqx.nn.Linear
        head: eqx.nn.Linear

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.vmap(lambda v: self.head(jax.nn.relu(self.hidden(v.ravel()))))(x)

    keys = jax.random.split(jax.random.key(0))
    net = Net(eqx.nn.Linear(128, 7, key=keys[0]), eqx.nn.Linear(7, 7, key=keys[1]))
    new = redraw_last_layer(net, X, key=jax.random.key(1))
    assert isinstance(new, Net)
    assert (new.head.weight != net.head.weight).any()
    assert (new.hidden.weight == net.hidden.weight).all()
    assert (new.head.bias == net.head.bias).all()


def test_two_heads_are_ambiguous_until_one_is_named() -> None:
    params, apply_fn = linen("two")
    with pytest.raises(InputError, match="found params/one/kernel, params/two/kernel") as info:
        redraw_last_layer(params, X, apply_fn=apply_fn, key=jax.random.key(0))
    assert "last_layer= one of" in str(info.value) and "params/stem/kernel" in str(info.value)
    for name in ("params/two", "params/two/kernel", "/params/two/"):
        new = redraw_last_layer(
            params, X, apply_fn=apply_fn, key=jax.random.key(0), last_layer=name
        )
        assert (new["params"]["two"]["kernel"] != params["params"]["two"]["kernel"]).any()
        assert (new["params"]["one"]["kernel"] == params["params"]["one"]["kernel"]).all()
    for name in ("params", "two", "params/two/bias"):
        with pytest.raises(SiteNotFoundError, match="last_layer: Expected the path of one"):
            redraw_last_layer(params, X, apply_fn=apply_fn, key=jax.random.key(0), last_layer=name)


def test_a_network_without_weights_has_no_last_layer() -> None:
    with pytest.raises(InputError, match="found none"):
        redraw_last_layer(
            jnp.float32(1), X, apply_fn=lambda p, x: p * x.mean((1, 2)), key=jax.random.key(0)
        )


# --- the metric ----------------------------------------------------------------------------------


def gradient(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
    def one(x: jax.Array, label: jax.Array) -> jax.Array:
        return jax.grad(lambda x: apply_fn(params, x[None])[0, label])(x)

    return one(x, label) if x.ndim == 3 else jax.vmap(one)(x, label)


def edges(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
    return jnp.abs(x).sum(-1)


def test_a_map_that_does_not_see_the_network_keeps_correlation_one() -> None:
    params, apply_fn = linen("dense")
    key = jax.random.key(1)
    blind = layer_reinitialisation(params, X, 0, edges, apply_fn=apply_fn, key=key)
    np.testing.assert_allclose(blind.correlation, 1, atol=1e-6)
    assert blind.count == 3 and blind.mean == pytest.approx(1)
    seeing = layer_reinitialisation(params, X, 0, gradient, apply_fn=apply_fn, key=key)
    assert (jnp.abs(seeing.correlation) < 0.999).all()
    assert seeing.original.shape == seeing.redrawn.shape == (3, 8, 8)


def test_correlation_is_that_of_the_two_maps() -> None:
    params, apply_fn = linen("dense")
    key, labels = jax.random.key(1), np.array([1, 4, 2])
    result = layer_reinitialisation(params, X, labels, gradient, apply_fn=apply_fn, key=key)
    new = redraw_last_layer(params, X, apply_fn=apply_fn, key=key)
    for i in range(3):
        maps = [gradient(p, X[i], labels[i], apply_fn=apply_fn).sum(-1) for p in (params, new)]
        expected = stats.spearmanr(np.ravel(maps[0]), np.ravel(maps[1])).statistic
        np.testing.assert_allclose(result.correlation[i], expected, atol=1e-5)
    assert result.mean == pytest.approx(float(result.correlation.mean()))
    known = layer_reinitialisation(
        params, X, labels, gradient, apply_fn=apply_fn, key=key, heatmap=result.original
    )
    np.testing.assert_array_equal(known.correlation, result.correlation)


def test_no_label_keeps_the_first_choice_of_the_original_network() -> None:
    params, apply_fn = linen("dense")
    top = np.asarray(apply_fn(params, X)).argmax(-1)
    options = {"apply_fn": apply_fn, "key": jax.random.key(5)}
    chosen = layer_reinitialisation(params, X, None, gradient, **options)
    given = layer_reinitialisation(params, X, top, gradient, **options)
    np.testing.assert_array_equal(chosen.correlation, given.correlation)
    single = layer_reinitialisation(params, X[1], None, gradient, **options)
    assert single.correlation.shape == () and single.original.shape == (8, 8)
    # the search for the last layer looks at the first image, and finds the same layer
    np.testing.assert_allclose(single.correlation, given.correlation[1], atol=1e-5)


def test_constant_and_broken_maps_are_a_status() -> None:
    params, apply_fn = linen("dense")

    def partly(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
        return jnp.abs(x).sum(-1).at[0].set(3.0).at[2, 1, 1].set(jnp.nan)

    run = partial(layer_reinitialisation, params, apply_fn=apply_fn, key=jax.random.key(0))
    result = run(X, 0, partly)
    assert result.defined.tolist() == [False, True, False] and result.count == 1
    assert np.isnan(result.correlation).tolist() == [True, False, True]
    assert result.mean == pytest.approx(1)
    none = run(X[:1], 0, lambda p, x, label, apply_fn: jnp.zeros(x.shape))
    assert none.count == 0 and np.isnan(none.mean)


def test_mistakes_are_named() -> None:
    params, apply_fn = linen("dense")
    run = partial(layer_reinitialisation, params, X, apply_fn=apply_fn, key=jax.random.key(0))
    with pytest.raises(InputTypeError, match="method: Expected a function"):
        run(0, "gradient")
    with pytest.raises(InputError, match="heatmap: Expected shape"):
        run(0, lambda p, x, label, apply_fn: jnp.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="label: Expected 0 <= label < 6"):
        run(6, gradient)


@pytest.mark.skipif(not real_networks.HAVE_REAL, reason="no real network beside the repository")
def test_squeezenet_ends_in_conv10() -> None:
    params, apply_fn, preprocess = real_networks.squeezenet()
    x = preprocess(real_networks.photos()[0][0])
    new = redraw_last_layer(params, x, apply_fn=apply_fn, key=jax.random.key(0))
    changed = {name for name in params if new[name] is not params[name] and "kernel" in new[name]}
    changed = {n for n in changed if (new[n]["kernel"] != params[n]["kernel"]).any()}
    assert changed == {"conv10"}
