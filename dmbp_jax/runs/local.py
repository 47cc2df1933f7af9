"""A large run in this process: decode ahead, explain on all local devices, commit behind.

Processes of a job array need not know of each other: each takes its own stripe of the shards first,
then whatever nobody has done; the store tells what is done.
"""

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from dmbp_jax.errors import InputError
from dmbp_jax.runs.manifest import open_manifest
from dmbp_jax.runs.plan import Plan
from dmbp_jax.runs.records import commit, unfinished
from dmbp_jax.runs.store import Store
from dmbp_jax.runs.worker import Done, Worker


class Counts(NamedTuple):
    """What one process did."""

    processed: int  # shards
    committed: int  # of them, those whose record counts; another writer made the others


def run_local(
    plan: Plan,
    store: Store,
    *,
    shards: tuple[int, int] = (0, 1),
    batch_size: int | None = None,
    report: Callable[[Done], None] = lambda done: None,
) -> Counts:
    """Do every shard that is not done yet.

    Args:
      plan, store: what to do, and where the results go.
      shards: (i, n): this is process i of n; it takes every n-th shard first.
      batch_size: images each device explains at once.
      report: called after every batch.

    Raises:
      ResumeError: the store holds another run.
      StoreError: it cannot be read or written; what was committed stays.
      DmbpError: the method refuses the network, or the device ran out of memory.
    """
    fingerprint = open_manifest(store, plan)
    shards_to_do = unfinished(store, stripe(plan.shards, *shards))
    shard = next(shards_to_do, None)
    if shard is None:
        return Counts(0, 0)
    worker = Worker(plan, batch_size)
    writer = ThreadPoolExecutor(1, thread_name_prefix="commit")
    commits: list[Future[bool]] = []
    try:
        while shard is not None:
            ahead = next(shards_to_do, None)
            part = worker.process_shard(shard, ahead, report)
            if commits:
                commits[-1].result()  # no more than one shard waits to be written
            commits.append(writer.submit(commit, store, fingerprint, part))
            shard = ahead
        return Counts(len(commits), sum(one.result() for one in commits))
    finally:
        worker.close()
        writer.shutdown(wait=True)  # a commit that has begun is finished, also when interrupted


def stripe(shards: int, i: int, n: int) -> list[int]:
    """The order in which process i of n takes shards.

    Its own, every n-th from i; then those of the others, from the last backwards, since their
    owners come from the front.

    Example:
      >>> stripe(7, 1, 3)
      [1, 4, 6, 5, 3, 2, 0]
    """
    return [*range(i, shards, n), *(k for k in reversed(range(shards)) if k % n != i)]


def parse_stripe(text: str) -> tuple[int, int]:
    """`i/n` with 0 <= i < n."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    i, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not i < n:
        raise InputError(f"--shards: Expected i/n with 0 <= i < n, such as 0/4, got {text!r}.")
    return i, n


def find_stripe(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The stripe of this process by the variables of Slurm or Kubernetes; (0, 1) without them.

    Kubernetes does not tell the number of its pods: the job has to set `JOB_COMPLETIONS`.
    """
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        count = environment.get("SLURM_ARRAY_TASK_COUNT", "1")
        return parse_stripe(f"{(int(task) - first) // step}/{count}")
    if index := environment.get("JOB_COMPLETION_INDEX"):
        count = environment.get("JOB_COMPLETIONS")
        if count is None:
            raise InputError(
                "JOB_COMPLETIONS: Expected the number of pods beside JOB_COMPLETION_INDEX, got "
                "none; set it in the job, or pass --shards i/n."
            )
        return parse_stripe(f"{index}/{count}")
    return 0, 1
