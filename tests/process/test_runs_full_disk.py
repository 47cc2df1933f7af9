"""A run on a full or read-only disk stops with one line, loses nothing committed, and goes on."""

import signal

import jax
import pytest
from small_runs import (
    contents,
    remount,
    small_disk,
    small_plan,
    tiny_network,
    write_pictures,
)

from dmbp_jax import runs
from dmbp_jax.cli import main
from dmbp_jax.errors import StoreFullError, StoreReadOnlyError

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(("size", "words"), [("64k", "no space is left"), (None, "written")])
def test_the_command_says_so_in_one_line(tmp_path, monkeypatch, capsys, size, words):
    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda *_: tiny_network())
    before = jax.config.jax_enable_compilation_cache
    handler = signal.getsignal(signal.SIGTERM)
    write_pictures(tmp_path / "in", 40)
    argv = ["run", str(tmp_path / "in"), "--steps", "2", "--shard-size", "4", "--quiet"]
    with small_disk(tmp_path / "disk", size or "4m") as folder:
        if size is None:
            remount(folder, "ro")
        out = str(folder / "out")
        try:
            line = [*argv, "--save", "map", "--dtype", "float32", "--no-compilation-cache"]
            assert main([*line, "-o", out]) == 2
        finally:
            jax.config.update("jax_enable_compilation_cache", before)
            signal.signal(signal.SIGTERM, handler)
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
        assert "the same command goes on where it stopped" in err.lower()


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
