"""The worker: loads and compiles once, then turns shards of a plan into parts. Touches no store.

Every batch has the same shape, so that it compiles once, and lies on all local devices. Pictures
are decoded in threads while these work, also those of the shard that comes next.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dmbp_jax.checks import check_count
from dmbp_jax.data.decoding import read_image
from dmbp_jax.engine.batches import collect_rows
from dmbp_jax.errors import DeviceMemoryError, ImageError
from dmbp_jax.runs import arrays
from dmbp_jax.runs.explaining import Scored, explain_images, score
from dmbp_jax.runs.manifest import array_layout
from dmbp_jax.runs.plan import Plan
from dmbp_jax.runs.records import FAILED, OK, Part, Row, new_row

BATCH_SIZE = 8  # images a device explains at once, unless told otherwise
_THREADS = min(8, os.cpu_count() or 1)
_NOT_FINITE = "the network's numbers overflow on this picture"


class Decoded(NamedTuple):
    """The network's input, with the hash of the file; or the reason why there is none."""

    x: np.ndarray | None
    hash: str | None
    error: str | None


class Done(NamedTuple):
    """What a worker reports after every batch."""

    rows: int
    failed: int
    busy: float  # seconds that the devices worked


class Worker:
    """Explains the shards of a plan, in any order.

    Args:
      plan: what to do.
      batch_size: images each local device explains at once; None is 8, or fewer for short shards.

    Raises:
      InputError, InputTypeError: `batch_size` below 1, or not an integer.
    """

    def __init__(self, plan: Plan, batch_size: int | None = None) -> None:
        if batch_size is not None:
            check_count(batch_size, "batch_size")
        self.plan = plan
        devices = jax.local_device_count()
        longest = -(-len(plan.rows(0)) // devices)  # rows of a shard for each device
        self._batch = devices * min(batch_size or BATCH_SIZE, longest)
        self._net = jax.device_put(plan.network, _on_devices())
        self._encoder = arrays.ShardEncoder(array_layout(plan))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
        self._ahead: dict[int, Future[Decoded]] = {}

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def process_shard(
        self,
        shard: int,
        ahead: int | None = None,
        report: Callable[[Done], None] = lambda done: None,
    ) -> Part:
        """Explain the rows of a shard.

        Args:
          shard: its number.
          ahead: the shard that comes next, whose pictures are decoded in the meantime.
          report: called after every batch.

        Returns:
          Encoded maps and rows. A picture that cannot be decoded, or on which the network's
          numbers are not finite, is a row with status "failed" and the reason, and a map of NaN.

        Raises:
          DmbpError: the method refuses the network, or the device ran out of memory.
        """
        rows = self.plan.rows(shard)
        maps = {
            name: np.full((len(rows), *self.plan.map_shape(name)), np.nan, np.float32)
            for name in self.plan.save
        }
        table: dict[int, Row] = {}
        for group in self._batches(shard, ahead):
            table |= {row: self._row(row, one) for row, one in group}
            readable = [(row, one) for row, one in group if one.x is not None]
            busy = 0.0
            if readable:
                began = time.perf_counter()
                results = self._explain(readable)
                busy = time.perf_counter() - began
                for place, (row, _) in enumerate(readable):
                    table[row] |= _outcome(results, place)
                    if results.finite[place]:
                        for name, values in maps.items():
                            values[row - rows.start] = results.maps[name][place]
            failed = sum(table[row]["status"] != OK for row, _ in group)
            report(Done(len(group), failed, busy))
        return Part(shard, self._encoder.encode(shard, maps), tuple(table[row] for row in rows))

    def _batches(self, shard: int, ahead: int | None) -> Iterator[list[tuple[int, Decoded]]]:
        """Groups of rows with `_batch` readable pictures each, the last with what is left."""
        group: list[tuple[int, Decoded]] = []
        readable = 0
        for row, decoded in self._decode(shard, ahead):
            group.append((row, decoded))
            readable += decoded.x is not None
            if readable == self._batch:
                yield group
                group, readable = [], 0
        if group:
            yield group

    def _decode(self, shard: int, ahead: int | None) -> Iterator[tuple[int, Decoded]]:
        """The pictures of a shard in order, with two batches decoded or being decoded ahead."""
        own = self.plan.rows(shard)
        order = [*own, *(self.plan.rows(ahead) if ahead is not None else ())]
        wanted = set(order)
        for row in [row for row in self._ahead if row not in wanted]:
            self._ahead.pop(row).cancel()
        for place, row in enumerate(own):
            for coming in order[place : place + 1 + 2 * self._batch]:
                if coming not in self._ahead:
                    self._ahead[coming] = self._pool.submit(self._decode_one, coming)
            yield row, self._ahead.pop(row).result()

    def _decode_one(self, row: int) -> Decoded:
        path = self.plan.inputs.path(row)
        try:
            picture, digest = read_image(path)
            return Decoded(self.plan.network.preprocess(picture), digest, None)
        except ImageError as error:
            return Decoded(None, None, " ".join(str(error).removeprefix(f"{path}: ").split()))

    def _explain(self, readable: list[tuple[int, Decoded]]) -> Scored:
        """One batch, filled up to the size that is compiled."""
        rows = ((row, (one.x, row, one.hash)) for row, one in readable)
        (batch,) = collect_rows(rows, self._batch)
        x, numbers, identities = batch.rows
        labels = [self.plan.inputs.labels[row] for row in numbers]
        plan, options = self.plan, self.plan.options
        if plan.method == "dmbp":
            options = {**options, "chunk_size": self._batch}
        try:
            found = explain_images(
                self._net,
                jax.device_put(x, _on_devices("batch")),
                labels,
                method=plan.method,
                options=options,
                identities=identities.tolist(),
            )
            return score(self._net, found, plan.save)
        except DeviceMemoryError as error:
            each = self._batch // jax.local_device_count()
            raise DeviceMemoryError(
                f"The device ran out of memory with {each} images at once; pass a smaller "
                f"batch_size (--batch-size), for instance {max(1, each // 2)}."
            ) from error

    def _row(self, row: int, one: Decoded) -> Row:
        """What is known of a row before it is explained."""
        status = OK if one.error is None else FAILED
        return new_row(self.plan.inputs, row, status, one.error) | {"sha256": one.hash}


def _outcome(results: Scored, place: int) -> Row:
    """What one image of a batch adds to its row."""
    if not results.finite[place]:
        return {"status": FAILED, "error": _NOT_FINITE}
    # The shortest digits that give the same float32 again.
    written = {
        name: float(str(np.float32(values[place]))) for name, values in results.numbers.items()
    }
    return written | {"label": int(results.label[place])}


def _on_devices(*axes: str) -> NamedSharding:
    """On every local device, whole or with the first axis cut."""
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    return NamedSharding(mesh, PartitionSpec(*axes))
