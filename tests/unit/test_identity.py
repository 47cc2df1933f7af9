"""What a traced network is by content: equal programs are one network, others never are."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

import dmbp_jax.models
from dmbp_jax.graph.identity import identity
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

X = np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32)
PARAMS = {
    "kernel": np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32),
    "head": np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32),
}


def network(params, x, bias=0.1):
    window = ((1, 1), "SAME")
    x = jax.lax.conv_general_dilated(
        x, params["kernel"], *window, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(x + bias).mean((1, 2)) @ params["head"]


def _identity(function):
    return trace(bind(PARAMS, function), jnp.asarray(X)[None]).trace.identity


def test_the_identity_of_a_network():
    assert _identity(network) == _identity(lambda p, x: network(p, x))
    for other in (
        lambda p, x: network(p, x, 0.1 + 1e-8),
        lambda p, x: network(p, x * 1.0),
        lambda p, x: network(p, x, jnp.zeros(4)),
        lambda p, x: network(p, jnp.flip(x, 1)),
    ):
        assert _identity(other) != _identity(network)
    # Captured arrays are operands: only whether they are zero changes the program.
    by_capture = [_identity(lambda p, x, b=b: network(p, x, jnp.full(4, b))) for b in (0.0, 1, 2)]
    assert by_capture[0] != by_capture[1]


def test_a_name_cannot_stand_for_an_operand():
    def select(name, operands):
        def apply_fn(params, x):
            which = jnp.zeros((4, 3), jnp.int32)
            cases = [params["head"] * factor for factor in (1.0, 2.0, 5.0)]
            with jax.named_scope(name):
                head = jax.lax.select_n(which, *cases[:operands])
            return network(params | {"head": head}, x)

        return trace(bind(PARAMS, apply_fn), jnp.asarray(X)[None])

    jaxpr = select("foo", 3).trace.jaxpr
    names = [str(number) for number in range(len(jaxpr.eqns) + 20)]
    forged = {select(f"{name}{end} foo", 2).trace.identity for name in names for end in ("", ")")}
    assert select("foo", 3).trace.identity not in forged


def test_a_primitive_of_somebody_else_has_no_identity():
    primitive = jex.Primitive("sin")
    primitive.def_abstract_eval(lambda a: a)
    assert identity(jax.make_jaxpr(primitive.bind)(X).jaxpr).others == (primitive,)


def test_networks_of_the_package_have_an_identity():
    for make in (dmbp_jax.models.ResNet50, dmbp_jax.models.VGG16, dmbp_jax.models.DenseNet121):
        module, image = make(classes=5), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), image)
        assert not identity(jax.make_jaxpr(module.apply)(variables, image).jaxpr).others


def test_a_call_with_an_unknown_parameter_has_no_identity():
    jaxpr = jax.make_jaxpr(lambda x: jax.pure_callback(np.sin, x, x))(X).jaxpr
    assert identity(jaxpr).others
    assert not identity(jax.make_jaxpr(jnp.sin)(X).jaxpr).others
