"""What is found in a loop over layers: names of sites, memory, and what is refused."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from scanned_networks import DEPTH, PARAMS, X, by_scan, first

import dmbp_jax
from dmbp_jax.errors import ControlFlowError, NonAffineError, NoReluError
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.scans import MOST_OPERATIONS
from dmbp_jax.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("x64")


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
    "too long to be counted": (
        _refused(lambda h, _: (-h, None), 10**9),
        ControlFlowError,
        "1000000000 iterations",
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
        lambda params, x: jax.vmap(lambda h: lax.while_loop(lambda h: h.sum() < 0, jax.nn.relu, h))(
            first(params, x)
        ),
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
