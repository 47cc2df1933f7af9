"""The last layer is found and re-drawn, and nothing else is touched."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linen_classifier import X, linen
from short_methods import slow_beside

from benchmarks.faithfulness import real_networks
from dmbp_jax.errors import InputError, SiteNotFoundError
from dmbp_jax.metrics import redraw_last_layer


@pytest.mark.parametrize("head", slow_beside(["dense", "conv"], "conv"))
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


class Foreign:
    """An array of another library, whose dtypes are its own."""

    dtype = object()

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.ndim = values, values.shape, values.ndim

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values


def test_arrays_of_other_libraries(rng: np.random.Generator) -> None:
    params = {"w": Foreign(rng.normal(size=(1, 3)).astype(np.float32))}
    net = lambda params, x: x.mean((1, 2)) @ params["w"]  # noqa: E731
    x, key = np.ones((4, 4, 1), np.float32), jax.random.key(0)
    new = redraw_last_layer(params, x, apply_fn=net, key=key)["w"]
    native = redraw_last_layer({"w": params["w"].values}, x, apply_fn=net, key=key)["w"]
    np.testing.assert_array_equal(new, native)


def test_inside_jit_the_layer_has_to_be_named() -> None:
    params, apply_fn = linen("two")

    def redraw(x: jax.Array, name: str | None) -> Any:
        options = {"apply_fn": apply_fn, "key": jax.random.key(0), "last_layer": name}
        return redraw_last_layer(params, x, **options)["params"]["one"]["kernel"]

    redraw = jax.jit(redraw, static_argnums=1)
    np.testing.assert_allclose(redraw(X, "params/one"), redraw.__wrapped__(X, "params/one"), 1e-6)
    with pytest.raises(InputError, match=r"last_layer: Expected a name.*params/one/kernel"):
        redraw(X, None)


def test_a_network_without_weights_has_no_last_layer() -> None:
    with pytest.raises(InputError, match="found none"):
        redraw_last_layer(
            jnp.float32(1), X, apply_fn=lambda p, x: p * x.mean((1, 2)), key=jax.random.key(0)
        )


@pytest.mark.slow
@pytest.mark.skipif(not real_networks.HAVE_REAL, reason="no real network beside the repository")
def test_squeezenet_ends_in_conv10() -> None:
    params, apply_fn, preprocess = real_networks.squeezenet()
    x = preprocess(real_networks.photos()[0][0])
    new = redraw_last_layer(params, x, apply_fn=apply_fn, key=jax.random.key(0))
    changed = {name for name in params if new[name] is not params[name] and "kernel" in new[name]}
    changed = {n for n in changed if (new[n]["kernel"] != params[n]["kernel"]).any()}
    assert changed == {"conv10"}
