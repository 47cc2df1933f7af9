"""Finding ReLUs, max-pools and biases in any JAX function, and refusing what is not one."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from short_methods import slow_beside

import dmbp_jax
from dmbp_jax.errors import ControlFlowError, NonAffineError, NoReluError, UnsupportedNetworkError
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import trace

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 3)), jnp.float32)
WEIGHT = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)), jnp.float32)


def _relus(apply_fn, params=None):
    return [s for s in dmbp_jax.sites(params, X, apply_fn=apply_fn) if s.kind == "relu"]


def _head(x):
    return x.mean((1, 2)) @ WEIGHT.astype(x.dtype)


WAYS_TO_WRITE_A_RELU = {
    "jax.nn.relu": jax.nn.relu,
    "linen": nn.relu,
    "maximum right": lambda x: jnp.maximum(x, 0),
    "maximum left": lambda x: jnp.maximum(0.0, x),
    "lax.max": lambda x: jax.lax.max(x, jnp.zeros((), x.dtype)),
    "zeros_like": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "clip": lambda x: jnp.clip(x, 0),
    "jitted": jax.jit(lambda x: jnp.maximum(x, 0)),
    "checkpointed": jax.checkpoint(jax.nn.relu),
    "vmapped": jax.vmap(jax.nn.relu),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE_A_RELU)
def test_every_way_to_write_a_relu_is_one_site(way):
    relu = WAYS_TO_WRITE_A_RELU[way]
    assert len(_relus(lambda _, x: _head(relu(x)))) == 1


def test_a_jitted_function_used_twice_is_two_sites():
    relu = jax.jit(jax.nn.relu)
    sites = _relus(lambda _, x: _head(relu(relu(x) - 0.1)))
    assert [site.index for site in sites] == [0, 1]
    assert len({site.name for site in sites}) == 2


def test_users_custom_derivative_is_matched_by_structure_and_not_by_name():
    @jax.custom_jvp
    def relu(x):
        return jnp.tanh(x)

    relu.defjvp(lambda p, t: (relu(p[0]), t[0]))
    sites = dmbp_jax.sites(None, X, apply_fn=lambda _, x: _head(relu(x)))
    assert [site.kind for site in sites] == ["tanh", "bias"]  # f(0) of a piece counts as a bias

    @jax.custom_jvp
    def mine(x):
        return jnp.maximum(x, 0)

    mine.defjvp(lambda p, t: (mine(p[0]), t[0]))
    assert len(_relus(lambda _, x: _head(mine(x)))) == 1


def test_bfloat16():
    (site,) = _relus(lambda _, x: _head(jax.nn.relu(x.astype(jnp.bfloat16))).astype(jnp.float32))
    assert site.dtype == jnp.bfloat16


REFUSED = {
    "softmax": (lambda x: jax.nn.softmax(_head(jax.nn.relu(x))), NonAffineError, "logits"),
    "sigmoid": (lambda x: jax.nn.sigmoid(_head(jax.nn.relu(x))), NonAffineError, "logistic"),
    "log softmax": (lambda x: jax.nn.log_softmax(_head(jax.nn.relu(x))), NonAffineError, "logits"),
    "log softmax by hand": (
        lambda x: (z := _head(jax.nn.relu(x))) - jnp.log(jnp.exp(z).sum(-1, keepdims=True)),
        NonAffineError,
        "'log'.*return logits",
    ),
    "soft cap": (lambda x: 9 * jnp.tanh(_head(jax.nn.relu(x)) / 9), NonAffineError, "'tanh'"),
    "attention": (lambda x: _head(jax.nn.softmax(jax.nn.relu(x))), NonAffineError, "attention"),
    "product": (lambda x: _head(jax.nn.relu(x) * x[:, ::-1]), NonAffineError, "'mul'.*multiplied"),
    "gate": (
        lambda x: _head(x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True))),
        NonAffineError,
        "'mul'.*gating",
    ),
    "divided": (lambda x: _head(x / (1 + jax.nn.relu(x[:, ::-1]))), NonAffineError, "'div'"),
    "rounded": (lambda x: _head(jnp.floor(jax.nn.relu(x))), NonAffineError, "'floor'"),
    "cut to integers": (
        lambda x: _head(jax.nn.relu(x.astype(jnp.int32).astype(x.dtype))),
        NonAffineError,
        "'convert_element_type'.*integer",
    ),
    "cut to integers in a function": (
        lambda x: _head(jax.nn.relu(x) + x.astype(jnp.int32)),
        NonAffineError,
        "'convert_element_type'.*integer",
    ),
    "compared": (
        lambda x: jnp.where(x[:, :1] > 0, _head(x)[:, None, None], 0)[:, 0, 0],
        NonAffineError,
        "'select_n'|'gt'",
    ),
    "linear solve": (
        lambda x: jax.lax.custom_linear_solve(lambda v: 2 * v, _head(x), lambda _, b: b / 2),
        NonAffineError,
        "'custom_linear_solve'",
    ),
    "sorted": (lambda x: _head(jnp.sort(x, -1)), NonAffineError, "'sort'.*register_piece"),
    "no relu": (_head, NoReluError, "at least one ReLU"),
    "pools alone": (lambda x: _head(x.max(1, keepdims=True)), NoReluError, r"mask \(max_pool\)"),
    "while": (
        lambda x: jax.lax.while_loop(lambda c: c.sum() < 0, jax.nn.relu, _head(x)),
        ControlFlowError,
        "'while'",
    ),
    "cond": (
        lambda x: jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda c: c, _head(x)),
        UnsupportedNetworkError,
        "'gt'|'cond'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operation(name):
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        dmbp_jax.sites(None, X, apply_fn=lambda _, x: function(x))


def test_refusal_names_the_scope():
    def network(_, x):
        with jax.named_scope("block3"):
            return _head(jnp.floor(jax.nn.relu(x)))

    with pytest.raises(NonAffineError, match=r"'floor' at 'block3'"):
        dmbp_jax.sites(None, X, apply_fn=network)


@pytest.mark.parametrize("norm", [nn.GroupNorm(num_groups=1), nn.LayerNorm()])
def test_clamps_in_normalisation_layers_are_not_relus(norm):
    variables = norm.init(jax.random.key(0), X[None])
    with pytest.raises(NonAffineError, match=r"running statistics|multiplied"):
        _relus(lambda v, x: _head(jax.nn.relu(norm.apply(v, x))), variables)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        with jax.named_scope("relu1"):
            x = nn.relu(x)
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        x = x + nn.relu(nn.Conv(4, (3, 3), strides=1, name="inner")(x))
        return nn.Dense(5, name="head")(x.mean((1, 2)))


def test_names_are_the_scopes():
    net = LinenNet()
    variables = net.init(jax.random.key(0), X[None])
    names = [(s.kind, s.name) for s in dmbp_jax.sites(variables, X, apply_fn=net.apply)]
    assert names == [
        ("relu", "LinenNet/relu1"),
        ("max_pool", "LinenNet/max_pool"),
        ("relu", "LinenNet/relu"),
        ("bias", "LinenNet/norm/bias"),
        ("bias", "LinenNet/inner/bias"),
        ("bias", "LinenNet/head/bias"),
    ]


def test_graph_is_the_network_in_both_forms():
    net = LinenNet()
    variables = net.init(jax.random.key(0), X[None])
    variables = jax.tree.map(lambda a: a + 0.1, variables)
    graph = trace(bind(variables, net.apply), IMAGE).graph()
    expected = net.apply(variables, X[None])
    frozen = Rules(lambda i, piece, z: piece.apply(piece.choose(z), z))
    np.testing.assert_allclose(graph.run(X[None]), expected, rtol=1e-6)
    np.testing.assert_allclose(graph.run(X[None], frozen), expected, rtol=1e-6)
    before = graph.before_pieces(X[None])
    np.testing.assert_allclose(graph.run_from(before, Rules()), expected, rtol=1e-6)


def _assert_complete(apply_fn, params=None):
    """The logit is ∇ₓFᵀx + Σ_l ∇_{b_l}Fᵀb_l (FullGrad)."""
    graph = trace(bind(params, apply_fn), IMAGE).graph()
    constants = []

    def logit(x, probes):
        def bias(index, value, constant):
            constants.append(constant)
            return value + probes[index]

        return graph.run(x, Rules(bias=bias))[0, 2]

    probes = [jnp.zeros(site.shape) for site in graph.biases]
    by_x, by_bias = jax.grad(logit, argnums=(0, 1))(X[None], probes)
    constants = constants[: len(probes)]
    total = (by_x * X).sum() + sum((g * b).sum() for g, b in zip(by_bias, constants, strict=True))
    np.testing.assert_allclose(total, apply_fn(params, X[None])[0, 2], rtol=1e-5)


def test_biases_and_input_gradient_complete_the_logit_through_unfolded_batchnorm():
    net = LinenNet()
    variables = jax.tree.map(lambda a: a + 0.1, net.init(jax.random.key(0), X[None]))
    _assert_complete(net.apply, variables)


WAYS_TO_MOVE_NUMBERS = {
    "stack": lambda x: jnp.stack([x, x + 0.1], axis=1).reshape(len(x), -1, *x.shape[2:]),
    "stack with a constant": lambda x: jnp.stack([x, jnp.full_like(x, 0.3)]).sum(0),
    "unstack": lambda x: sum(jnp.unstack(x, axis=1)[1:], start=jnp.zeros_like(x)[:, 0])[:, None],
    "tile": lambda x: jnp.tile(x, (1, 2, 1, 1)),
    "set": lambda x: x.at[:, 1].set(0.3),
    "set to itself": lambda x: x.at[:, 1].set(2 * x[:, 0]),
    "add at": lambda x: x.at[:, 1].add(0.3),
    "subtract at": lambda x: x.at[:, 1].subtract(x[:, 0] - 0.2),
    "roll": lambda x: jnp.roll(x, 1, axis=2),
    "pad with a value": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=0.2),
    "where": lambda x: jnp.where(jnp.arange(x.shape[2])[:, None] > 3, x, 0.2),
    "flip": lambda x: jnp.flip(x, 1),
    "einsum": lambda x: jnp.einsum("nhwc,wv->nhvc", x, jnp.ones((x.shape[2], 2))),
    "average pool": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "take": lambda x: jnp.take(x, jnp.array([2, 0, 0]), axis=1),
}


@pytest.mark.parametrize(
    "way", slow_beside(WAYS_TO_MOVE_NUMBERS, "stack", "stack with a constant", "take")
)
def test_what_moves_numbers_is_affine_and_its_constants_are_biases(way):
    move = WAYS_TO_MOVE_NUMBERS[way]
    _assert_complete(lambda _, x: _head(jax.nn.relu(move(x) - 0.05)))


def test_nnx_module_is_a_callable_pytree():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.head = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.conv(x)).mean((1, 2)))

    net = Net(nnx.Rngs(0))
    config = dmbp_jax.DMBP(steps=3)
    direct = dmbp_jax.attribute(net, X, 1, config=config)
    definition, state = nnx.split(net)
    split = dmbp_jax.attribute(
        state, X, 1, apply_fn=lambda s, x: nnx.merge(definition, s)(x), config=config
    )
    np.testing.assert_allclose(direct.map, split.map, rtol=1e-6)
    np.testing.assert_allclose(direct.y + net.head.bias[...][1], net(X[None])[0, 1], rtol=1e-5)


def test_equinox_module_is_a_callable_pytree():
    class Net(eqx.Module):
        mlp: eqx.nn.MLP

        def __call__(self, x):
            return jax.vmap(lambda x: self.mlp(x.ravel()))(x)

    net = Net(eqx.nn.MLP(8 * 8 * 3, 4, 6, 2, key=jax.random.key(0)))
    attribution = dmbp_jax.attribute(net, X, 1, config=dmbp_jax.DMBP(steps=3))
    bias = net.mlp.layers[-1].bias[1]
    np.testing.assert_allclose(attribution.y + bias, net(X[None])[0, 1], rtol=1e-5)


@pytest.mark.parametrize(
    "way", slow_beside(WAYS_TO_MOVE_NUMBERS, "stack", "stack with a constant", "take", "unstack")
)
def test_the_linear_part_is_the_gradient_times_the_input(way):
    """F with gates frozen at x and every constant left out, against F(x) − F(0) by frozen gates."""
    move = WAYS_TO_MOVE_NUMBERS[way]

    def apply_fn(_, x):
        return _head(jax.nn.relu(0.3 - (move(x) - 0.05)))

    graph = trace(bind(None, apply_fn), IMAGE).graph()
    frozen = graph.freeze(X[None]).rules()
    expected = graph.run(X[None], frozen) - graph.run(0 * X[None], frozen)
    linear = graph.without_biases()
    np.testing.assert_allclose(linear.run(X[None], frozen), expected, rtol=1e-5, atol=1e-6)
    before = linear.before_pieces(X[None])
    np.testing.assert_allclose(linear.run_from(before, frozen), expected, rtol=1e-5, atol=1e-6)


def test_names_that_somebody_gave_are_no_operations():
    """Of functions under `jax.jit`, and of values that `jax.checkpoint` is told to keep."""

    @jax.jit
    def reduce_max(z):
        return 2 * z

    @jax.jit
    def reduce_window_max(z):
        return -z

    def network(params, x):
        h = checkpoint_name(reduce_window_max(reduce_max(x @ params)), "max")
        return checkpoint_name(jax.nn.relu(h).mean((1, 2)), "reduce_max")

    sites = dmbp_jax.sites(jnp.eye(3), jnp.ones((2, 2, 3)), apply_fn=network)
    assert [site.kind for site in sites] == ["relu"]
