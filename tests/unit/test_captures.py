"""Arrays that a network captures are inputs: every call reads them anew; and nothing outlives it.

The right value is the network's own: y of its logits, at the time of the call.
"""

import functools
import gc
import os
import sys
import weakref
from contextvars import ContextVar
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.graph import tracing
from dmbp_jax.graph.captures import may_read_arrays
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.methods import METHODS

rng = np.random.default_rng(0)
X = np.asarray(rng.normal(size=(2, 4, 4, 3)), np.float32)
W = np.asarray(rng.normal(size=(3, 8)), np.float32)
H = np.asarray(rng.normal(size=(8, 3)), np.float32)
IMAGE = jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)


def classify(x, head):
    return jax.nn.relu(x @ W).mean((1, 2)) @ head


class Net:
    """Weights as an attribute."""

    def __init__(self):
        self.head = jnp.asarray(H)

    def __call__(self, params, x):
        return classify(x, self.head)

    def method(self, params, x):
        return self(params, x)


def in_a_dict():
    weights = {"head": jnp.asarray(H)}
    return lambda _, x: classify(x, weights["head"]), lambda: weights.update(head=10 * H)


def in_a_list():
    weights = [jnp.asarray(H)]
    return lambda _, x: classify(x, weights[0]), lambda: weights.__setitem__(0, 10 * H)


def a_variable_of_an_outer_function():
    head = jnp.asarray(H)

    def change():
        nonlocal head
        head = 10 * head

    return lambda _, x: classify(x, head), change


HEAD = H


def a_global():
    def change():
        global HEAD
        HEAD = 10 * HEAD

    return lambda _, x: classify(x, HEAD), change


def written_in_place():
    head = H.copy()
    return lambda _, x: classify(x, head), lambda: head.__imul__(10)


def a_default_argument():
    head = H.copy()

    def network(_, x, head=head):
        return classify(x, head)

    return network, lambda: head.__imul__(10)


def a_partial_argument():
    head = H.copy()
    network = functools.partial(lambda head, _, x: classify(x, head), head)
    return network, lambda: head.__imul__(10)


def an_attribute_of_a_callable():
    net = Net()
    return net, lambda: setattr(net, "head", 10 * net.head)


def an_attribute_by_a_method():
    net = Net()
    return net.method, lambda: setattr(net, "head", 10 * net.head)


def by_a_function_of_a_function():
    network, change = in_a_dict()
    return lambda params, x: network(params, x), change


def by_a_jitted_function():
    network, change = in_a_dict()
    return jax.jit(network), change


def within_a_loop():
    weights = {"eye": np.eye(8, dtype=np.float32)}

    def network(_, x):
        z = jax.nn.relu(x @ W).mean((1, 2))
        return lax.scan(lambda z, _: (z @ weights["eye"], None), z, None, length=1)[0] @ H

    return network, lambda: weights.update(eye=10 * weights["eye"])


def within_a_checkpoint():
    weights = {"head": H}

    def network(_, x):
        return jax.checkpoint(lambda z: z @ weights["head"])(jax.nn.relu(x @ W).mean((1, 2)))

    return network, lambda: weights.update(head=10 * H)


def a_module_of_nnx():
    head = nnx.Linear(8, 3, use_bias=False, rngs=nnx.Rngs(0))
    head.kernel[...] = H

    def change():
        head.kernel[...] = 10 * H

    return lambda _, x: head(jax.nn.relu(x @ W).mean((1, 2))), change


def numbers(x):
    """Logits without any array: a number is the only thing that is captured beside it."""
    return jax.nn.relu(x).mean((1, 2))


def a_number_written_in_place():
    scale = np.ones((), np.float32)
    return lambda _, x: numbers(x) * scale, lambda: scale.__imul__(10)


def a_number_of_jax():
    scale = [jnp.float32(1)]
    return lambda _, x: numbers(x) * scale[0], lambda: scale.__setitem__(0, jnp.float32(10))


class Scaled:
    """A number as an attribute of the class, read by another method."""

    scale = np.float32(1)

    def scaled(self, z):
        return z * self.scale

    def __call__(self, params, x):
        return self.scaled(numbers(x))


def a_number_of_a_class():
    class Derived(Scaled):
        pass

    Derived.scale = np.float32(1)
    return Derived(), lambda: setattr(Derived, "scale", np.float32(10))


def a_number_of_a_module():
    settings = ModuleType("settings")
    settings.scale = np.float32(1)
    return lambda _, x: numbers(x) * settings.scale, lambda: setattr(
        settings, "scale", np.float32(10)
    )


def a_number_of_a_custom_derivative():
    scale = [np.float32(1)]
    rule = jax.custom_jvp(lambda z: z * scale[0])
    rule.defjvp(lambda primals, tangents: (rule(*primals), tangents[0] * scale[0]))
    return lambda _, x: rule(numbers(x)), lambda: scale.__setitem__(0, np.float32(10))


def a_number_of_a_wrapper():
    class Wrapper:
        def __init__(self, function):
            functools.update_wrapper(self, function)
            self.scale = np.float32(1)

        def __call__(self, params, x):
            return self.__wrapped__(params, x) * self.scale

    network = Wrapper(lambda _, x: numbers(x))
    return network, lambda: setattr(network, "scale", np.float32(10))


def a_number_of_a_module_by_import():
    settings = ModuleType("settings_of_tests")
    settings.scale = np.float32(1)
    sys.modules["settings_of_tests"] = settings

    def network(_, x):
        from settings_of_tests import scale  # pyrefly: ignore[missing-import]

        return numbers(x) * scale

    return network, lambda: setattr(settings, "scale", np.float32(10))


NUMBER = np.float32(1)


def a_number_by_its_name():
    def change():
        globals()["NUMBER"] = np.float32(10)

    return lambda _, x: numbers(x) * globals()["NUMBER"], change


def a_number_of_a_context():
    scale: ContextVar[np.float32] = ContextVar("scale")
    scale.set(np.float32(1))
    return lambda _, x: numbers(x) * scale.get(), lambda: scale.set(np.float32(10))


CAPTURES = [
    a_number_of_a_module_by_import,
    a_number_by_its_name,
    a_number_of_a_context,
    in_a_dict,
    in_a_list,
    a_variable_of_an_outer_function,
    a_global,
    written_in_place,
    a_number_written_in_place,
    a_number_of_jax,
    a_number_of_a_class,
    a_number_of_a_module,
    a_number_of_a_custom_derivative,
    a_number_of_a_wrapper,
    a_default_argument,
    a_partial_argument,
    an_attribute_of_a_callable,
    an_attribute_by_a_method,
    by_a_function_of_a_function,
    by_a_jitted_function,
    within_a_loop,
    within_a_checkpoint,
    a_module_of_nnx,
]


@pytest.mark.parametrize("capture", CAPTURES)
def test_what_a_function_captured_is_read_anew(capture):
    network, change = capture()
    before = METHODS["gradient"](None, X, 1, apply_fn=network)
    change()
    after = METHODS["gradient"](None, X, 1, apply_fn=network)
    np.testing.assert_allclose(after, 10 * before, rtol=1e-5)


def test_a_number_written_in_place_changes_no_other_function():
    one, other = np.ones((), np.float32), np.ones((), np.float32)
    METHODS["gradient"](None, X, 1, apply_fn=lambda _, x: classify(x, H) * one)
    one *= 10
    found = METHODS["guided_backprop"](None, X, 1, apply_fn=lambda _, x: classify(x, H) * other)
    expected = METHODS["guided_backprop"](None, X, 1, apply_fn=lambda _, x: classify(x, H))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@jax.tree_util.register_pytree_node_class
class OfOneBox:
    """A callable pytree without arrays among its leaves."""

    def __init__(self, box):
        self.box = box

    def tree_flatten(self):
        return (), self.box

    @classmethod
    def tree_unflatten(cls, box, _):
        return cls(box)

    def __call__(self, x):
        return numbers(x) * self.box.scale


def test_what_is_static_in_params_is_read_anew():
    box = type("Box", (), {"scale": np.float32(1)})()
    network = OfOneBox(box)
    before = METHODS["gradient"](network, X, 1)
    box.scale = np.float32(10)
    np.testing.assert_allclose(METHODS["gradient"](network, X, 1), 10 * before, rtol=1e-5)


@pytest.mark.parametrize("one, other", [(1, 1.0), (1, True), (0.0, -0.0)])
def test_equal_numbers_of_params_may_be_others(one, other):
    """For a network that asks what they are."""

    def network(params, x):
        sign = np.copysign(1.0, params["k"]) * (1 + isinstance(params["k"], float))
        return numbers(x) * (3.0 if params["k"] is True else float(sign))

    first, second, again = (
        METHODS["gradient"]({"k": k}, X, 1, apply_fn=network) for k in (one, other, one)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first) - second).max() > 1e-6


@jax.tree_util.register_pytree_node_class
class OfArraysAlone(OfOneBox):
    """Its arrays are looked at whenever it is made."""

    def tree_flatten(self):
        return (self.box,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(leaves[0].astype(np.float32))

    def __call__(self, x):
        return numbers(x) @ self.box


def test_a_class_that_takes_no_placeholders():
    assert trace(bind(OfArraysAlone(np.eye(3))), IMAGE).trace.classes == 3


def test_a_setting_of_jax_that_changes_constants_is_another_network():
    def network(_, x):
        return numbers(x) * jax.random.normal(jax.random.key(0), (3,))

    own = trace(bind(None, network), IMAGE)
    with jax.default_prng_impl("rbg"):
        assert trace(bind(None, network), IMAGE).trace is not own.trace
    assert trace(bind(None, network), IMAGE).trace is own.trace


def test_an_explanation_in_a_training_loop_is_of_the_weights_of_its_step():
    weights = {"head": jnp.asarray(H)}
    for _ in range(3):
        found = dmbp_jax.attribute(
            None, X, 1, apply_fn=lambda _, x: classify(x, weights["head"]), config=DMBP(steps=2)
        )
        expected = classify(X.astype(np.float64), np.asarray(weights["head"], np.float64))[:, 1]
        np.testing.assert_allclose(found.y, expected, rtol=1e-5)
        weights["head"] = weights["head"] - 0.3


def test_a_function_without_captured_arrays_is_traced_once():
    runs, scale = [], 2.0

    def network(params, x):
        runs.append(len(x))
        return jax.nn.relu(x @ params["w"]).mean((1, 2)) @ params["h"] * scale

    for _ in range(3):
        METHODS["gradient"]({"w": W, "h": H}, X, 1, apply_fn=network)
    assert runs.count(1) == 1


class Plain(nn.Module):
    """No array but its parameters."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(x.mean((1, 2)))


def test_a_module_without_captured_arrays_may_read_none():
    assert not may_read_arrays(Plain().apply)


def test_equal_programs_are_one_network():
    def written_anew(head):
        return lambda _, x: classify(x, head)

    one = trace(bind(None, written_anew(H)), IMAGE)
    other = trace(bind(None, written_anew(2 * H)), IMAGE)
    assert one.trace is other.trace
    without = trace(
        bind(None, written_anew(np.zeros_like(H))), IMAGE
    )  # no ReLU's constant any more
    assert without.trace is not one.trace


def with_a_rule(kind, scale):
    """The same values, and another derivative."""
    if kind == "jvp":
        rule = jax.custom_jvp(lambda z: 2 * z)
        rule.defjvp(lambda primals, tangents: (rule(*primals), tangents[0] * scale))
    elif kind == "jvps":
        rule = jax.custom_jvp(jax.nn.relu)
        rule.defjvps(lambda tangent, answer, z: tangent * scale)
    else:
        rule = jax.custom_vjp(lambda z: 2 * z)
        rule.defvjp(lambda z: (rule(z), None), lambda _, cotangent: (cotangent * scale,))
    return lambda _, x: classify(rule(x), H)


@pytest.mark.parametrize("kind", ["jvp", "jvps", "vjp"])
def test_another_derivative_is_another_network(kind):
    for scale in (1.0, 5.0):
        network = with_a_rule(kind, scale)
        expected = jax.grad(lambda x, f=network: f(None, x)[:, 1].sum())(X) * X
        found = METHODS["gradient"](None, X, 1, apply_fn=network)
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    one, other = (trace(bind(None, with_a_rule(kind, 5.0)), IMAGE) for _ in range(2))
    assert one.trace is other.trace


def memory_maps():
    with open("/proc/self/maps") as lines:
        return sum(1 for _ in lines)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="of Linux")
def test_a_function_written_anew_for_each_call_takes_no_memory():
    """Each took 96 memory maps for good, and after 680 calls the process ended."""
    found = []
    for step in range(100):
        head = H * step
        METHODS["gradient"](None, X, 1, apply_fn=lambda _, x, head=head: classify(x, head))
        found.append(memory_maps())
    assert found[-1] <= found[10] + 5


def test_what_was_compiled_goes_with_its_network(monkeypatch):
    """Also of functions that live: only the newest traces of all are kept."""
    monkeypatch.setattr(tracing, "_KEPT", 4)

    def compiled_once(constant):
        def network(params, x):
            return classify(x, params) + constant

        METHODS["gradient"](H, X, 1, apply_fn=network)
        return weakref.ref(trace(bind(H, network), IMAGE).trace)

    first = compiled_once(0.25)
    assert first() is not None
    for i in range(4):
        trace(bind(H, lambda params, x, i=i: classify(x, params) + float(i)), IMAGE)
    gc.collect()
    assert first() is None
