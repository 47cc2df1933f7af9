"""Programs kept beside JAX's compilation cache: found by content, and never by anything less."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex
from PIL import Image
from short_methods import slow_beside

import dmbp_jax
import dmbp_jax.models
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine import kept_programs, programs
from dmbp_jax.graph import pieces
from dmbp_jax.graph.identity import identity
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import _newest, trace

X = np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32)
PARAMS = {
    "kernel": np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32),
    "head": np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32),
}
CONFIG = dmbp_jax.DMBP(steps=3)


FIRST = jax.local_devices()[0]


def network(params, x, bias=0.1):
    window = ((1, 1), "SAME")
    x = jax.lax.conv_general_dilated(
        x, params["kernel"], *window, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(x + bias).mean((1, 2)) @ params["head"]


def _forget_programs():
    for known in list(_newest.values()):
        known.trace.compiled.clear()


@pytest.fixture
def folder(tmp_path):
    """A compilation cache of its own, and nothing remembered from before."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    _forget_programs()
    yield tmp_path / "dmbp_jax"
    jax.config.update("jax_compilation_cache_dir", before)
    _forget_programs()


def _maps(apply_fn=network, config=CONFIG, params=PARAMS, x=X, label=1, **options):
    x = jax.device_put(x, FIRST)  # the tests have several devices, see `_platform`
    return dmbp_jax.attribute(params, x, label, apply_fn=apply_fn, config=config, **options)


def _assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _forget(monkeypatch):
    """As in another process; tracing the loop is an error."""
    _forget_programs()
    jax.clear_caches()

    def fail(*_):
        raise AssertionError("traced")

    monkeypatch.setattr(DmbpExplainer, "start", fail)


@pytest.mark.slow
def test_another_process_does_not_trace_and_gets_the_same_bytes(folder, monkeypatch):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        expected = _maps(return_masks=True)
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not folder.exists()
    _assert_equal(_maps(return_masks=True), expected)
    (file,) = folder.iterdir()
    written = file.stat().st_ino
    _forget(monkeypatch)
    _assert_equal(_maps(return_masks=True), expected)
    _assert_equal(_maps(return_masks=True, progress=True), expected)
    assert [one.stat().st_ino for one in folder.iterdir()] == [written]


def test_each_program_is_compiled_once(folder):
    """`advance` and `finish` were compiled for a state that is not committed to a device, too."""
    compiled = []

    def listen(event, *_, **__):
        compiled.append(event == "/jax/core/compile/backend_compile_duration")

    _maps()  # the small ones around them
    jax.monitoring.register_event_duration_secs_listener(listen)
    _maps(config=dataclasses.replace(CONFIG, learning_rate=0.02))
    jax.monitoring.unregister_event_duration_listener(listen)
    assert sum(compiled) == 3


@pytest.mark.slow
def test_another_process_finds_it(folder):
    script = f"""
import json, sys
sys.path[:0] = {sys.path!r}  # that of pytest, with tests/support
from test_kept_programs import _maps, DmbpExplainer
def fail(*_):
    raise AssertionError("traced")
DmbpExplainer.start = fail
print(json.dumps(_maps().map.tolist()))
"""
    expected = _maps()
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.float32(json.loads(done.stdout)), expected.map)


@pytest.mark.slow
def test_a_second_dmbp_explain_takes_half_of_the_first(tmp_path):
    """As it is called by default, with a bar; CPU time, without the settings of the tests."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(tmp_path / "a.png")
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"DMBP_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "dmbp_jax.cli", "explain", str(tmp_path / "a.png")]
    command += ["--network", "builtin", "-o"]
    seconds = []
    for out in ("first", "second"):
        before = os.times()
        subprocess.run(
            [*command, str(tmp_path / out)], check=True, env=environment, capture_output=True
        )
        seconds.append(os.times().children_user - before.children_user)
    assert len(list((tmp_path / "home" / "compiled" / "dmbp_jax").iterdir())) == 1
    assert seconds[1] < 0.5 * seconds[0]


OTHER_CALLS = {
    "a setting": lambda: _maps(config=dmbp_jax.DMBP(steps=4)),
    "a constant": lambda: _maps(lambda p, x: network(p, x, 0.1 + 1e-8)),
    "a captured array": lambda: _maps(lambda p, x: network(p, x, jnp.zeros(4))),
    "an option": lambda: _maps(biases="carry"),
    "masks": lambda: _maps(return_masks=True),
    "no label": lambda: _maps(label=None),
    "more images": lambda: _maps(x=np.stack([X, X])),
    "a dtype": lambda: _maps(config=dmbp_jax.DMBP(steps=3, dtype="bfloat16")),
    "precision": lambda: _maps(config=dmbp_jax.DMBP(steps=3, precision="highest")),
    "a name": lambda: _maps(jax.named_scope("block")(network)),
}


@pytest.mark.parametrize(
    "name",
    slow_beside(OTHER_CALLS, *OTHER_CALLS.keys() - {"a constant"}),
)
def test_what_makes_another_program(name, folder):
    _maps()
    OTHER_CALLS[name]()
    assert len(list(folder.iterdir())) == 2


def test_other_numbers_are_the_same_program(folder):
    _maps()
    others = jax.tree.map(np.negative, PARAMS)
    _maps(lambda p, x: network(p, x), params=others, x=X[None], label=2)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("damage", slow_beside([b"", b"x" * 10, b"y" * 5000], b"", b"x" * 10))
def test_a_damaged_file_is_written_again(damage, folder):
    expected = _maps()
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage)
    _forget_programs()
    _assert_equal(_maps(), expected)
    assert file.read_bytes()[:32] != damage[:32]
    assert len(file.read_bytes()) == len(content)


@pytest.mark.slow
def test_the_folder_is_bounded_in_size_and_age(folder, monkeypatch):
    _maps()
    (first,) = folder.iterdir()
    month = time.time() - 30 * 24 * 3600
    os.utime(first, (month, month))
    _forget_programs()
    _maps()  # reads it: it was used now
    assert first.stat().st_mtime > month + 1000
    old = folder / "old.jax"
    old.write_bytes(b"x")
    os.utime(old, (month - 90 * 24 * 3600,) * 2)
    _maps(biases="carry")
    assert first.exists() and not old.exists() and len(list(folder.iterdir())) == 2
    os.utime(first, (month, month))
    monkeypatch.setattr(kept_programs, "MOST_BYTES", 2 * first.stat().st_size)
    _maps(biases="spread")
    assert not first.exists() and len(list(folder.iterdir())) == 1


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_does_not_matter(folder):
    folder.write_text("a file")
    assert bool(_maps().status)
    assert folder.read_text() == "a file"


def test_nothing_is_kept_without_a_local_folder(folder):
    with jax.disable_jit():
        assert kept_programs._folder() is None
    assert kept_programs._folder() == folder
    jax.config.update("jax_compilation_cache_dir", None)
    assert kept_programs._folder() is None
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")
    assert kept_programs._folder() is None


@pytest.mark.slow
def test_code_of_the_caller_is_not_kept(folder, monkeypatch):
    import optax

    _maps(config=dmbp_jax.DMBP(steps=3, optimizer=optax.sgd(0.1)))
    _maps(config=dmbp_jax.DMBP(steps=3, loss=dmbp_jax.Objective(lambda y, p, n: n - p)))
    own = dataclasses.make_dataclass("DMBP", [], bases=(dmbp_jax.DMBP,), frozen=True)
    _maps(config=own(steps=3))
    monkeypatch.setattr(pieces, "_registered", [pieces.Relu])
    _maps()
    assert not folder.exists()


def test_an_error_of_the_call_is_raised_as_before(folder):
    with pytest.raises(dmbp_jax.errors.NonAffineError, match="floor"):
        _maps(lambda p, x: jnp.floor(network(p, x)))
    assert not folder.exists()


@pytest.mark.slow
def test_maps_inside_a_trace(folder):
    inside = jax.jit(lambda x: dmbp_jax.attribute(PARAMS, x, 1, apply_fn=network, config=CONFIG))
    np.testing.assert_allclose(inside(jnp.asarray(X)).map, _maps().map, rtol=1e-5, atol=1e-7)
    assert len(list(folder.iterdir())) == 1


def test_results_are_on_no_device_for_good(folder):
    """JAX moves results where they are wanted, unless their operands were put somewhere."""
    found = dmbp_jax.attribute(PARAMS, X, 1, apply_fn=network, config=CONFIG)
    other = jax.device_put(jnp.ones(X.shape), jax.local_devices()[1])
    assert (found.map + other).devices() == other.devices()
    assert not folder.exists()


@pytest.mark.slow
def test_what_jax_cannot_keep_is_computed_as_ever(folder):
    key = jax.random.key(0)
    noise = jax.jit(lambda x: x + jax.random.normal(key, x.shape))  # keys have no description
    assert bool(_maps(lambda p, x: network(p, noise(x))).status)
    assert not folder.exists()


@pytest.mark.slow
def test_the_code_is_hashed_when_it_is_imported(folder, monkeypatch):
    _maps()
    monkeypatch.setattr(kept_programs, "_hash_source", lambda: "of files that changed since")
    _forget_programs()
    _maps()
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(kept_programs, "_SOURCE", None)  # of a package without files
    assert kept_programs._folder() is None


def test_many_settings_are_remembered(folder, monkeypatch):
    found = [_maps(config=dmbp_jax.DMBP(steps=0, init=init / 8)) for init in range(3)]
    monkeypatch.setattr(programs, "_compile", lambda *_: pytest.fail("forgotten"))
    for init, one in enumerate(found):
        again = _maps(lambda p, x: network(p, x), dmbp_jax.DMBP(steps=0, init=init / 8))
        _assert_equal(again, one)


def _identity(function):
    return trace(bind(PARAMS, function), jnp.asarray(X)[None]).identity


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


@pytest.mark.slow
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
    forged = {select(f"{name}{end} foo", 2).identity for name in names for end in ("", ")")}
    assert select("foo", 3).identity not in forged


def test_a_primitive_of_somebody_else_has_no_identity():
    primitive = jex.Primitive("sin")
    primitive.def_abstract_eval(lambda a: a)
    assert identity(jax.make_jaxpr(primitive.bind)(X).jaxpr).others == (primitive,)


@pytest.mark.parametrize("name", slow_beside(["ResNet50", "VGG16", "DenseNet121"], "DenseNet121"))
def test_networks_of_the_package_have_an_identity(name):
    module = getattr(dmbp_jax.models, name)(classes=5)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    assert not identity(jax.make_jaxpr(module.apply)(variables, image).jaxpr).others


def test_a_call_with_an_unknown_parameter_has_no_identity():
    jaxpr = jax.make_jaxpr(lambda x: jax.pure_callback(np.sin, x, x))(X).jaxpr
    assert identity(jaxpr).others
    assert not identity(jax.make_jaxpr(jnp.sin)(X).jaxpr).others
