"""A run on a full or read-only disk stops with one line, loses nothing committed, and goes on."""

import pytest
from small_runs import contents, remount, small_disk, small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.errors import StoreFullError, StoreReadOnlyError

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def mounted(tmp_path):
    with small_disk(tmp_path / "small", "96k") as folder:
        yield folder


def test_a_full_disk_stops_the_run_and_more_room_finishes_it(mounted, tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 60), save="map", dtype="float32")
    runs.run_local(plan, runs.Store(tmp_path / "whole"))
    store = runs.Store(mounted / "out")
    with pytest.raises(StoreFullError, match="no space is left"):
        runs.run_local(plan, store)
    run = runs.open(mounted / "out")
    done = len(run) - len(run.missing)
    assert 0 < done < len(run)
    assert run.verify() == []
    remount(mounted, "size=4m")
    counts = runs.run_local(plan, store)
    assert counts.processed == plan.shards - done // plan.shard_size
    assert contents(mounted / "out") == contents(tmp_path / "whole")


def test_a_read_only_store_stops_the_run_at_once_and_can_be_read(mounted, tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 6))
    runs.run_local(plan, runs.Store(mounted / "out"))
    runs.Store(mounted / "out").delete("commits/00000001.jsonl")
    remount(mounted, "ro")
    with pytest.raises(StoreReadOnlyError, match="may not be written"):
        runs.run_local(plan, runs.Store(mounted / "out"))
    with pytest.raises(StoreReadOnlyError):
        runs.run_local(plan, runs.Store(mounted / "new"))
    run = runs.open(mounted / "out")
    assert run.missing == [4, 5]
    assert run.verify() == []
    assert run.maps()["003.png"].shape == (16, 16)
