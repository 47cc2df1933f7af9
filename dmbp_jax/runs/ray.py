"""A large run on Ray: one actor for each GPU, compiled once, restarted when it is lost.

Actors, because Ray ends the process of a task that used a GPU, and the next would compile again.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dmbp_jax.checks import check_count
from dmbp_jax.errors import DmbpError, InputError
from dmbp_jax.runs.local import Counts
from dmbp_jax.runs.manifest import open_manifest
from dmbp_jax.runs.plan import Plan
from dmbp_jax.runs.records import commit, key_of, unfinished
from dmbp_jax.runs.store import Store
from dmbp_jax.runs.worker import Done, Worker

_LOSSES = 5  # of actors over one shard; a picture that kills its process must not do so forever


class WorkerLostError(DmbpError, RuntimeError):
    """The process of a worker ended again and again over the same shard."""


class _Actor:
    """A worker in a process of its own, which commits what it made.

    It loads on first use, not when it is made: an error then reaches the caller as it is.
    """

    def __init__(self, plan: Plan, store: Store, batch_size: int | None) -> None:
        self._plan, self._store, self._batch_size = plan, store, batch_size
        self._worker: Worker | None = None
        self._fingerprint = ""

    def ready(self) -> bool:
        """Accept the manifest and load, once in the life of the process."""
        if self._worker is None:
            self._fingerprint = open_manifest(self._store, self._plan)
            self._worker = Worker(self._plan, self._batch_size)
        return True

    def process(self, shard: int, ahead: int | None) -> tuple[bool, list[Done]]:
        """Explain and commit a shard: whether its record counts, and what the batches report."""
        self.ready()
        assert self._worker is not None
        if self._store.get(key_of(shard)) is not None:  # done by the process that was lost
            return False, []
        batches: list[Done] = []
        part = self._worker.process_shard(shard, ahead, batches.append)
        return commit(self._store, self._fingerprint, part), batches


def run_ray(
    plan: Plan,
    store: Store,
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    report: Callable[[Done], None] = lambda done: None,
) -> Counts:
    """Do every shard that is not done yet, on the actors of a Ray cluster.

    Joins the cluster that `RAY_ADDRESS` names, or starts one on this machine.

    Args:
      plan, store: what to do, and where the results go.
      workers: actors; None is one for each GPU of the cluster, or one without GPUs.
      batch_size: images each device explains at once.
      report: called for every batch of a shard that was committed.

    Raises:
      InputError: Ray is not installed; `workers` below 1 or more than the cluster can run; a path
        as store on a cluster of several nodes.
      WorkerLostError: a worker's process ended repeatedly over the same shard.
      ResumeError, StoreError, DmbpError: as `run_local`.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("engine: Expected Ray to be installed: pip install 'dmbp-jax[ray]'.")
    import ray

    if workers is not None:
        check_count(workers, "workers")
    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    actors: list[Any] = []
    try:
        check_place(store, sum(node["Alive"] for node in ray.nodes()))
        resources = ray.cluster_resources()
        shared = ray.put(plan)  # held here until the end: an actor that restarts reads it again
        actors += _start(shared, store, batch_size, workers, resources)
        ray.get([actor.ready.remote() for actor in actors])
        return _share_out(actors, unfinished(store, range(plan.shards)), report)
    except ray.exceptions.RayActorError as error:
        raise _cause(error) or WorkerLostError(
            f"A worker's process was lost {_LOSSES + 1} times over one shard, or could not start; "
            "out of memory, or a picture that ends the process?"
        ) from error
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) or error from None
    finally:
        for actor in actors:
            ray.kill(actor)
        if started:
            ray.shutdown()


def check_place(store: Store, nodes: int) -> None:
    """Refuse a path where the nodes would each write to a disk of their own."""
    if store.folder is not None and nodes > 1:
        raise InputError(
            f"store: Expected s3://… or gs://… on a cluster of {nodes} nodes, got the path "
            f"{store.url}: each node would write to its own disk."
        )


def _start(
    shared: Any,
    store: Store,
    batch_size: int | None,
    workers: int | None,
    resources: Mapping[str, float],
) -> list[Any]:
    """The actors, one for each GPU; on CPUs as many as asked for."""
    import ray

    gpus = int(resources.get("GPU", 0))
    kind, most = ("GPU", gpus) if gpus else ("CPU", int(resources.get("CPU", 1)))
    count = workers or gpus or 1
    if count > most:
        raise InputError(f"workers: Expected at most {most}, one for each {kind}, got {count}.")
    remote = ray.remote(max_restarts=-1, max_task_retries=_LOSSES)(_Actor)
    each = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    return [remote.options(**each).remote(shared, store, batch_size) for _ in range(count)]


def _share_out(actors: list[Any], shards: Iterator[int], report: Callable[[Done], None]) -> Counts:
    """Hand the shards out one by one; every actor knows its next one, to decode it ahead."""
    import ray

    reserved = {actor: next(shards, None) for actor in actors}
    pending: dict[Any, Any] = {}

    def submit(actor: Any) -> None:
        shard = reserved[actor]
        if shard is not None:
            reserved[actor] = next(shards, None)
            pending[actor.process.remote(shard, reserved[actor])] = actor

    for actor in actors:
        submit(actor)
    processed = won = 0
    while pending:
        (finished,), _ = ray.wait(list(pending), num_returns=1)
        actor = pending.pop(finished)
        counts, batches = ray.get(finished)
        submit(actor)
        processed, won = processed + 1, won + counts
        for done in batches:
            report(done)
    return Counts(processed, won)


def _cause(error: Exception) -> DmbpError | None:
    """The error of ours that a remote process met."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(cause := getattr(seen, "cause", None), DmbpError):
            return cause
        if isinstance(seen, DmbpError) and type(seen).__module__.startswith("dmbp_jax"):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None
