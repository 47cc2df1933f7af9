"""Large runs on Ray: the same bytes as in one process, also when actors are killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small_runs import contents, small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.runs import ray as actors
from dmbp_jax.runs.ray import check_place
from dmbp_jax.runs.records import committed

pytestmark = pytest.mark.slow
KILLS = 10
SLOW = bool(os.environ.get("DMBP_SLOW_TESTS"))
needs_ray = pytest.mark.skipif(not SLOW, reason="DMBP_SLOW_TESTS=1 runs it")


@pytest.fixture(scope="module")
def ray():
    """A cluster of two CPUs on this machine."""
    ray = pytest.importorskip("ray")
    support = str(Path(__file__).parents[1] / "support")  # holds the network
    path = {"env_vars": {"PYTHONPATH": support}}
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


def check_whole(plan, out: Path, local: Path) -> None:
    """Every row once, and the bytes of a run in one process."""
    assert contents(out) == contents(local)
    run = runs.open(out)
    rows = [(row["file"], row["label"]) for row in run.rows]
    assert len(rows) == len(set(rows)) == len(plan.inputs)
    assert run.verify() == []


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_actors_killed_at_random_come_back(ray, tmp_path, monkeypatch):
    """Each kill waits for a process that is at its second shard, and then a random moment.

    At its first it would be the same shard again and again, which ends the run after six losses.
    """
    plan = small_plan(write_pictures(tmp_path / "in", 120))
    runs.run_local(plan, runs.Store(tmp_path / "local"))
    folder, moments, killed = tmp_path, random.Random(0), []
    finished = threading.Event()

    class Known(actors._Actor):
        """Leaves a file with the number of its process from its second shard on."""

        second = False

        def process(self, shard: int, ahead: int | None):
            if self.second:
                (folder / f"{os.getpid()}.pid").touch()
            self.second = True
            return actors._Actor.process(self, shard, ahead)

    def kill() -> None:
        while not finished.is_set() and len(killed) < KILLS:
            begun = {int(path.stem) for path in folder.glob("*.pid")} - set(killed)
            if begun:
                time.sleep(moments.uniform(0, 0.05))
                one = moments.choice(sorted(begun))
                with suppress(ProcessLookupError):  # all is done, and Ray was faster
                    os.kill(one, signal.SIGKILL)
                killed.append(one)
            time.sleep(0.01)

    monkeypatch.setattr(actors, "_Actor", Known)
    killer = threading.Thread(target=kill)
    killer.start()
    runs.run_ray(plan, runs.Store(tmp_path / "ray"), workers=2)
    finished.set()
    killer.join()
    print(f"{len(killed)} actors killed")
    assert len(killed) >= 3
    check_whole(plan, tmp_path / "ray", tmp_path / "local")


@needs_ray
@pytest.mark.parametrize("seed", range(3))
def test_the_process_that_started_the_actors_is_killed(tmp_path, seed):
    pytest.importorskip("ray")
    plan = small_plan(write_pictures(tmp_path / "in", 60))
    runs.run_local(plan, runs.Store(tmp_path / "local"))
    script = Path(__file__).parents[1] / "support" / "killed_ray.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "in"), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(script.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    moments = random.Random(seed)
    for _ in range(moments.randint(1, 8)):
        assert process.stdout.readline() == ".\n"
    time.sleep(moments.uniform(0, 0.1))
    process.kill()
    process.communicate()
    store = runs.Store(tmp_path / "out")
    before = len(committed(store))
    print(f"{before} of {plan.shards} shards were done")
    counts = runs.run_local(plan, store)  # the actors end with their cluster, a moment later
    assert counts.processed <= plan.shards - before
    check_whole(plan, tmp_path / "out", tmp_path / "local")


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_our_errors_come_through_as_themselves(ray, plan, tmp_path):
    store = runs.Store(tmp_path / "out")
    runs.open_manifest(store, small_plan(tmp_path / "in", shard_size=7))
    with pytest.raises(ResumeError, match="another shard_size"):
        runs.run_ray(plan, store, workers=1)
    with pytest.raises(InputError, match="workers: Expected at most 2"):
        runs.run_ray(plan, store, workers=3)
