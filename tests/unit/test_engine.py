"""The engine, by explainers that live outside the package, and its memory."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax import DMBP
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine import memory
from dmbp_jax.engine.batches import Cut, collect_rows, equal_size
from dmbp_jax.engine.driver import explain
from dmbp_jax.errors import DeviceMemoryError
from dmbp_jax.graph.call import check_call


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Doubling:
    """Doubles a row `steps` times; a step is what a bar would count."""

    factor: jax.Array
    steps: int = field(metadata={"static": True})
    steps_per_call: int = field(metadata={"static": True}, default=1)
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
@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_any_explainer_runs_in_chunks_and_in_steps(chunk_size, steps_per_call):
    explainer = Doubling(jnp.float32(2), 3, steps_per_call)
    result = explain(explainer, (jnp.asarray(ROWS),), chunk_size=chunk_size)
    np.testing.assert_allclose(result["total"], EXPECTED)
    traced = jax.jit(lambda rows: explain(explainer, (rows,), chunk_size=chunk_size))(ROWS)
    np.testing.assert_allclose(traced["total"], EXPECTED)


def test_a_bar_is_told_of_every_step_and_nothing_stays_on_the_device(capsys):
    rows = (jnp.asarray(ROWS),)
    explain(Doubling(jnp.float32(2), 4, 2), rows, chunk_size=3)
    before = len(jax.live_arrays())
    result = explain(Doubling(jnp.float32(2), 4, 2), rows, chunk_size=3, progress="rows")
    np.testing.assert_allclose(result["total"], 16 * ROWS.sum(-1))
    assert "12/12" in capsys.readouterr().err  # three pieces of four steps
    assert len(jax.live_arrays()) <= before + 2


@pytest.mark.parametrize(("shards", "rows", "size"), [(1, 7, 3), (2, 4, 4), (3, 5, 2), (4, 2, 1)])
def test_pieces_have_rows_of_every_shard_and_join_in_order(shards, rows, size):
    cut = Cut(shards, rows, size)
    values = jnp.arange(shards * rows * 2).reshape(-1, 2)
    pieces = [cut.piece((values, None), i)[0] for i in range(cut.pieces)]
    assert {piece.shape for piece in pieces} == {(shards * size, 2)}
    for piece in pieces:
        shard_of = np.asarray(piece[:, 0]) // 2 // rows
        np.testing.assert_array_equal(shard_of, np.repeat(np.arange(shards), size))
    np.testing.assert_array_equal(cut.join(jnp.stack(pieces)), values)
    np.testing.assert_array_equal(cut.join(np.stack(pieces)), values)


def test_batches_are_of_one_shape():
    items = ((f"row {i}", (row, None)) for i, row in enumerate(ROWS))
    batches = list(collect_rows(items, 3))
    assert [batch.count for batch in batches] == [3, 3, 1]
    assert [len(batch.items) for batch in batches] == [3, 3, 1]
    assert all(batch.rows[0].shape == (3, 2) and batch.rows[1] is None for batch in batches)
    np.testing.assert_array_equal(batches[-1].rows[0], ROWS[[6, 6, 6]])
    assert [equal_size(count, 16) for count in (1, 16, 17, 33)] == [1, 16, 9, 11]


def test_memory_that_runs_out_while_results_leave_is_named(monkeypatch):
    class Exhausted:
        def __array__(self, *arguments, **options):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("dmbp_jax.engine.driver.explain_batch", lambda *_: {"total": Exhausted()})
    with pytest.raises(DeviceMemoryError, match=r"chunk_size=3.*chunk_size=1"):
        explain(Doubling(jnp.float32(2), 1), (jnp.asarray(ROWS),), chunk_size=3)


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


def _mean_relu(params, x):
    return jax.nn.relu(x.mean((1, 2)) @ params) @ params


@pytest.mark.slow
def test_bfloat16_gradients_do_not_cancel_where_a_mask_is_nearly_1():
    """∂y⁺/∂θ = u c (1 − m): in bfloat16 a difference c − d of rounded values would be 0 here."""
    from dmbp_jax.dmbp import loop

    rng = np.random.default_rng(1)
    weights = np.abs(rng.normal(size=(3, 3))).astype(np.float32)
    x = np.abs(rng.normal(size=(1, 2, 2, 3))).astype(np.float32)
    gradients = {}
    for dtype in ("float32", "bfloat16"):
        call = check_call(weights, x, 1, _mean_relu, dtype=dtype)
        graph = (call.low or call.network).graph()
        frozen = graph.freeze(jnp.asarray(x, dtype))
        theta = tuple(jnp.full(site.shape, 7.0) for site in graph.masked)  # 1 − σ = 9e-4
        config = DMBP(loss="positive")
        _, (gradients[dtype],) = loop.terms_and_gradient(frozen, theta, 1, config)
    np.testing.assert_allclose(gradients["bfloat16"], gradients["float32"], rtol=0.05)


@pytest.mark.parametrize(
    ("steps", "each"),
    [(0, 0), (3, 3), (6, 6), (37, 37), (46, 23), (200, 20), (250, 25), (199, 199)],
)
def test_calls_of_the_loop_have_one_length(steps, each):
    """A last call of another length was compiled for itself."""
    call = check_call(np.eye(3, dtype=np.float32), ROWS[:, None, None, [0, 1, 1]], 1, _mean_relu)
    assert DmbpExplainer(call.network, DMBP(steps=steps)).steps_per_call == each
