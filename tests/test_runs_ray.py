"""Large runs on Ray: the same bytes as in one process, also when actors are killed."""

import os
import signal
from pathlib import Path

import pytest
from small_runs import contents, small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.runs import ray as actors
from dmbp_jax.runs.ray import check_place
from dmbp_jax.runs.worker import Done

SLOW = bool(os.environ.get("DMBP_SLOW_TESTS"))
needs_ray = pytest.mark.skipif(not SLOW, reason="DMBP_SLOW_TESTS=1 runs it")


@pytest.fixture(scope="module")
def ray():
    """A cluster of two CPUs on this machine."""
    ray = pytest.importorskip("ray")
    path = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent / "support")}}  # of the network
    ray.init("local", num_cpus=2, num_gpus=0, log_to_driver=False, runtime_env=path)
    yield ray
    ray.shutdown()


@pytest.fixture
def plan(tmp_path):
    return small_plan(write_pictures(tmp_path / "in", 30))


def test_a_path_is_refused_on_several_nodes(tmp_path):
    check_place(runs.Store(tmp_path), 1)
    check_place(runs.Store("s3://bucket/run"), 3)
    with pytest.raises(InputError, match=r"got the path .*: each node would write to its own disk"):
        check_place(runs.Store(tmp_path), 2)


def test_ray_must_be_installed(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"dmbp-jax\[ray\]"):
        runs.run_ray(plan, runs.Store(tmp_path / "out"))


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_two_actors_store_what_one_process_stores(ray, plan, tmp_path):
    runs.run_local(plan, runs.Store(tmp_path / "local"))
    batches = []
    counts = runs.run_ray(plan, runs.Store(tmp_path / "ray"), workers=2, report=batches.append)
    assert counts == (plan.shards, plan.shards)
    assert sum(done.rows for done in batches) == len(plan.inputs)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert runs.run_ray(plan, runs.Store(tmp_path / "ray"), workers=2) == (0, 0)


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_an_actor_that_is_killed_comes_back(ray, plan, tmp_path, monkeypatch):
    runs.run_local(plan, runs.Store(tmp_path / "local"))
    folder, killed = tmp_path, []

    class Known(actors._Actor):
        """Leaves a file with the number of its process."""

        def process(self, shard: int, ahead: int | None):
            (folder / f"{os.getpid()}.pid").touch()
            return actors._Actor.process(self, shard, ahead)

    def kill_one(done: Done) -> None:
        alive = [int(path.stem) for path in folder.glob("*.pid") if int(path.stem) not in killed]
        if alive and len(killed) < 3:
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    monkeypatch.setattr(actors, "_Actor", Known)
    runs.run_ray(plan, runs.Store(tmp_path / "ray"), workers=2, report=kill_one)
    assert len(killed) == 3
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_our_errors_come_through_as_themselves(ray, plan, tmp_path):
    store = runs.Store(tmp_path / "out")
    runs.open_manifest(store, small_plan(tmp_path / "in", shard_size=7))
    with pytest.raises(ResumeError, match="another shard_size"):
        runs.run_ray(plan, store, workers=1)
    with pytest.raises(InputError, match="workers: Expected at most 2"):
        runs.run_ray(plan, store, workers=3)
