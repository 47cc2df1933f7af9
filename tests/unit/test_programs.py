"""Programs are found by content, made once for every caller, and the oldest are forgotten."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_methods import one_of_each_kind, run, slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax import DMBP, Objective
from dmbp_jax.engine.compiling import KEPT
from dmbp_jax.engine.content import content
from dmbp_jax.graph.pieces import unregister_piece
from dmbp_jax.methods import METHODS

LAYERS = NETWORKS["conv"]
PARAMS = jax.tree.map(lambda a: np.float32(a), make_params(LAYERS, 0))
X = make_image(0).astype(np.float32)
NETWORK = apply_fn_of(LAYERS)
COMPILED = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations() -> Iterator[list[float]]:
    found: list[float] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        if event == COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def attribute(config, apply_fn=NETWORK, **options):
    return dmbp_jax.attribute(PARAMS, X, 1, apply_fn=apply_fn, config=config, **options)


OPTIMIZERS = {
    "adam": lambda: optax.adam(0.05),
    "a schedule": lambda: optax.sgd(optax.linear_schedule(0.1, 0.01, 5), momentum=0.9),
    "a chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(0.01)),
    "of the caller's own": lambda: optax.stateless(lambda updates, _: jax.tree.map(
        lambda g: -0.1 * g, updates)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_made_anew_is_the_same(name):
    one, other = (DMBP(steps=2, optimizer=OPTIMIZERS[name]()) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    expected = attribute(one)
    with compilations() as found:
        again = attribute(other)
    assert not found
    np.testing.assert_array_equal(again.map, expected.map)


def test_a_loss_made_anew_is_the_same():
    def make(power, one_sided=False):
        return Objective(lambda y, p, n: n - p + jnp.abs(y - p - n) ** power, one_sided=one_sided)

    assert DMBP(loss=make(2)) == DMBP(loss=make(2)) and len({DMBP(loss=make(2)) for _ in "12"}) == 1
    others = [DMBP(), DMBP(loss=make(2)), DMBP(loss=make(3)), DMBP(loss=make(2, one_sided=True))]
    assert len(set(others)) == len(others)
    expected = attribute(DMBP(steps=2, loss=make(2)))
    with compilations() as found:
        again = attribute(DMBP(steps=2, loss=make(2)))
    assert not found
    np.testing.assert_array_equal(again.map, expected.map)


def test_optimisers_that_differ_in_a_number_differ():
    made = [
        optax.adam(0.05),
        optax.adam(0.06),
        optax.adam(0.05, b1=0.8),
        optax.sgd(0.05),
        optax.sgd(optax.linear_schedule(0.1, 0.01, 5)),
        optax.sgd(optax.linear_schedule(0.1, 0.01, 6)),
        optax.stateless(lambda updates, _: updates),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.negative, updates)),
    ]
    assert len({DMBP(optimizer=one) for one in made}) == len(made)
    assert DMBP() != DMBP(optimizer=made[0]) and DMBP() == DMBP() != "DMBP()"


def test_content_of_what_functions_capture():
    def make(captured, default=1):
        return lambda x, default=default: x + captured + default

    for one, other in [(1, 1.0), (0.0, -0.0), (1, True), ((1, 2), [1, 2]), (1, np.ones(1))]:
        assert content(make(one)) == content(make(one))
        assert content(make(one)) != content(make(other))
    assert content(make(1)) != content(make(1, default=2))
    assert content(make(float("nan"))) == content(make(float("nan")))
    assert content(make(np.ones(1))) == content(make(np.ones(1))) != content(make(np.zeros(1)))

    def recursive(n):
        return recursive(n - 1) if n else 0

    hash(content(recursive))


@one_of_each_kind
def test_a_method_with_equal_settings_is_compiled_once(name):
    """Its equation is made anew in every call, with the settings that it captured."""
    expected = run(NETWORK, name, PARAMS, X, 1)
    with compilations() as found:
        again = run(NETWORK, name, PARAMS, X, 1)
    assert not found
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("steps", [46, 37])
def test_a_bar_and_chunks_run_the_programs_of_a_call_without(steps):
    expected = attribute(DMBP(steps=steps))
    with compilations() as found:
        watched = attribute(DMBP(steps=steps), progress=True)
    assert not found
    np.testing.assert_array_equal(watched.map, expected.map)


def test_a_call_compiles_three_programs():
    attribute(DMBP(steps=3))  # the small ones around them
    with compilations() as found:
        attribute(DMBP(steps=3, learning_rate=0.02))
    assert len(found) == 3


@pytest.mark.parametrize("steps", [3, 12])
def test_lpr_inside_jit_is_a_loop(steps):
    def lines(steps):
        def f(x):
            return METHODS["lpr"](PARAMS, x, 1, apply_fn=NETWORK, steps=steps)

        return len(jax.jit(f).lower(X).as_text().splitlines())

    assert lines(steps) < 1.05 * lines(2)


def _maps() -> int:
    with open("/proc/self/maps") as lines:
        return sum(1 for _ in lines)


@pytest.mark.slow
def test_new_networks_do_not_fill_the_memory():
    """Each kept 96 memory maps: after 680 of them the process ended."""
    found = []
    for number in range(2 * KEPT):
        attribute(DMBP(steps=1), lambda params, x, n=number: NETWORK(params, x) + float(n))
        METHODS["gradient"](PARAMS, X, None, apply_fn=lambda params, x: NETWORK(params, x))
        attribute(DMBP(steps=1, learning_rate=0.01 * (1 + number)))
        if number > KEPT:
            gc.collect()
            found.append(_maps())
    assert found[-1] < 1.02 * found[0]


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.slow
def test_on_a_mesh_a_program_is_compiled_once(devices):
    """`advance` was compiled for a state as `start` returns it, and again for its own results."""
    mesh = jax.sharding.Mesh(jax.devices()[:devices], ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(np.stack([X] * 4), place)

    def call(rate):
        config = DMBP(steps=40, learning_rate=rate)
        dmbp_jax.attribute(PARAMS, x, 1, apply_fn=NETWORK, config=config)

    call(0.01)  # the small ones around them
    with compilations() as found:
        call(0.02)
    assert len(found) == 3


def test_arrays_of_the_caller_are_left_alone():
    """The programs of the loop take the state away, and a state has the images."""
    x, params = jnp.asarray(X[None]), jax.tree.map(jnp.asarray, PARAMS)
    dmbp_jax.attribute(params, x, 1, apply_fn=NETWORK, config=DMBP(steps=2), progress=True)
    assert not any(a.is_deleted() for a in jax.tree.leaves((x, params)))


RATE = 1.0


class Settings:
    """Numbers that a loss reads by an attribute."""

    __slots__ = ("rate",)


def of_a_global():
    def loss(y, p, n):
        return (p - RATE) ** 2 + 0 * n

    return loss


def of_a_default():
    def loss(y, p, n, rate=RATE):
        return (p - rate) ** 2 + 0 * n

    return loss


SETTINGS = Settings()
SLOTS = SimpleNamespace(rate=1.0)
WRITTEN = np.ones((), np.float32)  # JAX itself keeps what it made of a float64 array
MODULE = ModuleType("rates")
IN_CONTEXT: ContextVar[float] = ContextVar("rate", default=1.0)


def rate_of_another_function():
    return RATE


READ = {
    "a global": of_a_global,
    "a default argument": of_a_default,
    "an attribute": lambda: lambda y, p, n: (p - SLOTS.rate) ** 2 + 0 * n,
    "a slot": lambda: lambda y, p, n: (p - SETTINGS.rate) ** 2 + 0 * n,
    "an array written in place": lambda: lambda y, p, n: (p - WRITTEN) ** 2 + 0 * n,
    "an attribute of a module": lambda: lambda y, p, n: (p - MODULE.rate) ** 2 + 0 * n,
    "a module by import": lambda: _imports,
    "a class": lambda: lambda y, p, n: (p - Settings.RATE) ** 2 + 0 * n,
    "another function": lambda: lambda y, p, n: (p - rate_of_another_function()) ** 2 + 0 * n,
    "by a name": lambda: lambda y, p, n: (p - globals()["RATE"]) ** 2 + 0 * n,
    "a context": lambda: lambda y, p, n: (p - IN_CONTEXT.get()) ** 2 + 0 * n,
}


def _imports(y, p, n):
    import rates_of_tests  # pyrefly: ignore[missing-import]

    return (p - rates_of_tests.rate) ** 2 + 0 * n


@pytest.fixture
def set_rate(monkeypatch):
    def change(rate):
        monkeypatch.setitem(globals(), "RATE", rate)
        monkeypatch.setattr(Settings, "RATE", rate, raising=False)
        SETTINGS.rate = SLOTS.rate = rate
        WRITTEN[...] = rate
        IN_CONTEXT.set(rate)
        MODULE.rate = rate  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "rates_of_tests", MODULE)

    yield change
    IN_CONTEXT.set(1.0)


@pytest.mark.parametrize(
    "name",
    slow_beside(
        READ,
        "a default argument",
        "a class",
        "a module by import",
        "a context",
        "a slot",
        "another function",
    ),
)
def test_a_loss_made_anew_is_of_the_numbers_it_reads_now(name, set_rate):
    """Far below what y⁺ can be, and far above it: it is pushed down, and up."""
    found = []
    for rate in (-50.0, 50.0, -50.0):
        set_rate(rate)
        config = DMBP(steps=2, learning_rate=0.5, loss=Objective(READ[name]()))
        found.append(float(attribute(config).y_positive))
    assert found[0] == found[2] < found[1]


OPTIMIZERS_THAT_READ = {
    "a global": lambda: optax.sgd(lambda count: 0.0 * count + RATE),
    "an array": lambda: optax.sgd(lambda count, rate=WRITTEN: 0.0 * count + rate),
}


@pytest.mark.parametrize("name", OPTIMIZERS_THAT_READ)
def test_an_optimiser_made_anew_is_of_the_rate_it_reads_now(name, set_rate):
    found = []
    for rate in (0.0, 1.0, 0.0):
        set_rate(rate)
        config = DMBP(steps=2, optimizer=OPTIMIZERS_THAT_READ[name]())
        history = np.asarray(attribute(config).history)
        found.append(float(np.abs(history[1] - history[0]).max()))
    assert found[0] == found[2] == 0 < found[1]


def test_content_of_what_captured_itself_or_is_large():
    def one():
        return one

    assert content(one) == content(one)
    assert content(range) == content(range) != content(slice)
    big = [[number] for number in range(20_000)]
    assert content(lambda: big) != content(lambda: big)


@dataclass(frozen=True)
class Tangent:
    """f′(z) z + f(z) − f′(z) z, of a function that is called `squareplus`."""

    kind: str = "squareplus"
    masked: bool = True
    has_intercept: bool = True

    @staticmethod
    def match(equation):
        return Tangent() if equation.name == "squareplus" else None

    def __call__(self, z):
        return squareplus(z)

    def choose(self, z):
        value, slope = jax.jvp(squareplus, (z,), (jnp.ones_like(z),))
        return slope, value - slope * z

    def apply(self, choice, z):
        return choice[0] * z + choice[1]


@jax.jit
def squareplus(z):
    return (z + jnp.sqrt(z * z + 4)) / 2


def test_a_piece_that_is_registered_between_two_calls():
    weights = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
    x = np.linspace(-1, 1, 48, dtype=np.float32).reshape(4, 4, 3)

    def network(params, x):
        return squareplus(x.mean((1, 2)) @ params) @ params.T

    def maps():
        call = {"apply_fn": network}
        opened = dmbp_jax.init_masks(weights, x, 1.0, apply_fn=network)
        return (
            dmbp_jax.attribute(weights, x, 0, config=DMBP(steps=1, init=60.0), **call).positive,
            dmbp_jax.decompose(weights, x, 0, opened, **call).positive,
        )

    gradient = x * jax.grad(lambda x: network(weights, x[None])[0, 0])(x)
    before = maps()
    dmbp_jax.register_piece(Tangent)
    try:
        for found in maps():
            np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)
    finally:
        unregister_piece(Tangent)
    for found, expected in zip(maps(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert np.abs(expected - gradient).max() > 1e-4
