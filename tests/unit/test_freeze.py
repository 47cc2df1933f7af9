"""What nonaffine="freeze" takes as a gate, what stays refused, and what the messages say."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_methods import slow_beside
from small_networks import NETWORKS, apply_fn_of, make_params

import dmbp_jax
from dmbp_jax.errors import ControlFlowError, InputError, NonAffineError, UnsupportedNetworkError
from dmbp_jax.graph.call import check_call

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 4, 3)), jnp.float32)
W = {name: jnp.asarray(RNG.normal(size=(5, 5)), jnp.float32) for name in "abcd"}
IN = jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32)


def _network(block):
    def network(_, x):
        h = block(jax.nn.relu(x @ IN))
        return jax.nn.relu(h @ W["d"]).mean((1, 2)) @ W["a"]

    return network


def _sites(block, nonaffine="freeze"):
    return dmbp_jax.sites(None, X, apply_fn=_network(block), nonaffine=nonaffine)


def _frozen(block):
    return [(site.name, site.shape) for site in _sites(block) if site.kind == "frozen"]


def _tokens(block):
    return lambda h: block(h.reshape(1, 16, 5)).reshape(1, 4, 4, 5)


@_tokens
def dot_product_attention(h):
    q, k, v = ((h @ W[name])[:, :, None] for name in "abc")
    return jax.nn.dot_product_attention(q, k, v)[:, :, 0]


@_tokens
def fused(h):
    """One projection for all three: what V shares with Q and K stays on the path."""
    q, k, v = jnp.split(h @ jnp.concatenate([W["a"], W["b"], W["c"]], 1), 3, -1)
    return jax.nn.softmax(q @ k.mT) @ v


@_tokens
def normalised_late(h):
    """Weights are divided by their sum after the values were mixed."""
    e = jnp.exp(h @ h.mT / 50)
    return (e @ (h @ W["c"])) / e.sum(-1, keepdims=True)


def highway(h):
    gate = jax.nn.sigmoid(h @ W["a"])
    return gate * (h @ W["b"]) + (1 - gate) * h


def shared(h):
    gate = jax.nn.sigmoid(h.mean((1, 2), keepdims=True))
    return gate * (h @ W["a"]) + gate * (h @ W["b"])


def on_the_path_too(h):
    gate = jax.nn.sigmoid(h @ W["a"])
    return gate * h + gate


def looped(h):
    def halved(c):
        return jax.lax.while_loop(lambda c: abs(c).sum() > 1, lambda c: c / 2, c)

    gate = jax.vmap(halved)(h.mean((1, 2)))
    return h * jax.nn.sigmoid(gate)[:, None, None]


@_tokens
def values_normalised(h):
    """V has a gate of its own, its LayerNorm; its way is linear all the same."""
    v = h @ W["c"]
    v = v * jax.lax.rsqrt((v * v).mean(-1, keepdims=True) + 1)
    return jax.nn.softmax(h @ h.mT / 50) @ v


@_tokens
def by_features(h):
    """Linear attention with ReLU features: both are gates, and V alone is the value."""
    q, k = jax.nn.relu(h @ W["a"]), jax.nn.relu(h @ W["b"])
    return q @ (k.mT @ (h @ W["c"]))


def two_gates(h):
    by_channel = jax.nn.sigmoid(h.mean((1, 2), keepdims=True))
    return h * by_channel * jax.nn.sigmoid(h.mean(-1, keepdims=True))


def spatial_gate(h):
    """As in gMLP: the gate is linear but for its LayerNorm."""
    u, v = h @ W["a"], h @ W["b"]
    v = v * jax.lax.rsqrt((v * v).mean(-1, keepdims=True) + 1)
    return u * (v @ W["c"])


GATES = {
    "values normalised": (values_normalised, [("rsqrt", (1, 16, 1)), ("softmax", (16, 16))]),
    "features": (by_features, [("relu_1", (5, 16)), ("relu_2", (16, 5))]),
    "two gates": (two_gates, [("logistic_0", (1, 1, 1, 5)), ("logistic_1", (1, 4, 4, 1))]),
    "spatial gate": (spatial_gate, [("mul", (1, 4, 4, 5))]),
    "dot_product_attention": (dot_product_attention, [("softmax", (1, 1, 1, 16, 16))]),
    "fused": (fused, [("softmax", (16, 16))]),
    "normalised late": (normalised_late, [("exp_0", (16, 16)), ("exp_1", (1, 16, 1))]),
    "highway": (highway, [("logistic_0", (1, 4, 4, 5)), ("logistic_1", (1, 4, 4, 5))]),
    "shared by two products": (shared, [("logistic", (1, 1, 1, 5))]),
    "on the path too": (on_the_path_too, [("logistic_1", (1, 4, 4, 5))]),
    "loop in a gate": (looped, [("logistic", (1, 1, 1, 5))]),
    "SwiGLU": (lambda h: (h @ W["a"]) * jax.nn.silu(h @ W["b"]), [("silu", (1, 4, 4, 5))]),
    "length one": (
        lambda h: h / (1 + jnp.linalg.norm(h, axis=-1, keepdims=True)),
        [("sqrt", (1, 4, 4, 1))],
    ),
    "linear denominator": (
        lambda h: h / (9 + h.sum(-1, keepdims=True)),
        [("denominator", (1, 4, 4, 1))],
    ),
    "broadcast by hand": (  # frozen before it is broadcast
        lambda h: h * jnp.broadcast_to(3 * jax.nn.sigmoid(h.mean((1, 2), keepdims=True)), h.shape),
        [("logistic", (1, 1, 1, 5))],
    ),
}


@pytest.mark.parametrize(
    "name",
    slow_beside(
        GATES,
        "features",
        "fused",
        "spatial gate",
        "shared by two products",
        "length one",
        "broadcast by hand",
        "normalised late",
        "values normalised",
    ),
)
def test_the_gate_is_frozen_where_it_is_smallest(name):
    block, expected = GATES[name]
    assert _frozen(block) == expected
    masks = dmbp_jax.init_masks(None, X, 1.0, apply_fn=_network(block), nonaffine="freeze")
    parts = dmbp_jax.decompose(None, X, 1, masks, apply_fn=_network(block), nonaffine="freeze")
    logit = _network(block)(None, X[None])[0, 1]
    np.testing.assert_allclose(parts.y, logit, rtol=1e-4)  # no bias outside: F_0 = 0
    np.testing.assert_allclose(parts.y_positive, parts.y, rtol=1e-4)


PIECES = {
    "silu": (jax.nn.silu, "pointwise"),
    "hard_swish": (jax.nn.hard_swish, "pointwise"),
    "gelu": (jax.nn.gelu, "pointwise"),
    "square": (lambda h: h * h, "pointwise"),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_function_of_one_value_stays_one_piece(name):
    sites = [(site.kind, site.masked) for site in _sites(PIECES[name][0]) if site.kind != "bias"]
    assert len(sites) == 2 and all(masked for _, masked in sites)
    assert _sites(PIECES[name][0]) == _sites(PIECES[name][0], "refuse")


REFUSED = {
    "simple gate": (lambda h: (h @ W["a"]) * (h @ W["b"]), "'mul' at.*neither factor came"),
    "linear attention": (
        _tokens(lambda h: ((h @ W["a"]) @ (h @ W["b"]).mT) @ (h @ W["c"])),
        "'dot_general' at.*neither factor came",
    ),
    "both": (
        lambda h: jax.nn.relu(h @ W["a"]) * jax.nn.sigmoid(h @ W["b"]),
        "'mul' at.*both factors came",
    ),
    "Gram matrix": (_tokens(lambda h: (h.mT @ h)[:, :1] * jnp.ones((16, 1))), "neither"),
    "rounding": (jnp.floor, "'floor'"),
    "rounding to 8 bits": (
        lambda h: h.astype(jnp.float8_e4m3fn).astype(h.dtype),
        "'convert_element_type'.*fewer digits",
    ),
    "rounding to 3 bits of a mantissa": (
        lambda h: jax.lax.reduce_precision(h, 8, 3),
        "'reduce_precision'.*fewer digits",
    ),
    "softmax between layers": (jax.nn.softmax, "'stop_gradient'.*as in attention"),
    "cond": (
        lambda h: jax.lax.cond(h.sum() > 0, jax.nn.relu, lambda h: h, h),
        "'cond'|'convert_element_type'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_products_stay_refused(name):
    block, message = REFUSED[name]
    with pytest.raises(UnsupportedNetworkError, match=message):
        _sites(block)
    with pytest.raises(UnsupportedNetworkError, match='nonaffine="freeze" would not help'):
        _sites(block, "refuse")


def test_a_division_by_the_picture_stays_refused():
    with pytest.raises(NonAffineError, match="'div'"):
        dmbp_jax.sites(
            None,
            X,
            apply_fn=lambda _, x: jax.nn.relu(jnp.flip(x, 1) / x).mean((1, 2)),
            nonaffine="freeze",
        )


@pytest.mark.parametrize(
    "turn",
    [jax.nn.softmax, lambda z: (e := jnp.exp(z)) / e.sum(-1, keepdims=True), jax.nn.log_softmax],
)
def test_a_softmax_of_the_logits_stays_refused(turn):
    def network(_, x):
        return turn(jax.nn.relu(x @ IN).mean((1, 2)) @ W["a"])

    with pytest.raises(NonAffineError, match="logits, without softmax"):
        dmbp_jax.sites(None, X, apply_fn=network, nonaffine="freeze")


class Block(nn.Module):
    @nn.compact
    def __call__(self, h):
        return h + nn.MultiHeadDotProductAttention(1)(nn.LayerNorm()(h))


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(5)(x)).reshape(x.shape[0], -1, 5)
        for _ in range(4):
            x = Block()(x)
        return nn.Dense(3)(x.mean(1))


def test_the_refusal_says_what_would_be_frozen():
    net = Blocks()
    variables = net.init(jax.random.key(0), X[None])
    with pytest.raises(NonAffineError) as error:
        dmbp_jax.attribute(variables, X, apply_fn=net.apply)
    message = str(error.value)
    assert "got 'mul' at 'Blocks/Block_0/LayerNorm_0' (two values that both depend on x" in message
    assert message.endswith(
        '. nonaffine="freeze" takes these factors as constants at x: '
        "'Blocks/Block_0/LayerNorm_0/rsqrt', "
        "'Blocks/Block_0/MultiHeadDotProductAttention_0/softmax', "
        "'Blocks/Block_1/LayerNorm_0/rsqrt', "
        "'Blocks/Block_1/MultiHeadDotProductAttention_0/softmax', "
        "'Blocks/Block_2/LayerNorm_0/rsqrt', "
        "'Blocks/Block_2/MultiHeadDotProductAttention_0/softmax' and 2 more."
    )
    with pytest.raises(ControlFlowError, match=r"'while'.*takes these.*'logistic'"):
        _sites(looped, "refuse")


def test_the_option_is_checked():
    for call in (
        lambda **o: _sites(fused, **o),
        lambda **o: dmbp_jax.attribute(None, X, apply_fn=_network(fused), **o),
    ):
        with pytest.raises(InputError, match="nonaffine: Expected one of"):
            call(nonaffine="ignore")


def test_a_relu_network_is_the_same_program():
    layers = NETWORKS["residual"]
    params = jax.tree.map(jnp.float32, make_params(layers, 0, (6, 5, 3)))
    x = jnp.ones((6, 5, 3))
    programs = [
        check_call(params, x, apply_fn=apply_fn_of(layers), nonaffine=choice).network.program()
        for choice in ("refuse", "freeze")
    ]
    kinds = [[(step.name, step.kind, step.results) for step in p.steps] for p in programs]
    assert kinds[0] == kinds[1] and programs[0].sites == programs[1].sites
    assert programs[1].frozen == ()


def test_a_pass_with_recorded_choices_does_not_compute_the_gates():
    graph = check_call(None, X, apply_fn=_network(fused), nonaffine="freeze").network.graph()
    frozen = graph.freeze(X[None])

    def loop_pass(boundary):
        rules = frozen.rules()
        return graph.run_from(boundary, rules)

    found = str(jax.make_jaxpr(loop_pass)(frozen.fixed.before_pieces))
    assert " exp " not in found and "reduce_max" not in found
    assert found.count("dot_general") == 4  # q, k, v in one; weights · v; two layers


def test_the_linear_part_keeps_the_gates():
    """F with everything frozen at x less its value at 0, against a pass without constants."""

    def network(_, x):
        return _network(lambda h: fused(h + 0.3) + 0.1)(None, x) + 0.2

    graph = check_call(None, X, apply_fn=network, nonaffine="freeze").network.graph()
    x = X[None]
    frozen = graph.freeze(x)
    rules = frozen.rules()
    expected = graph.run(x, rules) - graph.run(0 * x, rules)
    linear = frozen.without_biases(x)
    np.testing.assert_allclose(linear.fixed.logits, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(linear.graph.run(x, rules), expected, rtol=1e-4, atol=1e-5)
