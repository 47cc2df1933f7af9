"""Loops over layers: a network with `scan` against the same network written with a Python loop.

Both have the same activations in the same order, so every map must be the same number in float64.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dmbp_jax
from dmbp_jax.errors import ControlFlowError, NonAffineError, NoReluError
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.scans import MOST_OPERATIONS
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("quick_compilation", "x64")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 2))
WIDTH, DEPTH = 5, 3
PARAMS = {
    "first": RNG.normal(size=(X.size, WIDTH)) / 3,
    "kernels": RNG.normal(size=(DEPTH, WIDTH, WIDTH)) / 1.5,
    "biases": 0.3 * RNG.normal(size=(DEPTH, WIDTH)),
    "inner": RNG.normal(size=(DEPTH, 2, WIDTH, WIDTH)) / 1.5,
    "read": RNG.normal(size=(6, WIDTH)) / 2,
    "convolutions": RNG.normal(size=(DEPTH, 3, 3, 2, 2)) / 4,
    "read_pool": RNG.normal(size=(12, WIDTH)) / 3,
    "last": RNG.normal(size=(WIDTH, 4)),
}
EXACT = {"rtol": 1e-12, "atol": 1e-13}
FEW = dmbp_jax.DMBP(steps=3)


def first(params, x):
    return x.reshape(len(x), -1) @ params["first"]


def by_scan(step, carry, elements, reverse=False):
    return lax.scan(step, carry, elements, reverse=reverse)


def by_loop(step, carry, elements, reverse=False):
    """What `lax.scan` is documented to be."""
    length = len(jax.tree.leaves(elements)[0])
    outputs = [None] * length
    for i in range(length)[:: -1 if reverse else 1]:
        carry, outputs[i] = step(carry, jax.tree.map(lambda a, i=i: a[i], elements))
    return carry, jax.tree.map(lambda *values: jnp.stack(values), *outputs)


def plain(loop, params, x, reverse=False):
    """The carry depends on x."""

    def step(h, layer):
        kernel, bias = layer
        return jax.nn.relu(h @ kernel + bias), None

    return loop(step, first(params, x), (params["kernels"], params["biases"]), reverse)[0]


def residual(loop, params, x):
    """Two kinds of activation, and outputs that are read after the loop."""

    def step(h, layer):
        kernel, bias = layer
        h = h + jax.nn.silu(h @ kernel + bias)
        return h, jax.nn.relu(0.7 - h)

    h, outputs = loop(step, first(params, x), (params["kernels"], params["biases"]))
    return h + jnp.einsum("lnf,l->nf", outputs, jnp.array([1.0, -0.5, 0.3]))


def over_rows(loop, params, x):
    """The elements depend on x and the first carry does not: a recurrent network."""

    def step(h, row):
        return jnp.tanh(row.reshape(len(x), -1) @ params["read"] + h @ params["kernels"][1]), None

    return loop(step, jnp.zeros((len(x), WIDTH)), x.swapaxes(0, 1))[0]


def nested(loop, params, x):
    """A loop in a loop, the inner one over two layers."""

    def step(h, layer):
        kernels, bias = layer
        inner = loop(lambda h, kernel: (nn.leaky_relu(h @ kernel), h.sum()), h, kernels)
        return jax.nn.relu(inner[0] + bias), inner[1]

    h, sums = loop(step, first(params, x), (params["inner"], params["biases"]))
    return h + sums.sum()


def affine(loop, params, x):
    """No activation inside; the biases are."""

    def step(h, layer):
        return h @ layer[0] + layer[1], None

    return jax.nn.relu(loop(step, first(params, x), (params["kernels"], params["biases"]))[0])


def of_parameters(loop, params, x):
    """A loop that does not depend on x."""

    def step(product, kernel):
        return jnp.tanh(product @ kernel), product.sum(0)

    product, sums = loop(step, jnp.eye(WIDTH), params["kernels"])
    return jax.nn.relu(first(params, x) @ product + sums.sum(0))


def convolutions(loop, params, x):
    """Feature maps, for the methods that need them; a pool after the loop."""

    def step(h, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        h = h + lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return jax.nn.silu(jax.nn.relu(h - 0.1)[..., ::-1] + h), None

    h = loop(step, x, params["convolutions"])[0]
    return nn.max_pool(h, (2, 2), (1, 1)).reshape(len(x), -1) @ params["read_pool"]


NETWORKS = {
    "plain": plain,
    "reversed": lambda loop, params, x: plain(loop, params, x, reverse=True),
    "residual": residual,
    "over rows": over_rows,
    "nested": nested,
    "affine": affine,
    "of parameters": of_parameters,
    "convolutions": convolutions,
}


def both(name):
    """The network with `scan`, and with a Python loop."""

    def network(loop):
        return lambda params, x: NETWORKS[name](loop, params, x) @ params["last"]

    return network(by_scan), network(by_loop)


@pytest.mark.parametrize("name", NETWORKS)
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


@pytest.mark.parametrize("method", READ_THE_PROGRAM)
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


def test_names_have_the_iteration():
    def network(params, x):
        with jax.named_scope("blocks"):
            h = by_scan(outside, first(params, x), params["kernels"], reverse=True)[0]
            h = by_scan(inside, h, params["kernels"][:1])[0]
        h = by_scan(lambda h, k: (jax.nn.relu(h @ k), None), h, params["kernels"][:2])[0]
        return h @ params["last"]

    def outside(h, kernel):
        h = h @ kernel
        with jax.named_scope("act"):
            return jax.nn.relu(h), None

    def inside(h, kernel):
        with jax.named_scope("layer"):
            return jax.nn.relu(h @ kernel), None

    names = [site.name for site in dmbp_jax.sites(PARAMS, X, apply_fn=network)]
    blocks = [f"blocks[{i}]/act/relu" for i in (2, 1, 0)]  # in order of evaluation
    assert names == [*blocks, "blocks/layer[0]/relu", "scan[0]/relu", "scan[1]/relu"]


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


@pytest.mark.parametrize("checkpointed", [False, True])
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
        runs.append(1)
        return plain(by_scan, params, x)

    for _ in range(2):
        dmbp_jax.attribute(PARAMS, X, 1, apply_fn=network, config=FEW)
    assert len(runs) == 1


def test_memory_counts_every_iteration():
    def network(params, x):
        h = x.reshape(len(x), -1)  # 24 numbers

        def step(h, _):
            return lax.neg(h), lax.exp(h)  # two values, the second is stacked

        h, ys = lax.scan(step, h, None, length=7)
        return h + lax.reduce_sum(ys, (0,))

    found = trace(bind(PARAMS, network), jax.ShapeDtypeStruct((1, *X.shape), X.dtype))
    values = 1 + 7 * 2 + 7 + 1 + 1  # reshape, the bodies, the stack, the sum, the addition
    assert found.trace.bytes_per_image == 8 * X.size * values


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


def _refused(step, length=DEPTH):
    def network(params, x):
        with jax.named_scope("loop"):
            h = lax.scan(step, first(params, x), None, length=length)[0]
        return jax.nn.relu(h)

    return network


REFUSED = {
    "too long": (
        _refused(lambda h, _: (jax.nn.relu(h), None), MOST_OPERATIONS + 1),
        ControlFlowError,
        f"at most {MOST_OPERATIONS} operations.*'scan' at 'loop'.*{MOST_OPERATIONS + 1} iterations",
    ),
    "a product inside": (
        _refused(lambda h, _: (h * h[:, ::-1], None)),
        NonAffineError,
        r"'mul' at 'loop\[0\]'.*multiplied",
    ),
    "a branch inside": (
        _refused(lambda h, _: (lax.cond(h[0, 0] > 0, jnp.sin, jnp.cos, h), None)),
        ControlFlowError,
        r"'gt'|'cond' at 'loop\[0\]'",
    ),
    "a condition": (
        lambda params, x: lax.while_loop(lambda h: h.sum() < 0, jax.nn.relu, first(params, x)),
        ControlFlowError,
        "'while' at the top level of the network: how often it runs is not known",
    ),
    "branches": (
        lambda params, x: lax.cond(
            params["last"].sum() > 0, jax.nn.relu, jnp.sin, first(params, x)
        ),
        ControlFlowError,
        "'cond' at the top level of the network: which branch",
    ),
    "no activation": (
        lambda params, x: by_scan(lambda h, k: (h @ k, None), first(params, x), params["kernels"])[
            0
        ],
        NoReluError,
        "at least one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    network, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        dmbp_jax.sites(PARAMS, X, apply_fn=network)
