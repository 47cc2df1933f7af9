"""SIGKILL at system calls and at random: after going on, every row once, and the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small_runs import contents, small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.runs.records import committed

pytestmark = pytest.mark.slow
SLOW = bool(os.environ.get("DMBP_SLOW_TESTS"))
SCRIPT = Path(__file__).parents[1] / "support" / "killed_run.py"
SHARDS = 8
CALLS = {
    "rename": "rename,renameat,renameat2",
    "fsync": "fsync,fdatasync",
    "openat": "openat",
    "write": "write,pwrite64,writev",
}
# strace counts the calls of each thread by itself: the first thread to get there ends the process.
POINTS = [("rename", 4), ("fsync", 8), ("openat", 15), ("write", 8)]
STEPS = {"rename": 1, "fsync": 2, "openat": 4, "write": 2}  # of the slow test, which tries them all

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or sys.platform != "linux", reason="needs strace"
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Pictures, their plan, and what an uninterrupted run stores."""
    folder = tmp_path_factory.mktemp("kill")
    plan = small_plan(write_pictures(folder / "in", 4 * SHARDS - 1))
    runs.run_local(plan, runs.Store(folder / "whole"))
    return folder / "in", plan, contents(folder / "whole")


class Killed:
    """A run in another process that is compiled and waits for its start."""

    def __init__(self, pictures: Path, out: Path) -> None:
        command = [sys.executable, str(SCRIPT), str(pictures), str(out)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(SCRIPT.parent)}, **pipes
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self) -> None:
        with suppress(BrokenPipeError):  # killed at a call of a thread that did not wait
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def finish(self) -> tuple[int, list[int]]:
        """Exit status, and the shards it has explained."""
        said, _ = self.process.communicate()
        explained, _, won = said.partition("won")
        self.won = int(won.strip() or 0)  # the kill may come within this line
        return self.process.returncode, [int(one) for one in explained.split()]


def killed_at(pictures: Path, out: Path, call: str, number: int) -> tuple[int, list[int]]:
    """A run killed at the `number`-th of these system calls."""
    one = Killed(pictures, out)
    inject = f"inject={CALLS[call]}:signal=KILL:when={number}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-e", f"trace={CALLS[call]}", "-e", inject, "-p", str(one.process.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    if "attached" not in (line := tracer.stderr.readline()):
        one.process.kill()
        one.process.communicate()
        pytest.skip(f"tracing is not permitted here: {line}")
    one.start()
    result = one.finish()
    tracer.communicate()
    return result


def check_going_on(reference, out: Path, explained: list[int]) -> None:
    """What the killed run left is sound, and going on completes it to the same bytes."""
    _, plan, whole = reference
    store = runs.Store(out)
    done = committed(store)
    assert len(explained) == len(set(explained))
    assert len(set(explained) - done) <= 2  # one being written, one just explained
    if done:
        assert runs.open(out).verify() == []
    counts = runs.run_local(plan, store)
    assert counts == (SHARDS - len(done), SHARDS - len(done))
    assert contents(out) == whole
    run = runs.open(out)
    rows = [(row["file"], row["label"]) for row in run.rows]
    assert len(rows) == len(set(rows)) == len(plan.inputs)
    assert run.verify() == []


@needs_strace
@pytest.mark.parametrize(("call", "number"), POINTS)
def test_killed_at_a_system_call(reference, tmp_path, call, number):
    status, explained = killed_at(reference[0], tmp_path / "out", call, number)
    assert status == -signal.SIGKILL
    check_going_on(reference, tmp_path / "out", explained)


@needs_strace
@pytest.mark.skipif(not SLOW, reason="DMBP_SLOW_TESTS=1 runs it")
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_nth_system_call(reference, tmp_path, call):
    """From the first call on, in steps, until a run gets through."""
    number, points = 1, 0
    while True:
        out = tmp_path / str(number)
        status, explained = killed_at(reference[0], out, call, number)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        check_going_on(reference, out, explained)
        points += 1
        number += STEPS[call]
    print(f"{call}: {points} kills, the last call was before {number}")
    assert points >= 5


@pytest.mark.parametrize("seed", range(20 if SLOW else 1))
def test_killed_at_random(reference, tmp_path, seed):
    one = Killed(reference[0], tmp_path / "out")
    one.start()
    time.sleep(random.Random(seed).uniform(0, 0.8))
    one.process.kill()
    _, explained = one.finish()
    check_going_on(reference, tmp_path / "out", explained)


@pytest.mark.skipif(not SLOW, reason="DMBP_SLOW_TESTS=1 runs it")
def test_three_processes_commit_every_shard_once(reference, tmp_path):
    pictures, _, whole = reference
    processes = [Killed(pictures, tmp_path / "out") for _ in range(3)]
    for one in processes:
        one.start()
    explained = [one.finish() for one in processes]
    assert [status for status, _ in explained] == [0, 0, 0]
    assert sum(one.won for one in processes) == SHARDS
    print(f"explained {[len(shards) for _, shards in explained]} of {SHARDS} shards")
    assert contents(tmp_path / "out") == whole
    assert runs.open(tmp_path / "out").verify() == []
