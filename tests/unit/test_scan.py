"""Loops over layers: a network with `scan` against the same network written with a Python loop.

Both have the same activations in the same order, so every map must be the same number in float64.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scanned_networks import DEPTH, NETWORKS, PARAMS, WIDTH, X, both, by_scan, first, plain
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")
EXACT = {"rtol": 1e-12, "atol": 1e-13}
FEW = dmbp_jax.DMBP(steps=3)


@pytest.mark.parametrize(
    "name",
    slow_beside(NETWORKS, "plain", "nested", "over rows", "of parameters", "reversed", "affine"),
)
def test_its_maps_are_those_of_a_python_loop(name):
    scanned, looped = both(name)
    assert "scan[" in str(jax.make_jaxpr(scanned)(PARAMS, X[None]))
    np.testing.assert_allclose(scanned(PARAMS, X[None]), looped(PARAMS, X[None]), **EXACT)
    found, expected = (
        dmbp_jax.attribute(PARAMS, X, 1, apply_fn=network, config=FEW, return_masks=True)
        for network in (scanned, looped)
    )
    assert abs(expected.positive).max() > 1e-3
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_its_sites_are_those_of_a_python_loop(name):
    found, expected = (
        [
            (s.kind, s.index, s.shape, s.dtype, s.masked)
            for s in dmbp_jax.sites(PARAMS, X, apply_fn=f)
        ]
        for f in both(name)
    )
    assert found == expected


OPTIONS = {
    "lpr": {"steps": 2},
    "dmbp": {"config": dmbp_jax.DMBP(steps=2, pointwise="tangent")},
}
READ_THE_PROGRAM = ("deeplift", "guided_backprop", "gradcam", "fullgrad", "lpr", "dmbp")


@pytest.mark.parametrize(
    "method", slow_beside(READ_THE_PROGRAM, "guided_backprop", "gradcam", "fullgrad", "lpr")
)
def test_every_method_sees_the_same_network(method):
    found, expected = (
        METHODS[method](PARAMS, X, 1, apply_fn=network, **OPTIONS.get(method, {}))
        for network in both("convolutions")
    )
    assert abs(np.asarray(expected)).max() > 0
    np.testing.assert_allclose(found, expected, **EXACT)


def test_a_fori_loop_of_fixed_bounds():
    def network(params, x):
        def step(i, h):
            return jax.nn.relu(h @ params["kernels"][i] + params["biases"][i])

        return lax.fori_loop(0, DEPTH, step, first(params, x)) @ params["last"]

    looped = both("plain")[1]
    found, expected = (
        dmbp_jax.attribute(PARAMS, X, 1, apply_fn=f, config=FEW) for f in (network, looped)
    )
    np.testing.assert_allclose(found.map, expected.map, **EXACT)


class Block(nn.Module):
    """One of several layers with stacked parameters."""

    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(WIDTH, name="dense", param_dtype=x.dtype)(x)), None


class LinenNet(nn.Module):
    """Blocks by `nn.scan`."""

    checkpointed: bool = False

    @nn.compact
    def __call__(self, x):
        block = nn.checkpoint(Block) if self.checkpointed else Block
        blocks = nn.scan(
            block, variable_axes={"params": 0}, split_rngs={"params": True}, length=DEPTH
        )
        x = nn.Dense(WIDTH, param_dtype=x.dtype)(x.reshape(len(x), -1))
        return blocks(name="blocks")(x, None)[0]


@pytest.mark.parametrize("checkpointed", slow_beside([False, True], False))
def test_scanned_blocks_of_linen(checkpointed):
    net = LinenNet(checkpointed)
    variables = net.init(jax.random.key(0), X[None])
    stacked = variables["params"]["blocks"]["dense"]
    stacked["bias"] = jnp.asarray(PARAMS["biases"])

    def looped(variables, x):
        dense = variables["params"]["Dense_0"]
        h = x.reshape(len(x), -1) @ dense["kernel"] + dense["bias"]
        for kernel, bias in zip(stacked["kernel"], stacked["bias"], strict=True):
            h = jax.nn.relu(h @ kernel + bias)
        return h

    sites = dmbp_jax.sites(variables, X, apply_fn=net.apply)
    names = [site.name for site in sites if site.masked]
    assert names == [f"LinenNet/blocks[{i}]/relu" for i in range(DEPTH)]
    found, expected = (
        dmbp_jax.attribute(variables, X, 1, apply_fn=f, config=FEW) for f in (net.apply, looped)
    )
    np.testing.assert_allclose(found.map, expected.map, **EXACT)


def test_a_scan_is_traced_once_and_kept():
    runs = []

    def network(params, x):
        runs.append(len(x))
        return plain(by_scan, params, x)

    for _ in range(2):
        dmbp_jax.attribute(PARAMS, X, 1, apply_fn=network, config=FEW)
    assert runs.count(1) == 1


def test_no_iteration_leaves_the_carry_and_nothing_stacked():
    def network(params, x):
        h, ys = by_scan(lambda h, k: (h @ k, h), first(params, x), params["kernels"][:0])
        return jax.nn.relu(h) + ys.sum((0, 1))

    def without(params, x):
        return jax.nn.relu(first(params, x))

    found, expected = (
        dmbp_jax.attribute(PARAMS, X, 1, apply_fn=f, config=FEW) for f in (network, without)
    )
    np.testing.assert_array_equal(found.map, expected.map)
