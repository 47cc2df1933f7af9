"""Networks with a loop over layers, for `lax.scan` and for a Python loop in its place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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
        inner = loop(lambda h, kernel: (nn.leaky_relu(h @ kernel), h.sum(-1)), h, kernels)
        return jax.nn.relu(inner[0] + bias), inner[1]

    h, sums = loop(step, first(params, x), (params["inner"], params["biases"]))
    return h + sums.sum((0, 1))[:, None]


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
