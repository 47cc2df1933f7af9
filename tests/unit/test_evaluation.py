"""The graph evaluates the steps of a program: values, gradients, biases, names in a profile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax.graph.convolution import evaluate_affine
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.steps import read
from dmbp_jax.graph.tracing import trace

SIDE, CHANNELS, BLOCKS = 6, 4, 3


def conv(x, kernel, dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def residual(params, x, scales=(2.0,) * BLOCKS):
    """Equal blocks but for `scales`: x + conv(relu(scale · conv(x) + 1))."""
    x = jax.nn.relu(conv(x, params["first"]))
    for (a, b), scale in zip(params["blocks"], scales, strict=True):
        x = jax.nn.relu(x + conv(jax.nn.relu(conv(x, a) * scale + 1), b))
    return x.mean((1, 2)) @ params["last"]


def make_params(dtype=np.float64):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), dtype)

    kernel = 3, 3, CHANNELS, CHANNELS
    return {
        "first": draw(3, 3, 3, CHANNELS),
        "blocks": [(draw(*kernel), draw(*kernel)) for _ in range(BLOCKS)],
        "last": draw(CHANNELS, 5),
    }


def find_program(function, params, side=SIDE, dtype=np.float64):
    image = jax.ShapeDtypeStruct((1, side, side, 3), dtype)
    network = trace(bind(params, function), image)
    return network.program(), network.graph


def step_by_step(graph, x):
    """F(x) by the steps of the program alone."""
    program = graph.program
    values = graph._constants | {program.image: x}
    for step in program.steps:
        if step.piece is not None:
            values[step.results[0]] = jax.nn.relu(values[step.operands[0]])
        elif step.kind != "constant":
            operands = [read(values, operand) for operand in step.operands]
            values.update(zip(step.results, evaluate_affine(step, operands), strict=True))
    return values[program.logits]


@pytest.mark.parametrize("scales", [(2.0,) * BLOCKS, (2.0, 3.0, 2.0)])
def test_values_and_gradients_are_those_of_the_steps(x64, scales):
    params = make_params()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, SIDE, SIDE, 3)))

    def network(params, x):
        return residual(params, x, scales)

    _, make_graph = find_program(network, params)
    graph = make_graph()
    expected, pull_back = jax.vjp(lambda x: step_by_step(graph, x), x)
    found, pull_back_ours = jax.vjp(graph.run, x)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(network(params, x), expected, rtol=1e-13)
    cotangent = jnp.arange(5.0)[None]
    np.testing.assert_allclose(
        pull_back_ours(cotangent)[0], pull_back(cotangent)[0], rtol=1e-12, atol=1e-15
    )
    late = graph.run_from(graph.before_pieces(x), Rules())
    np.testing.assert_allclose(late, expected, rtol=1e-13)


def test_kernels_get_their_gradients(x64):
    """Those of the parameters are the kernels' own, beside an adjoint kernel."""
    params = make_params()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, SIDE, SIDE, 3)))
    network = trace(bind(params, residual), x)

    def ours(arrays):
        return Graph(network.program(), arrays).run(x)[0, 2]

    def plain(params):
        return residual(params, x)[0, 2]

    found = jax.grad(ours)(network.inputs)
    expected = jax.tree.leaves(jax.grad(plain)(params))
    for ours_, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-10, atol=1e-14)


def test_a_rule_for_biases_still_sees_every_bias(x64):
    params = make_params()
    _, make_graph = find_program(residual, params)
    graph, seen = make_graph(), []

    def rule(index, value, bias):
        seen.append(index)
        return value

    graph.run(jnp.ones((1, SIDE, SIDE, 3)), Rules(bias=rule))
    assert seen == [site.index for site in graph.biases] == list(range(BLOCKS))


def test_a_profile_names_the_block_of_every_block():
    def network(params, x):
        for k in range(3):
            with jax.named_scope(f"block{k}"):
                x = jax.nn.relu(conv(x, params[k]) + 1)
        return x.mean((1, 2))

    params = [jnp.ones((3, 3, 3, 3)) for _ in range(3)]
    _, make_graph = find_program(network, params, dtype=np.float32)
    text = jax.jit(lambda x: make_graph().run(x)).lower(jnp.ones((1, SIDE, SIDE, 3)))
    compiled = text.compile().as_text()
    assert all(f"block{k}" in compiled for k in range(3))
