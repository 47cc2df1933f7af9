"""Frozen gates against literal NumPy in float64: F exact at x, completeness, masks, maps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frozen_oracle import (
    Frozen,
    Pair,
    add,
    attention,
    dense,
    each,
    gated,
    gelu,
    group_normalise,
    normalise,
    relu,
    softmax,
)
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.dmbp import loop
from dmbp_jax.graph.call import check_call

pytestmark = pytest.mark.usefixtures("x64")
LABEL, WIDTH, SIDE = 1, 6, 3
RNG = np.random.default_rng(11)
X = RNG.normal(size=(SIDE, SIDE, 2))
W = {
    name: RNG.normal(size=shape) * 0.7
    for name, shape in {
        "in": (2, WIDTH), "mid": (WIDTH, WIDTH), "out": (WIDTH, 4),
        "a": (WIDTH, WIDTH), "b": (WIDTH, WIDTH), "both": (WIDTH, 2 * WIDTH),
        "shift": (WIDTH,), "bias": (4,),
    }.items()
}  # fmt: skip
NORM = {"scale": RNG.uniform(0.5, 1.5, WIDTH), "bias": RNG.normal(size=WIDTH)}
HEADS = {
    name: {"kernel": RNG.normal(size=(WIDTH, 2, 3)), "bias": RNG.normal(size=(2, 3))}
    for name in ("query", "key", "value")
} | {"out": {"kernel": RNG.normal(size=(2, 3, WIDTH)), "bias": RNG.normal(size=WIDTH)}}
TOKENS = SIDE * SIDE
CAUSAL = np.tril(np.ones((TOKENS, TOKENS), bool))


def _module(module, params):
    return lambda h: module.apply({"params": params}, h)


def _divided(h):
    centred = h - h.mean(-1, keepdims=True)
    return centred / jnp.sqrt(h.var(-1, keepdims=True) + 1e-3)


def _excite(squash):
    def block(h):
        hidden = jax.nn.relu(h.mean((1, 2), keepdims=True) @ W["a"])
        return h * squash(hidden @ W["b"])

    return block


def _excite_by_hand(squash):
    def block(h):
        hidden = np.maximum(h.exact.mean((0, 1)) @ W["a"], 0)
        return gated(h, squash(hidden @ W["b"]))

    return block


def _response(h):
    size = jnp.sqrt((h * h).sum((1, 2), keepdims=True))
    return h + NORM["scale"] * (h * (size / (size.mean(-1, keepdims=True) + 1e-6))) + NORM["bias"]


def _response_by_hand(h):
    size = np.sqrt((h.exact**2).sum((0, 1)))
    factor = NORM["scale"] * size / (size.mean() + 1e-6)
    return add(h, each(h, lambda a: a * factor + NORM["bias"]))


def _attend(unit=False, mask=None):
    def block(h):
        tokens = h.reshape(TOKENS, WIDTH)
        q, k, v = (
            jnp.einsum("tc,chd->thd", tokens, HEADS[name]["kernel"]) + HEADS[name]["bias"]
            for name in ("query", "key", "value")
        )
        if unit:
            q, k = (a / jnp.linalg.norm(a, axis=-1, keepdims=True) for a in (q, k))
        scores = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(3)
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)
        out = jnp.einsum("thd,hdc->tc", mixed, HEADS["out"]["kernel"]) + HEADS["out"]["bias"]
        return out.reshape(h.shape)

    return block


def _attend_by_hand(**options):
    def block(h):
        tokens = each(h, lambda a: a.reshape(TOKENS, WIDTH))
        return each(attention(HEADS, tokens, **options), lambda a: a.reshape(h.exact.shape))

    return block


def _features(h):
    tokens = h.reshape(TOKENS, WIDTH)
    q, k = jax.nn.relu(tokens @ W["a"]), jax.nn.relu(tokens @ W["b"])
    return (q @ (k.T @ (tokens @ W["mid"]))).reshape(h.shape)


def _features_by_hand(h):
    tokens = h.exact.reshape(TOKENS, WIDTH)
    weights = np.maximum(tokens @ W["a"], 0) @ np.maximum(tokens @ W["b"], 0).T
    return each(h, lambda a: (weights @ a.reshape(TOKENS, WIDTH) @ W["mid"]).reshape(a.shape))


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _gelu(z):
    return gelu(Pair(z, z), np.ones(1)).exact


def _split(h):
    both = each(h, lambda a: a @ W["both"])
    return each(both, lambda a: a[..., :WIDTH]), each(both, lambda a: a[..., WIDTH:])


def _glu_by_hand(h):
    value, gate = _split(h)
    return gated(value, _sigmoid(gate.exact))


def _geglu_by_hand(h):
    value, gate = _split(h)
    return gated(value, _gelu(gate.exact))


def _swiglu_by_hand(h):
    value, gate = _split(h)
    return gated(value, gate.exact * _sigmoid(gate.exact))


def _geglu(h):
    value, gate = jnp.split(h @ W["both"], 2, -1)
    return value * jax.nn.gelu(gate)


def _kernels(h):  # the kernel of a depthwise convolution is made from the picture
    kernel = jax.nn.softmax((h.mean((1, 2)) @ W["both"]).reshape(2, WIDTH), 0)
    return jax.lax.conv_general_dilated(
        h,
        jnp.broadcast_to(kernel[:, None, None], (2, 1, 1, WIDTH)),
        (1, 1),
        [(0, 1), (0, 0)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=WIDTH,
    )


def _kernels_by_hand(h):
    kernel = softmax((h.exact.mean((0, 1)) @ W["both"]).reshape(2, WIDTH).T).T
    return each(h, lambda a: kernel[0] * a + kernel[1] * np.pad(a[1:], ((0, 1), (0, 0), (0, 0))))


# block -> as a network would write it, by hand, names of what is frozen
BLOCKS = {
    "LayerNorm": (
        _module(nn.LayerNorm(), NORM),
        lambda h: normalise(NORM, h, (-1,), 1e-6),
        ("LayerNorm/rsqrt",),
    ),
    "LayerNorm in two passes": (
        _module(nn.LayerNorm(use_fast_variance=False), NORM),
        lambda h: normalise(NORM, h, (-1,), 1e-6),
        ("LayerNorm/rsqrt",),
    ),
    "LayerNorm by division": (_divided, lambda h: normalise({}, h, (-1,), 1e-3), ("sqrt",)),
    "RMSNorm": (
        _module(nn.RMSNorm(), {"scale": NORM["scale"]}),
        lambda h: normalise({"scale": NORM["scale"]}, h, (-1,), 1e-6, centre=False),
        ("RMSNorm/rsqrt",),
    ),
    "GroupNorm": (
        _module(nn.GroupNorm(num_groups=2), NORM),
        lambda h: group_normalise(NORM, h, 2, 1e-6),
        ("GroupNorm/rsqrt",),
    ),
    "InstanceNorm": (
        _module(nn.InstanceNorm(), NORM),
        lambda h: normalise(NORM, h, (0, 1), 1e-6),
        ("InstanceNorm/rsqrt",),
    ),
    "attention": (_attend(), _attend_by_hand(), ("softmax",)),
    "masked attention": (_attend(mask=CAUSAL), _attend_by_hand(mask=CAUSAL), ("softmax",)),
    "cosine attention": (_attend(unit=True), _attend_by_hand(unit=True), ("softmax",)),
    "attention with features": (_features, _features_by_hand, ("relu_1", "relu_2")),
    "squeeze and excite": (
        _excite(jax.nn.sigmoid),
        _excite_by_hand(_sigmoid),
        ("logistic",),
    ),
    "squeeze and excite, hard": (
        _excite(jax.nn.hard_sigmoid),
        _excite_by_hand(lambda z: np.clip(z + 3, 0, 6) / 6),
        ("hard_sigmoid",),
    ),
    "GLU": (lambda h: jax.nn.glu(h @ W["both"]), _glu_by_hand, ("logistic",)),
    "GEGLU": (_geglu, _geglu_by_hand, ("tanh",)),
    "SwiGLU": (
        lambda h: (h @ W["both"])[..., :WIDTH] * jax.nn.silu((h @ W["both"])[..., WIDTH:]),
        _swiglu_by_hand,
        ("silu",),
    ),
    "length one": (
        lambda h: h / jnp.linalg.norm(h, axis=-1, keepdims=True),
        lambda h: gated(h, 1 / np.sqrt((h.exact**2).sum(-1, keepdims=True))),
        ("sqrt",),
    ),
    "global response norm": (_response, _response_by_hand, ("div",)),
    "kernels from the picture": (_kernels, _kernels_by_hand, ("softmax",)),
}


def _network(block):
    def network(_, x):
        h = block(jax.nn.relu(x @ W["in"] + W["shift"]) + 0.1)
        return jax.nn.relu(h @ W["mid"] - W["shift"]).mean((1, 2)) @ W["out"] + W["bias"]

    return network


def _oracle(by_hand):
    def network(x, masks):
        h = dense({"kernel": W["in"], "bias": W["shift"]}, x)
        h = by_hand(each(relu(h, masks[0]), lambda a: a + 0.1))
        h = relu(dense({"kernel": W["mid"], "bias": -W["shift"]}, h), masks[1])
        return dense({"kernel": W["out"], "bias": W["bias"]}, each(h, lambda a: a.mean((0, 1))))

    return Frozen(network, X, LABEL, 2)


@pytest.mark.parametrize(
    "name",
    slow_beside(
        BLOCKS,
        "LayerNorm by division",
        "LayerNorm in two passes",
        "GEGLU",
        "GLU",
        "cosine attention",
        "attention with features",
        "InstanceNorm",
        "global response norm",
        "RMSNorm",
    ),
)
def test_the_decomposition_is_the_literal_one(name):
    block, by_hand, frozen = BLOCKS[name]
    apply_fn, oracle = _network(block), _oracle(by_hand)
    np.testing.assert_allclose(oracle.logits, apply_fn(None, X[None])[0], rtol=1e-9)
    sites = dmbp_jax.sites(None, X, apply_fn=apply_fn, nonaffine="freeze")
    assert tuple(site.name for site in sites if site.kind == "frozen") == frozen
    assert [site.kind for site in sites if site.masked] == ["relu", "relu"]
    rng = np.random.default_rng(1)
    shape = (SIDE, SIDE, WIDTH)
    for masks in ([np.ones(shape)] * 2, [rng.uniform(size=shape), rng.uniform(size=shape)]):
        parts = dmbp_jax.decompose(None, X, LABEL, masks, apply_fn=apply_fn, nonaffine="freeze")
        found = parts.y, parts.y_positive, parts.y_negative
        np.testing.assert_allclose(found, oracle.terms(masks), rtol=1e-9, atol=1e-11)
        expected = oracle.attribution(masks)
        np.testing.assert_allclose(parts.positive, expected, rtol=1e-9, atol=1e-11)


def test_the_mask_gradient_is_the_finite_difference():
    block, by_hand, _ = BLOCKS["attention"]
    apply_fn, oracle = _network(block), _oracle(by_hand)
    rng = np.random.default_rng(2)
    theta = [rng.normal(size=(SIDE, SIDE, WIDTH)) for _ in range(2)]
    direction = [rng.normal(size=t.shape) for t in theta]
    graph = check_call(None, X, apply_fn=apply_fn, nonaffine="freeze").network.graph()

    @jax.jit
    def step(x, theta):
        frozen = graph.freeze(x)
        return loop.terms_and_gradient(frozen, theta, jnp.int32(LABEL), dmbp_jax.DMBP())[1]

    gradient = step(jnp.asarray(X)[None], tuple(jnp.asarray(t)[None] for t in theta))
    losses = [
        oracle.loss([_sigmoid(t + change * d) for t, d in zip(theta, direction, strict=True)])
        for change in (1e-5, -1e-5)
    ]
    along = sum((g[0] * d).sum() for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(along, (losses[0] - losses[1]) / 2e-5, rtol=1e-7)
