"""The worker: loads and compiles once, then turns shards of a plan into parts. Touches no store.

Every batch has the same shape, so that it compiles once, and lies on all local devices. Pictures
are read in threads while these work, also those of the shard that comes next.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dmbp_jax.checks import check_count
from dmbp_jax.data.decoding import read_image
from dmbp_jax.data.loading import ReadAhead, reason
from dmbp_jax.engine.batches import Batch, collect_rows
from dmbp_jax.errors import DeviceMemoryError, ImageError
from dmbp_jax.runs.arrays import encode_shard
from dmbp_jax.runs.explaining import explain_images, score
from dmbp_jax.runs.manifest import array_layout
from dmbp_jax.runs.plan import Plan
from dmbp_jax.runs.records import FAILED, OK, Part, Row, new_row

BATCH_SIZE = 8  # images a device explains at once, unless told otherwise
_THREADS = min(8, os.cpu_count() or 1)
_NOT_FINITE = "the network's numbers overflow on this picture"


class Done(NamedTuple):
    """What a worker reports after every batch, and after every picture that cannot be read."""

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
        self._ahead: dict[int, ReadAhead[int, Any]] = {}  # pictures of the shard that comes next

    def close(self) -> None:
        """Stop the threads."""
        for pictures in self._ahead.values():
            pictures.close()
        self._ahead.clear()

    def process_shard(
        self,
        shard: int,
        ahead: int | None = None,
        report: Callable[[Done], None] = lambda done: None,
    ) -> Part:
        """Explain the rows of a shard.

        Args:
          shard: its number.
          ahead: the shard that comes next, whose pictures are read in the meantime.
          report: called after every batch.

        Returns:
          Encoded maps and rows. A picture that cannot be decoded, or on which the network's
          numbers are not finite, is a row with status "failed" and the reason, and a map of NaN.

        Raises:
          DmbpError: the method refuses the network, or the device ran out of memory.
        """
        pictures = self._ahead.pop(shard, None) or self._read_ahead(shard)
        self.close()
        if ahead is not None:
            self._ahead[ahead] = self._read_ahead(ahead)
        rows, inputs = self.plan.rows(shard), self.plan.inputs
        table: dict[int, Row] = {}
        maps = {
            name: np.full((len(rows), *self.plan.map_shape(name)), np.nan, np.float32)
            for name in self.plan.save
        }

        def readable() -> Iterator[tuple[tuple[int, str], Any]]:
            for row, one in pictures:
                if isinstance(one, ImageError):
                    table[row] = new_row(inputs, row, FAILED, reason(one, inputs.path(row)))
                    report(Done(1, 1, 0.0))
                else:
                    x, digest = one
                    yield (row, digest), x

        with pictures:
            for batch in collect_rows(readable(), self._batch):
                began = time.perf_counter()
                found, made = self._explain(batch)
                busy = time.perf_counter() - began
                for i, (row, digest) in enumerate(batch.items):
                    numbers = found[i] or {"status": FAILED, "error": _NOT_FINITE}
                    table[row] = new_row(inputs, row, OK) | numbers | {"sha256": digest}
                    if found[i] is not None:
                        for name, values in maps.items():
                            values[row - rows.start] = made[name][i]
                report(Done(batch.count, found[: batch.count].count(None), busy))
        objects = encode_shard(array_layout(self.plan), shard, maps)
        return Part(shard, objects, tuple(table[row] for row in rows))

    def _read_ahead(self, shard: int) -> ReadAhead[int, Any]:
        """The pictures of a shard as (x, SHA-256 of the file), two batches ahead."""

        def read(row: int) -> tuple[np.ndarray, str]:
            picture, digest = read_image(self.plan.inputs.path(row))
            return self.plan.network.preprocess(picture), digest

        return ReadAhead(self.plan.rows(shard), read, _THREADS, 2 * self._batch)

    def _explain(self, batch: Batch) -> tuple[list[dict[str, Any] | None], dict[str, np.ndarray]]:
        """What is stored of a batch, of the size that is compiled."""
        plan, options = self.plan, self.plan.options
        if plan.method == "dmbp":
            options = {**options, "chunk_size": self._batch}
        try:
            found = explain_images(
                self._net,
                jax.device_put(batch.rows, _on_devices("batch")),
                [plan.inputs.labels[row] for row, _ in batch.items],
                method=plan.method,
                options=options,
                identities=[digest for _, digest in batch.items],
            )
            return score(self._net, found, plan.save)
        except DeviceMemoryError as error:
            each = self._batch // jax.local_device_count()
            raise DeviceMemoryError(
                f"The device ran out of memory with {each} images at once; pass a smaller "
                f"batch_size (--batch-size), for instance {max(1, each // 2)}."
            ) from error


def _on_devices(*axes: str) -> NamedSharding:
    """On every local device, whole or with the first axis cut."""
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    return NamedSharding(mesh, PartitionSpec(*axes))
