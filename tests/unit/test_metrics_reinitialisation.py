"""Layer re-initialisation: signed and absolute rank correlation over several re-drawings."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linen_classifier import X, linen
from scipy import stats

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.metrics import layer_reinitialisation


def gradient(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
    def one(x: jax.Array, label: jax.Array) -> jax.Array:
        return jax.grad(lambda x: apply_fn(params, x[None])[0, label])(x)

    return one(x, label) if x.ndim == 3 else jax.vmap(one)(x, label)


def edges(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
    return jnp.abs(x).sum(-1)


@pytest.mark.slow
def test_a_map_that_ignores_the_network_has_correlation_one() -> None:
    params, apply_fn = linen("dense")
    key = jax.random.key(1)
    constant = layer_reinitialisation(params, X, 0, edges, apply_fn=apply_fn, key=key)
    np.testing.assert_allclose(constant.correlation, 1, atol=1e-6)
    np.testing.assert_allclose(constant.correlation_absolute, 1, atol=1e-6)
    assert constant.count == 3 and constant.mean == pytest.approx(1)
    dependent = layer_reinitialisation(params, X, 0, gradient, apply_fn=apply_fn, key=key)
    assert (jnp.abs(dependent.correlation) < 0.999).all()
    assert (jnp.abs(dependent.correlations) < 0.999).all()
    assert dependent.original.shape == (3, 8, 8) and dependent.redrawn.shape == (5, 3, 8, 8)


def redrawn_by_hand(params: Any, key: jax.Array, redraw: int) -> Any:
    """The classifier with N(mean, std) weights in its last layer, exchanged by name."""
    layer = params["params"]["a_first_name"]
    old = np.asarray(layer["kernel"], np.float64)
    noise = jax.random.normal(jax.random.fold_in(key, redraw), old.shape)
    kernel = jnp.asarray(old.mean() + old.std() * np.asarray(noise), jnp.float32)
    return {"params": {**params["params"], "a_first_name": {**layer, "kernel": kernel}}}


@pytest.mark.slow
def test_correlations_are_those_of_scipy_for_every_redrawing() -> None:
    params, apply_fn = linen("dense")
    key, labels = jax.random.key(1), np.array([1, 4, 2])
    result = layer_reinitialisation(
        params, X, labels, gradient, apply_fn=apply_fn, key=key, redraws=6
    )
    assert result.correlations.shape == result.correlations_absolute.shape == (6, 3)
    before = np.asarray(gradient(params, X, labels, apply_fn=apply_fn)).sum(-1)
    np.testing.assert_allclose(result.original, before, atol=1e-6)
    for redraw in range(6):
        new = redrawn_by_hand(params, key, redraw)
        after = np.asarray(gradient(new, X, labels, apply_fn=apply_fn)).sum(-1)
        np.testing.assert_allclose(result.redrawn[redraw], after, atol=1e-5)
        for i in range(3):
            signed = stats.spearmanr(before[i].ravel(), after[i].ravel()).statistic
            absolute = stats.spearmanr(abs(before[i]).ravel(), abs(after[i]).ravel()).statistic
            np.testing.assert_allclose(result.correlations[redraw, i], signed, atol=1e-5)
            np.testing.assert_allclose(result.correlations_absolute[redraw, i], absolute, atol=1e-5)
    np.testing.assert_allclose(result.correlation, result.correlations.mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        result.correlation_absolute, result.correlations_absolute.mean(0), rtol=1e-6
    )
    assert result.mean == pytest.approx(float(result.correlations.mean()))
    assert result.mean_absolute == pytest.approx(float(result.correlations_absolute.mean()))


@pytest.mark.slow
def test_five_redrawings_if_nothing_is_said_and_known_maps_are_not_made_again() -> None:
    params, apply_fn = linen("dense")
    calls = []

    def counted(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
        calls.append(1)
        return gradient(params, x, label, apply_fn=apply_fn)

    options = {"apply_fn": apply_fn, "key": jax.random.key(1)}
    result = layer_reinitialisation(params, X, 2, counted, **options)
    assert len(calls) == 6 and result.correlations.shape == (5, 3)
    known = layer_reinitialisation(params, X, 2, counted, heatmap=result.original, **options)
    assert len(calls) == 11
    np.testing.assert_array_equal(known.correlations, result.correlations)
    fewer = layer_reinitialisation(params, X, 2, counted, redraws=2, **options)
    np.testing.assert_allclose(fewer.correlations, result.correlations[:2], atol=1e-6)


@pytest.mark.slow
def test_signs_may_change_while_places_stay() -> None:
    """Logit = w Σ x: a re-drawn w scales the map and may reverse its sign."""
    params = {"kernel": jnp.array([[1.0, -1.0, 2.0, -2.0]])}

    def network(params: Any, x: jax.Array) -> jax.Array:
        return x.sum((1, 2, 3))[:, None] @ params["kernel"]

    def product(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
        return gradient(params, x, label, apply_fn=apply_fn) * x

    result = layer_reinitialisation(
        params, X[..., :1], 0, product, apply_fn=network, key=jax.random.key(0), redraws=8
    )
    np.testing.assert_allclose(jnp.abs(result.correlations), 1, atol=1e-6)
    np.testing.assert_allclose(result.correlations_absolute, 1, atol=1e-6)
    assert -1 < result.mean < 1 and result.mean_absolute == pytest.approx(1)


@pytest.mark.slow
def test_no_label_keeps_the_first_choice_of_the_original_network() -> None:
    params, apply_fn = linen("dense")
    top = np.asarray(apply_fn(params, X)).argmax(-1)
    options = {"apply_fn": apply_fn, "key": jax.random.key(5)}
    chosen = layer_reinitialisation(params, X, None, gradient, **options)
    given = layer_reinitialisation(params, X, top, gradient, **options)
    np.testing.assert_array_equal(chosen.correlation, given.correlation)
    single = layer_reinitialisation(params, X[1], None, gradient, **options)
    assert single.correlation.shape == single.correlation_absolute.shape == ()
    assert single.correlations.shape == (5,) and single.defined.shape == ()
    assert single.original.shape == (8, 8) and single.redrawn.shape == (5, 8, 8)
    # the search for the last layer looks at the first image, and finds the same layer
    np.testing.assert_allclose(single.correlation, given.correlation[1], atol=1e-5)


def test_constant_and_broken_maps_are_a_status() -> None:
    params, apply_fn = linen("dense")

    def partly(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
        return jnp.abs(x).sum(-1).at[0].set(3.0).at[2, 1, 1].set(jnp.nan)

    run = partial(layer_reinitialisation, params, apply_fn=apply_fn, key=jax.random.key(0))
    result = run(X, 0, partly)
    assert result.defined.tolist() == [False, True, False] and result.count == 1
    for values in (result.correlation, result.correlation_absolute, *result.correlations):
        assert np.isnan(values).tolist() == [True, False, True]
    assert result.mean == pytest.approx(1) and result.mean_absolute == pytest.approx(1)
    none = run(X[:1], 0, lambda p, x, label, apply_fn: jnp.zeros(x.shape))
    assert none.count == 0 and np.isnan(none.mean) and np.isnan(none.mean_absolute)


def test_a_redrawing_without_a_map_is_left_out_of_the_mean() -> None:
    params, apply_fn = linen("dense")
    calls = []

    def sometimes(params: Any, x: jax.Array, label: jax.Array, *, apply_fn: Any) -> jax.Array:
        calls.append(1)
        map_ = gradient(params, x, label, apply_fn=apply_fn)
        return map_.at[1].set(0.0) if len(calls) in (2, 4) else map_

    result = layer_reinitialisation(
        params, X, 0, sometimes, apply_fn=apply_fn, key=jax.random.key(1), redraws=3
    )
    assert np.isnan(result.correlations[:, 1]).tolist() == [True, False, True]
    np.testing.assert_allclose(result.correlation[1], result.correlations[1, 1], rtol=1e-6)
    assert result.defined.all() and result.count == 3


def test_mistakes_are_named() -> None:
    params, apply_fn = linen("dense")
    run = partial(layer_reinitialisation, params, X, apply_fn=apply_fn, key=jax.random.key(0))
    with pytest.raises(InputTypeError, match="method: Expected a function"):
        run(0, "gradient")
    with pytest.raises(InputError, match="heatmap: Expected shape"):
        run(0, lambda p, x, label, apply_fn: jnp.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="label: Expected 0 <= label < 6"):
        run(6, gradient)
    with pytest.raises(InputError, match="redraws: Expected at least 1, got 0"):
        run(0, gradient, redraws=0)


@pytest.mark.parametrize("value", [0.1, 0.0])
def test_a_layer_of_equal_weights_cannot_be_drawn_anew(value: float) -> None:
    """It is drawn from N(mean, 0): the network stays the same, and so does every map."""
    params, apply_fn = linen("dense")
    layer = params["params"]["a_first_name"]
    equal = {**layer, "kernel": jnp.full_like(layer["kernel"], value)}
    params = {"params": {**params["params"], "a_first_name": equal}}
    result = layer_reinitialisation(
        params,
        X,
        0,
        edges,
        apply_fn=apply_fn,
        key=jax.random.key(1),
        last_layer="params/a_first_name",
    )
    assert not result.defined.any() and int(result.count) == 0
    assert np.isnan(result.correlations).all() and np.isnan(result.correlations_absolute).all()
    assert np.isnan(result.mean) and np.isnan(result.mean_absolute)


@pytest.mark.parametrize("key", [None, 3, "key"])
def test_what_is_no_key_is_named(key: Any) -> None:
    params, apply_fn = linen("dense")
    call = partial(layer_reinitialisation, params, X, 0, edges, apply_fn=apply_fn, redraws=1)
    if key is None:
        assert bool(call(key=key).defined.all())
    else:
        with pytest.raises(InputTypeError, match="key: Expected a random key"):
            call(key=key)
