"""The call of the project: shapes, invariances, transformations, refusals, saving."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from short_methods import slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax import DMBP, Objective
from dmbp_jax.errors import DeviceMemoryError, InputError, InputTypeError

LAYERS = NETWORKS["residual"]
PARAMS = jax.tree.map(lambda a: np.float32(a), make_params(LAYERS, 0))
NETWORK = apply_fn_of(LAYERS)
IMAGES = np.stack([make_image(seed) for seed in range(5)]).astype(np.float32)
LABELS = np.array([0, 3, 1, 4, 2])
FEW = DMBP(steps=8)


def attribute(x, label=None, **options):
    options = {"apply_fn": NETWORK, "config": FEW} | options
    return dmbp_jax.attribute(PARAMS, x, label, **options)


@pytest.fixture(scope="module")
def batch():
    return attribute(IMAGES, LABELS)


def test_shapes_and_identities(batch):
    assert batch.positive.shape == batch.negative.shape == batch.map.shape == IMAGES.shape
    assert batch.heatmap.shape == IMAGES.shape[:3]
    assert batch.y.shape == batch.label.shape == batch.status.shape == (5,)
    assert batch.history.shape == (5, 8, 3) and batch.logits.shape == (5, 5)
    assert batch.masks is None and bool(batch.status.all())
    total = batch.y_positive + batch.y_negative + batch.y_nuisance
    np.testing.assert_allclose(batch.y, total, rtol=1e-6)
    np.testing.assert_array_equal(batch.map, batch.positive + batch.negative)
    logits = NETWORK(PARAMS, IMAGES)
    np.testing.assert_allclose(batch.logits, logits, rtol=1e-5, atol=1e-5)
    bias = PARAMS[-1]["bias"][LABELS]
    np.testing.assert_allclose(batch.y + bias, logits[np.arange(5), LABELS], rtol=1e-4, atol=1e-5)


def test_single_image_has_no_leading_axis(batch):
    one = attribute(IMAGES[3], 4, return_masks=True)
    assert one.map.shape == IMAGES.shape[1:] and one.y.shape == () and one.history.shape == (8, 3)
    np.testing.assert_allclose(one.map, batch.map[3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.history, batch.history[3], rtol=1e-5, atol=1e-6)
    assert all(((mask >= 0) & (mask <= 1)).all() for mask in one.masks)
    again = dmbp_jax.decompose(PARAMS, IMAGES[3], 4, one.masks, apply_fn=NETWORK)
    np.testing.assert_allclose(again.y_positive, one.y_positive, rtol=1e-5)
    np.testing.assert_allclose(again.map, one.map, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_size", slow_beside([1, 2, 4, 5, 64], 2, 4))
def test_chunks_do_not_change_an_image(batch, chunk_size):
    other = attribute(IMAGES, LABELS, chunk_size=chunk_size)
    for ours, theirs in zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batch_mates_do_not_change_an_image(batch):
    wild = IMAGES.copy()
    wild[[0, 1, 3, 4]] *= 1e3
    np.testing.assert_allclose(attribute(wild, LABELS).map[2], batch.map[2], rtol=1e-5, atol=1e-6)


def test_progress_is_the_same_computation(batch, capsys):
    other = attribute(IMAGES, LABELS, progress=True)
    np.testing.assert_allclose(other.map, batch.map, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.history, batch.history, rtol=1e-5, atol=1e-6)
    assert "8/8" in capsys.readouterr().err


def test_jit(batch):
    jitted = jax.jit(lambda p, x, y: dmbp_jax.attribute(p, x, y, apply_fn=NETWORK, config=FEW))
    np.testing.assert_allclose(jitted(PARAMS, IMAGES, LABELS).map, batch.map, 1e-5, 1e-6)


@pytest.mark.slow
def test_vmap(batch):
    mapped = jax.vmap(lambda x, y: attribute(x, y))(IMAGES, LABELS)
    np.testing.assert_allclose(mapped.map, batch.map, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped[3].history, batch.history[3], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_jit_of_progress_and_of_chunks(batch):
    silent = jax.jit(lambda x, y: attribute(x, y, progress=True))(IMAGES, LABELS)
    np.testing.assert_allclose(silent.map, batch.map, rtol=1e-5, atol=1e-6)
    folded = jax.jit(lambda x, y: attribute(x, y, chunk_size=2))(IMAGES, LABELS)
    np.testing.assert_allclose(folded.history, batch.history, rtol=1e-5, atol=1e-6)


def test_sharded_batch_needs_no_collectives(batch):
    devices = jax.devices()
    assert len(devices) == 4, "conftest asks XLA for four devices"
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    x = jnp.concatenate([IMAGES[:4], IMAGES[:4]])
    labels = jnp.concatenate([LABELS[:4], LABELS[:4]])
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    call = jax.jit(lambda x, y: attribute(x, y))
    text = call.lower(sharded, labels).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert collective not in text
    result = call(sharded, labels)
    assert len(result.map.sharding.device_set) == 4
    eager = attribute(sharded, labels)
    np.testing.assert_allclose(eager.map, result.map, rtol=1e-5, atol=1e-6)
    for half in (result.map[:4], result.map[4:]):
        np.testing.assert_allclose(half, batch.map[:4], rtol=1e-5, atol=1e-6)


def test_label_none_is_top_1():
    top = np.argmax(NETWORK(PARAMS, IMAGES), -1)
    np.testing.assert_array_equal(attribute(IMAGES).label, top)
    assert attribute(IMAGES[0]).label == top[0]


def test_arguments_are_left_alone():
    params, x = jax.tree.map(np.copy, PARAMS), IMAGES.copy()
    attribute(x, LABELS)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, PARAMS))
    np.testing.assert_array_equal(x, IMAGES)


def test_losses_pull_as_they_say():
    results = {loss: attribute(IMAGES, LABELS, config=DMBP(steps=60, loss=loss)) for loss in
               ("all", "positive-negative", "positive")}  # fmt: skip
    for result in results.values():
        assert (result.y_positive > result.history[:, 0, 0]).all()
    mean = {loss: result.y_positive.mean() for loss, result in results.items()}
    assert mean["positive"] > mean["all"]
    negative = {loss: result.y_negative.mean() for loss, result in results.items()}
    assert negative["positive-negative"] < negative["positive"]
    rest = {loss: np.abs(result.y_nuisance).mean() for loss, result in results.items()}
    assert rest["all"] < rest["positive"] and rest["all"] < rest["positive-negative"]


def test_zero_steps_keep_the_initial_masks():
    result = attribute(IMAGES[0], 0, config=DMBP(steps=0, init=1.0), return_masks=True)
    assert result.history.shape == (0, 3)
    for mask in result.masks:
        np.testing.assert_allclose(mask, 1 / (1 + np.exp(-1.0)), rtol=1e-6)
    assert attribute(IMAGES[0], 0, config=DMBP(steps=0), progress=True).history.shape == (0, 3)


@pytest.mark.parametrize("init", [-200.0, 200.0])
def test_masks_of_0_and_1_stay_finite(init):
    """exp(±θ) overflows there; one sign gets everything and the other nothing."""
    result = attribute(IMAGES[:2], LABELS[:2], config=DMBP(steps=2, init=init))
    assert bool(result.status.all()) and bool(np.isfinite(result.history).all())
    full, none = result.y_positive, result.y_negative
    full, none = (full, none) if init > 0 else (none, full)
    np.testing.assert_allclose(full, result.y, rtol=1e-5)
    np.testing.assert_array_equal(none, 0)


def test_any_optax_optimiser():
    result = attribute(IMAGES, LABELS, config=DMBP(steps=8, optimizer=optax.adam(0.05)))
    assert (result.y_positive > result.history[:, 0, 0]).all()


def test_optax_defaults_learn_nothing_where_pytorchs_do():
    """The optimiser trap: optax's eps inside the root swallows small mask gradients."""

    def faint(params, x):
        return 1e-6 * NETWORK(params, x)

    steps = {}
    for name, optimizer in {"pytorch": None, "optax": optax.rmsprop(0.01)}.items():
        config = DMBP(steps=30, optimizer=optimizer)
        terms = attribute(IMAGES[0], 0, apply_fn=faint, config=config).history[:, 0]
        steps[name] = abs(float(terms[-1] - terms[0]))
    assert steps["pytorch"] > 100 * steps["optax"]


def test_overflow_is_a_status():
    wild = IMAGES.copy()
    wild[1] *= 1e38
    result = attribute(wild, LABELS)
    np.testing.assert_array_equal(result.status, [True, False, True, True, True])


def test_float64(x64):
    result = dmbp_jax.attribute(
        make_params(LAYERS, 0), make_image(0), 0, apply_fn=NETWORK, config=FEW
    )
    assert result.map.dtype == jnp.float64 and result.y.dtype == jnp.float64


REFUSED = {
    "integers": (lambda: attribute(IMAGES.astype(np.uint8)), InputTypeError, "x: .*uint8"),
    "text": (lambda: attribute("dog.jpg"), InputTypeError, "x: "),
    "rank": (lambda: attribute(IMAGES[0, 0]), InputError, r"x: Expected shape \(H, W, C\)"),
    "empty": (lambda: attribute(IMAGES[:0]), InputError, "empty batch"),
    "nan": (lambda: attribute(IMAGES * np.nan), InputError, "x: Expected finite values, got nan"),
    "channels": (lambda: attribute(IMAGES[..., :1]), InputError, "x: Expected images the network"),
    "too large": (lambda: attribute(IMAGES, 5), InputError, "label: Expected 0 <= label < 5"),
    "negative": (lambda: attribute(IMAGES, -1), InputError, "label: .*got -1"),
    "position": (lambda: attribute(IMAGES, [0, 1, 9, 1, 1]), InputError, "got 9 at position 2"),
    "length": (lambda: attribute(IMAGES, [0, 1]), InputError, "label: Expected an int or 5 labels"),
    "single": (lambda: attribute(IMAGES[0], [0, 1]), InputError, "label: Expected"),
    "float": (lambda: attribute(IMAGES, 1.0), InputTypeError, "label: Expected integers"),
    "name": (lambda: attribute(IMAGES, "cat"), InputTypeError, "label: .*'cat'"),
    "chunk": (lambda: attribute(IMAGES, chunk_size=0), InputError, "chunk_size: .* at least 1"),
    "chunk type": (lambda: attribute(IMAGES, chunk_size=1.5), InputTypeError, "chunk_size"),
    "config": (lambda: attribute(IMAGES, config={}), InputTypeError, "config: Expected a DMBP"),
    "params": (lambda: attribute(IMAGES, apply_fn=None), InputTypeError, "params: .*callable"),
    "function": (lambda: attribute(IMAGES, apply_fn=3), InputTypeError, "apply_fn: .*function"),
    "output": (
        lambda: attribute(IMAGES, apply_fn=lambda p, x: NETWORK(p, x)[0]),
        InputError,
        r"apply_fn: Expected logits of shape \(N, classes\)",
    ),
    "tuple": (
        lambda: attribute(IMAGES, apply_fn=lambda p, x: (NETWORK(p, x), x)),
        InputTypeError,
        "apply_fn: Expected one floating-point array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_clear_error_before_compiling(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": -1}, InputError, "steps"),
        ({"steps": 2.0}, InputTypeError, "steps"),
        ({"learning_rate": 0}, InputError, "learning_rate"),
        ({"learning_rate": float("nan")}, InputError, "learning_rate"),
        ({"loss": "both"}, InputError, "loss: Expected one of"),
        ({"loss": abs}, InputTypeError, "loss: Expected a name or an Objective, got"),
        ({"loss": Objective(lambda y, p, n: (n, p))}, InputError, r"loss.value: .* scalar, got \("),
        ({"loss": Objective(lambda y, p, n: jnp.stack([n, p]))}, InputError, "loss.value"),
        ({"loss": Objective(lambda y, p, n: 1)}, InputError, "loss.value: .*int32"),
        ({"optimizer": "adam"}, InputTypeError, "optimizer"),
        ({"precision": "tf32"}, InputError, "precision"),
        ({"dtype": "int8"}, InputError, "dtype"),
        ({"dtype": "half-ish"}, InputError, "dtype"),
    ],
)
def test_config_is_checked_when_made(options, error, message):
    with pytest.raises(error, match=message):
        DMBP(**options)


def test_config_is_frozen_and_hashable():
    assert hash(DMBP()) == hash(DMBP()) and DMBP() == DMBP() and DMBP() != DMBP(steps=1)


def test_out_of_memory_names_the_argument(monkeypatch):
    from dmbp_jax.engine import driver

    def exhausted(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    monkeypatch.setattr(driver, "find", exhausted)
    with pytest.raises(DeviceMemoryError, match=r"chunk_size=4.*chunk_size=2"):
        attribute(IMAGES, LABELS, chunk_size=4)
