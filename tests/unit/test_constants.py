"""Constants are biases wherever they enter: y = ∇ₓFᵀx + Σ ∇bᵀb, and no NaN of what is infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.dmbp.decomposition import attribution_by_backward
from dmbp_jax.errors import NonAffineError
from dmbp_jax.graph.graph import FrozenNetwork
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import fullgrad, gradcam

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(3)
W, HEAD = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 3))
X = RNG.normal(size=(4, 4, 3))
CANVAS = RNG.normal(size=(1, 6, 6, 4))
POOL = ((1, 2, 2, 1), (1, 2, 2, 1))
INDEX = np.array([0, 9, 2, 3])  # 9 is outside


def _pool(z, padding):
    return lax.reduce_window(z, -jnp.inf, lax.max, *POOL, padding)


# What becomes of a layer h (1, 4, 4, 4) before the head.
ENTERS = {
    "gather, filled": lambda h: jnp.take(h, INDEX, axis=1, mode="fill", fill_value=0.7),
    "indexing, filled": lambda h: h.at[:, INDEX].get(mode="fill", fill_value=-1.5),
    "gather, filled with -inf before a pool": lambda h: jnp.take(
        h, INDEX, axis=1, mode="fill", fill_value=-jnp.inf
    ).max((1, 2), keepdims=True),
    "padding": lambda h: jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.4),
    "negative and interior padding": lambda h: lax.pad(
        h, jnp.asarray(0.3, h.dtype), ((0, 0, 0), (-1, 2, 1), (1, 0, 0), (0, 0, 0))
    ),
    "-inf padding before a pool": lambda h: _pool(
        jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf), "VALID"
    ),
    "+inf padding before a min-pool": lambda h: lax.reduce_window(
        jnp.pad(h, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=jnp.inf),
        *(jnp.inf, lax.min, *POOL, "VALID"),
    ),
    "-inf where masked, before a pool": lambda h: jnp.where(CANVAS[:, :4, :4] > 0, h, -jnp.inf).max(
        (1, 2), keepdims=True
    ),
    "-inf added before a pool": lambda h: (h + np.where(CANVAS[:, :4, :4] > 0, 0, -np.inf)).max(
        (1, 2), keepdims=True
    ),
    "-inf added before a ReLU": lambda h: jax.nn.relu(
        h + np.where(CANVAS[:, :4, :4] > 0, 0, -np.inf)
    ),
    "scatter into a constant": lambda h: jnp.asarray(CANVAS).at[:, 1:5, 1:5].set(h),
    "scatter-add into a constant": lambda h: jnp.asarray(CANVAS).at[:, INDEX % 6].add(h[:, :, :1]),
    "subtract from a constant": lambda h: jnp.asarray(CANVAS).at[:, 1:5, 1:5].subtract(h),
    "subtract a part": lambda h: h.at[:, :2].subtract(h[:, 2:]),
    "subtract a constant": lambda h: h.at[:, :2].subtract(CANVAS[:, :2, :4]),
    "dynamic_update_slice": lambda h: lax.dynamic_update_slice(
        jnp.asarray(CANVAS), h, (0, 1, 2, 0)
    ),
    "a constant into h": lambda h: lax.dynamic_update_slice(h, CANVAS[:, :2, :2], (0, 1, 2, 0)),
    "select": lambda h: jnp.where(CANVAS[:, :4, :4] > 0, h, CANVAS[:, 1:5, 1:5]),
    "concatenated token": lambda h: jnp.concatenate([CANVAS[0, :1, :1, :], h.reshape(1, 16, 4)], 1),
    "positions": lambda h: h.reshape(1, 16, 4) + CANVAS.reshape(1, 36, 4)[:, :16],
    "cumsum": lambda h: jnp.cumsum(jnp.concatenate([h, CANVAS[:, :1, :4]], 1), 1),
    "from a constant": lambda h: CANVAS[:, :4, :4] - h,
    "stacked": lambda h: jnp.stack([h, CANVAS[:, :4, :4], 2 * h]).sum(0),
}


def _network(enters):
    def one_image(x):
        h = enters(jax.nn.relu(x @ W + 0.1) - 0.2)
        return jax.nn.relu(h.reshape(1, -1, 4) - 0.3).mean(1) @ HEAD[:, :1] + 0.5

    return lambda _, x: jnp.concatenate([one_image(x[i : i + 1]) for i in range(len(x))])


def _every(names):
    """One logit for each way in: one program is compiled for all."""
    networks = [_network(ENTERS[name]) for name in names]
    return lambda params, x: jnp.concatenate([net(params, x) for net in networks], -1)


@pytest.mark.parametrize("part", slow_beside(range(6), 1, 3, 4))
def test_every_constant_is_a_bias(part):
    names = list(ENTERS)[part::6]
    network, x = _every(names), jnp.asarray(X)[None]
    graph = trace(bind(None, network), x).graph()
    ones = [jnp.ones(site.shape) for site in graph.masked]

    def by_backward(label):
        return attribution_by_backward(frozen, x, ones, label)[0]

    frozen = FrozenNetwork(graph, jax.jit(lambda: graph.freeze(x).fixed)())
    found = jax.jit(jax.vmap(by_backward))(np.arange(len(names)))
    expected = network(None, X[None])[0]
    np.testing.assert_allclose(frozen.fixed.logits, expected, rtol=1e-12)
    for name, y, logit in zip(names, found, expected, strict=True):
        np.testing.assert_allclose(y, logit - 0.5, rtol=1e-9, err_msg=name)


HARDEST = [
    *("gather, filled with -inf before a pool", "-inf padding before a pool"),
    *("-inf added before a ReLU", "subtract from a constant"),
]
FOLLOWED = HARDEST[1:3]  # their positions are known


def _batch(names):
    images, labels = np.stack([X] * len(names)), np.arange(len(names))
    return (None, images, labels), {"apply_fn": _every(names)}


def test_fullgrad_is_complete():
    arguments, options = _batch(FOLLOWED)
    _, residual = fullgrad(*arguments, return_residual=True, **options)
    np.testing.assert_allclose(residual, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("biases", "names"),
    [("spread", FOLLOWED), pytest.param("carry", HARDEST, marks=pytest.mark.slow)],
)
def test_complete_maps_have_no_nan(biases, names):
    arguments, options = _batch(names)
    config = dmbp_jax.DMBP(steps=0)
    att = dmbp_jax.attribute(*arguments, config=config, biases=biases, **options)
    np.testing.assert_allclose(att.positive.sum((1, 2, 3)), att.y_positive, rtol=1e-9, atol=1e-9)


def test_what_is_subtracted_is_carried_as_what_is_added():
    def subtracted(h):
        return h.at[:, :2].subtract(h[:, 2:])

    def added(h):
        return h + jnp.pad(-h[:, 2:], ((0, 0), (0, 2), (0, 0), (0, 0)))

    config = dmbp_jax.DMBP(steps=0)
    maps = [
        dmbp_jax.attribute(None, X, 0, apply_fn=_network(f), config=config, biases="carry").map
        for f in (subtracted, added)
    ]
    np.testing.assert_allclose(*maps, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduce", [lax.max, lax.min])
def test_a_window_of_padding_alone_is_refused(reduce):
    start = -jnp.inf if reduce is lax.max else jnp.inf

    def network(_, x):
        padding = ((0, 0), (2, 0), (0, 0), (0, 0))
        h = lax.reduce_window(jax.nn.relu(x @ W), start, reduce, *POOL, padding)
        return jax.nn.relu(h).mean((1, 2)) @ HEAD

    with pytest.raises(NonAffineError, match="windows of padding alone"):
        dmbp_jax.sites(None, X, apply_fn=network)


def _placed(values):
    return jax.device_put(values, (jax.devices()[0],) * len(values))


def _carried(values):
    return lax.scan(lambda carry, _: (lax.optimization_barrier(carry), None), values, length=2)[0]


TOGETHER = {  # what returns several values as they are
    "a barrier": lax.optimization_barrier,
    "device_put": jax.device_put,
    "device_put, with places": _placed,
    "a barrier in a loop": _carried,
    "one after the other": lambda values: jax.device_put(lax.optimization_barrier(values)),
}


DEAR = ("device_put", "device_put, with places", "a barrier in a loop", "one after the other")


@pytest.mark.parametrize(
    "name, is_whole",
    slow_beside(
        [*((name, False) for name in TOGETHER), *((name, True) for name in TOGETHER)],
        *((name, False) for name in DEAR),
        *((name, True) for name in TOGETHER),
    ),
)
def test_a_constant_that_went_with_x_through_an_identity_is_a_bias(name, is_whole):
    bias = jnp.asarray(RNG.normal(size=4))

    def through(together):
        def network(_, x):
            zero, kept, h, moved = together((0.0, bias > 0, jax.nn.relu(x @ W), bias))
            h = jnp.maximum(h + jnp.where(kept, moved, 2 * moved), zero)
            return h.mean((1, 2)) @ HEAD

        return network

    def results(network):
        sites = dmbp_jax.sites(None, X, apply_fn=network)
        ones = dmbp_jax.init_masks(None, X, 1.0, apply_fn=network)
        parts = dmbp_jax.decompose(None, X, 1, ones, apply_fn=network)
        attributed = tuple(
            dmbp_jax.attribute(None, X, 1, apply_fn=network, config=config, biases=biases)
            for config, biases in (
                (dmbp_jax.DMBP(steps=1), "carry"),
                (dmbp_jax.DMBP(steps=1, evidence="input"), "drop"),
            )
            if is_whole
        )
        named = [(site.kind, site.name, site.shape) for site in sites]
        complete = fullgrad(None, X, 1, apply_fn=network, return_residual=True)
        return named, parts, attributed, complete

    network = through(TOGETHER[name])
    named, parts, *_, (_, residual) = found = results(network)
    assert [kind for kind, *_ in named].count("relu") == 2
    gradient = jax.grad(lambda x: network(None, x[None])[0, 1])(jnp.asarray(X))
    np.testing.assert_allclose(parts.y, network(None, X[None])[0, 1], rtol=1e-12)  # F_0 is 0
    np.testing.assert_allclose(parts.positive, gradient * X, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    expected = results(through(lambda values: values))
    assert named == expected[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        *(jax.tree.leaves(one[1:]) for one in (found, expected)),
    )


def test_values_that_went_together_through_an_identity_keep_their_own_positions():
    def through(together):
        def network(_, x):
            h = jax.nn.relu(x @ W)
            h, turned, rows = together((h, h.transpose(0, 2, 1, 3), h.mean(2)))
            return (
                jax.nn.relu(h + turned.transpose(0, 2, 1, 3)).mean((1, 2)) @ HEAD
                + rows.mean(1) @ HEAD
            )

        return network

    maps = [
        gradcam(None, X[:, :3], 1, apply_fn=through(f))
        for f in (lax.optimization_barrier, lambda values: values)
    ]
    np.testing.assert_allclose(*maps, rtol=1e-12)


def test_a_comparison_may_go_through_an_identity():
    def network(_, x):
        h = x @ W
        return jnp.where(lax.optimization_barrier(h > 0), h, 0).mean((1, 2)) @ HEAD

    assert [site.kind for site in dmbp_jax.sites(None, X, apply_fn=network)] == ["relu"]
