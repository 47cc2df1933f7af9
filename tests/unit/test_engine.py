"""The engine, by explainers, sources and sinks that live outside the package, and its memory."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax import DMBP, attribute
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine import memory
from dmbp_jax.engine.batches import collect_rows, equal_size, slice_rows
from dmbp_jax.engine.driver import drive, explain
from dmbp_jax.errors import DeviceMemoryError, InputError
from dmbp_jax.graph.call import check_call


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Doubling:
    """Doubles a row `steps` times; a step is what a bar would count."""

    factor: jax.Array
    steps: int = field(metadata={"static": True})
    steps_per_call: int | None = field(metadata={"static": True}, default=None)
    bytes_per_row: int = field(metadata={"static": True}, default=100)

    def start(self, rows):
        return rows[0]

    def advance(self, state, steps):
        return state * self.factor**steps

    def finish(self, state):
        return {"total": state.sum(-1)}


ROWS = np.arange(14.0, dtype=np.float32).reshape(7, 2)
EXPECTED = 8 * ROWS.sum(-1)


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 7, 20])
@pytest.mark.parametrize("steps_per_call", [None, 1, 2])
def test_any_explainer_runs_in_chunks_and_in_steps(chunk_size, steps_per_call):
    explainer = Doubling(jnp.float32(2), 3, steps_per_call)
    result = explain(explainer, (jnp.asarray(ROWS),), chunk_size=chunk_size)
    np.testing.assert_allclose(result["total"], EXPECTED)
    traced = jax.jit(lambda rows: explain(explainer, (rows,), chunk_size=chunk_size))(ROWS)
    np.testing.assert_allclose(traced["total"], EXPECTED)


class Lines:
    """A sink of the caller's own: text lines, as soon as a batch is done."""

    def __init__(self):
        self.lines, self.alive = [], []

    def write(self, batch, results):
        assert isinstance(results["total"], np.ndarray)
        self.lines += [f"{item} {total:g}" for item, total in zip(batch.items, results["total"])]  # noqa: B905
        self.alive.append(len(jax.live_arrays()))


def test_a_new_sink_gets_every_item_once_and_nothing_stays_on_the_device():
    sink, taken = Lines(), []
    items = ((f"row {i}", (row,)) for i, row in enumerate(ROWS))
    drive(Doubling(jnp.float32(2), 3), collect_rows(items, 3), sink, taken.append)
    assert sink.lines == [f"row {i} {total:g}" for i, total in enumerate(EXPECTED)]
    assert sum(taken) == 3 * 3  # batches of 3, 3 and 1 padded, 3 steps each
    assert max(sink.alive) - min(sink.alive) <= 1


def test_maps_go_through_a_sink_of_the_callers_own():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(5, 4, 4, 3)), rng.normal(size=(48, 3))
    x, weights = x.astype(np.float32), weights.astype(np.float32)

    def network(params, x):
        return jax.nn.relu(x.reshape(len(x), -1)) @ params

    call = check_call(weights, x, 1, network)
    maps = []

    class Sink:
        def write(self, batch, results):
            maps.extend(results.map)

    config = DMBP(steps=3)
    drive(DmbpExplainer(call.network, config), slice_rows((x, call.labels), 5, 2), Sink())
    expected = attribute(weights, x, 1, apply_fn=network, config=config)
    np.testing.assert_allclose(maps, expected.map, rtol=1e-5, atol=1e-6)


def test_batches_are_of_one_shape():
    batches = list(slice_rows((ROWS, None), 7, 3))
    assert [batch.count for batch in batches] == [3, 3, 1]
    assert all(batch.rows[0].shape == (3, 2) and batch.rows[1] is None for batch in batches)
    np.testing.assert_array_equal(batches[-1].rows[0], ROWS[[6, 6, 6]])
    assert [equal_size(count, 16) for count in (1, 16, 17, 33)] == [1, 16, 9, 11]


def test_memory_that_runs_out_while_results_leave_is_named(monkeypatch):
    class Exhausted:
        def __array__(self, *arguments, **options):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("dmbp_jax.engine.driver.explain_batch", lambda *_: {"total": Exhausted()})
    with pytest.raises(DeviceMemoryError, match=r"chunk_size=3.*chunk_size=1"):
        drive(Doubling(jnp.float32(2), 1), slice_rows((ROWS,), 7, 3), Lines())


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "1000", "memory.current": "400"},
        {"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "400"},
    ],
)
def test_free_memory_ends_where_the_container_does(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.free_host_bytes(tmp_path) == 600


def test_free_memory_without_a_limit_is_the_systems(tmp_path):
    (tmp_path / "memory.max").write_text("max")
    (tmp_path / "memory.current").write_text("400")
    for cgroup in (tmp_path, tmp_path / "none"):
        assert memory.free_host_bytes(cgroup) > 2**20


def test_pieces_of_steps_must_be_whole_blocks_of_the_plateau():
    """A piece of 15 steps would write its second block over the first, in silence."""
    call = check_call(np.eye(3, dtype=np.float32), ROWS[:, None, None, [0, 1, 1]], 1, _mean_relu)
    explainer = DmbpExplainer(call.network, DMBP(steps=20, tolerance=1e-9))
    run = explainer.start((call.images, call.labels))
    with pytest.raises(InputError, match="steps: Expected a multiple of 10 with a tolerance"):
        explainer.advance(run, 15)


def _mean_relu(params, x):
    return jax.nn.relu(x.mean((1, 2)) @ params) @ params


def test_bfloat16_gradients_do_not_cancel_where_a_mask_is_nearly_1():
    """∂y⁺/∂θ = u c (1 − m): in bfloat16 a difference c − d of rounded values would be 0 here."""
    from dmbp_jax.dmbp import loop
    from dmbp_jax.dmbp.decomposition import freeze

    rng = np.random.default_rng(1)
    weights = np.abs(rng.normal(size=(3, 3))).astype(np.float32)
    x = np.abs(rng.normal(size=(1, 2, 2, 3))).astype(np.float32)
    gradients = {}
    for dtype in ("float32", "bfloat16"):
        call = check_call(weights, x, 1, _mean_relu, dtype=dtype)
        graph = (call.low or call.network).graph()
        frozen = freeze(graph, jnp.asarray(x, dtype))
        theta = tuple(jnp.full(site.shape, 7.0) for site in graph.masked)  # 1 − σ = 9e-4
        config = DMBP(loss="positive")
        _, (gradients[dtype],) = loop.terms_and_gradient(graph, frozen, theta, 1, config)
    np.testing.assert_allclose(gradients["bfloat16"], gradients["float32"], rtol=0.05)
