"""Several writers on one store, stripes of a job array, and devices: the same bytes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_runs import contents, small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.errors import InputError
from dmbp_jax.runs.local import find_stripe, parse_stripe, stripe
from dmbp_jax.runs.records import Part, commit, committed, reopen, unfinished

pytestmark = pytest.mark.slow
SLOW = bool(os.environ.get("DMBP_SLOW_TESTS"))
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A plan of six shards, and what one writer stores."""
    folder = tmp_path_factory.mktemp("writers")
    plan = small_plan(write_pictures(folder / "in", 22))
    runs.run_local(plan, runs.Store(folder / "whole"))
    return plan, contents(folder / "whole")


def test_three_writers_commit_every_shard_once(reference, tmp_path):
    plan, whole = reference
    told, barrier = [], threading.Barrier(3)

    def write() -> None:
        barrier.wait()
        told.append(runs.run_local(plan, runs.Store(tmp_path / "out")))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts.committed for counts in told) == plan.shards
    assert contents(tmp_path / "out") == whole
    assert runs.open(tmp_path / "out").verify() == []


def test_maps_of_a_loser_are_found_and_done_again(reference, tmp_path):
    plan, whole = reference
    store = runs.Store(tmp_path / "out")
    runs.run_local(plan, store)
    record = store.get("commits/00000002.jsonl")
    part = runs.Worker(plan).process_shard(2)
    # Another writer with other bits: its maps come after the first one's, its record too late.
    other = {key: data[:-1] + bytes([data[-1] ^ 1]) for key, data in part.objects.items()}
    store.put_many(other)
    fingerprint = runs.open(tmp_path / "out").fingerprint
    assert not commit(store, fingerprint, Part(2, other, part.rows))
    assert store.get("commits/00000002.jsonl") == record
    problems = runs.Run(store).verify()
    assert [problem.shard for problem in problems] == [2]
    assert "holds other bytes than were committed" in problems[0].reason
    reopen(store, problems)
    assert runs.open(tmp_path / "out").missing == list(plan.rows(2))
    assert runs.run_local(plan, store) == (1, 1)
    assert contents(tmp_path / "out") == whole
    assert runs.Run(store).verify() == []


def test_every_kind_of_damage_is_named(reference, tmp_path):
    plan, _ = reference
    store = runs.Store(tmp_path)
    runs.run_local(plan, store)
    store.delete("heatmap/c/0/0/0")
    store.put("heatmap_scale/c/1", b"short")
    store.put("commits/00000003.jsonl", b'{"shard": 3')
    store.delete("commits/00000004.jsonl")
    assert commit(store, "another", runs.Worker(plan).process_shard(4))
    reasons = {problem.shard: problem.reason for problem in runs.Run(store).verify()}
    assert list(reasons) == [0, 1, 3, 4]
    assert reasons[0] == "heatmap/c/0/0/0 is missing"
    assert reasons[1].startswith("heatmap_scale/c/1 has 5 bytes, expected ")
    assert "commits/00000003.jsonl is damaged" in reasons[3]
    assert "commits/00000004.jsonl is of another run" in reasons[4]


def test_a_shard_that_another_process_has_done_is_not_done_again(reference, tmp_path):
    plan, _ = reference
    store = runs.Store(tmp_path)
    fingerprint = runs.open_manifest(store, plan)
    worker = runs.Worker(plan)
    assert commit(store, fingerprint, worker.process_shard(3))
    before = contents(tmp_path)
    # A second commit touches nothing: not even the maps.
    changed = Part(3, dict.fromkeys(worker.process_shard(3).objects, b"other"), ())
    assert not commit(store, fingerprint, changed)
    assert contents(tmp_path) == before
    worker.close()


def test_three_stripes_store_what_one_writer_stores(reference, tmp_path):
    plan, whole = reference
    store = runs.Store(tmp_path)
    fingerprint = runs.open_manifest(store, plan)
    worker = runs.Worker(plan)
    for shard in (*range(0, plan.shards, 3), *range(1, plan.shards, 3)):
        commit(store, fingerprint, worker.process_shard(shard))
    worker.close()
    assert runs.run_local(plan, store, shards=(2, 3)) == (2, 2)
    assert contents(tmp_path) == whole


def test_a_stripe_goes_on_with_what_the_others_left(reference, tmp_path):
    plan, whole = reference
    assert runs.run_local(plan, runs.Store(tmp_path), shards=(1, 3)) == (plan.shards,) * 2
    assert contents(tmp_path) == whole


@pytest.mark.skipif(not SLOW, reason="DMBP_SLOW_TESTS=1 runs it")
def test_any_number_of_devices_stores_the_same(tmp_path):
    """Eight simulated devices against one, both with one image at a time on each."""
    write_pictures(tmp_path / "in", 22)
    methods = [("gradient", {"method": "gradient", "config": None}), ("dmbp", {})]
    script = (
        "import sys; from pathlib import Path\n"
        "from small_runs import small_plan, contents\n"
        "from dmbp_jax import runs\n"
        f"for name, plan in {methods}:\n"
        "    plan = small_plan(Path('in'), shard_size=8, **plan)\n"
        "    runs.run_local(plan, runs.Store(f'{name}-out'), batch_size=1)\n"
        "    print({k: v for k, v in contents(Path(f'{name}-out')).items() if 'man' not in k})\n"
    )
    stored = []
    for count in (8, 1):
        flags = f"--xla_force_host_platform_device_count={count}"
        environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(SUPPORT)}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        stored.append(done.stdout)
        for name, _ in methods:
            (tmp_path / f"{name}-out").rename(tmp_path / f"{name}-{count}")
    assert stored[0] == stored[1]


def test_stripes_cover_every_shard_and_begin_with_their_own():
    for shards, n in [(7, 3), (1, 4), (12, 1), (0, 2)]:
        orders = [stripe(shards, i, n) for i in range(n)]
        assert all(sorted(order) == list(range(shards)) for order in orders)
        own = [order[: len(range(i, shards, n))] for i, order in enumerate(orders)]
        assert sorted(shard for order in own for shard in order) == list(range(shards))


def test_claiming_asks_again_before_each_shard(tmp_path):
    store = runs.Store(tmp_path)
    store.put("commits/00000002.jsonl", b"")
    shards = unfinished(store, [1, 4, 2, 0])
    assert next(shards) == 1
    store.put("commits/00000004.jsonl", b"")  # by another process, meanwhile
    assert list(shards) == [0]


def test_stripes_of_schedulers():
    assert find_stripe({}) == (0, 1)
    slurm = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4"}
    slurm |= {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}
    assert find_stripe(slurm) == (3, 4)
    pod = {"JOB_COMPLETION_INDEX": "2"}
    assert find_stripe(pod | {"JOB_COMPLETIONS": "5"}) == (2, 5)
    with pytest.raises(InputError, match="JOB_COMPLETIONS: Expected the number of pods"):
        find_stripe(pod)
    assert parse_stripe("0/4") == (0, 4)
    for text in ("4/4", "1", "a/b", "-1/4", "0/0"):
        with pytest.raises(InputError, match="--shards: Expected i/n"):
            parse_stripe(text)


def test_committed_shards_are_listed_without_reading_them(tmp_path):
    store = runs.Store(tmp_path)
    for shard in (5, 0, 123456789):
        store.put(f"commits/{shard:08d}.jsonl", b"not even JSON")
    (tmp_path / "commits" / "00000007.jsonl.__lock").write_bytes(b"")
    assert committed(store) == {0, 5, 123456789}
