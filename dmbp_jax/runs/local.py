"""A large run in this process: decode ahead, explain on all local devices, commit behind."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from dmbp_jax.runs.manifest import open_manifest
from dmbp_jax.runs.plan import Plan
from dmbp_jax.runs.records import commit, committed, key_of
from dmbp_jax.runs.store import Store
from dmbp_jax.runs.stripes import claim, stripe
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
    order = stripe(plan.shards, *shards)
    open_shards = claim(order, committed(store), lambda k: store.get(key_of(k)) is not None)
    first = next(open_shards, None)
    if first is None:
        return Counts(0, 0)
    worker = Worker(plan, batch_size)
    writer = ThreadPoolExecutor(1, thread_name_prefix="commit")
    commits: list[bool] = []
    writing: Future[bool] | None = None
    try:
        for shard, ahead in _with_next(first, open_shards):
            part = worker.process_shard(shard, ahead, report)
            if writing is not None:
                commits.append(writing.result())
            writing = writer.submit(commit, store, fingerprint, part)
        if writing is not None:
            commits.append(writing.result())
    finally:
        worker.close()
        writer.shutdown(wait=True)  # a commit that has begun is finished, also when interrupted
    return Counts(len(commits), sum(commits))


def _with_next(shard: int, others: Iterator[int]) -> Iterator[tuple[int, int | None]]:
    """Each shard with the one after it."""
    while True:
        ahead = next(others, None)
        yield shard, ahead
        if ahead is None:
            return
        shard = ahead
