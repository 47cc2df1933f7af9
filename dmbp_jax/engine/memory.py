"""How many rows fit at once: the memory that is free, in a container and on every system too."""

from pathlib import Path

import jax
import psutil

from dmbp_jax.engine.batches import count_shards, equal_size
from dmbp_jax.graph.model import is_traced

_SHARE_OF_FREE = 0.6
_LARGEST_CHUNK = {"cpu": 16, "other": 256}
# Beyond, an image costs more, as less of a batch stays in the caches (docs/speed.md).
_MOST_BYTES_ON_CPU = 7 * 2**28
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (  # limit and use of a container's memory: version 2 of control groups, version 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def rows_at_once(rows: int, chunk_size: int | None, bytes_per_row: int, on: jax.Array) -> int:
    """Rows that one shard of a batch computes at once, of `rows` that it has, as `on` lies.

    `chunk_size` counts those of all shards; None takes as many as fit, in equal pieces. Inside a
    trace nothing is known of devices, and all are taken.
    """
    if chunk_size is not None:
        return min(rows, max(1, chunk_size // count_shards(on)))
    if is_traced(on) or not hasattr(on, "devices"):
        return rows
    devices = sorted(on.devices(), key=lambda device: device.id)
    platform = devices[0].platform
    usable = int(_SHARE_OF_FREE * min(_free_bytes(device) for device in devices))
    if platform == "cpu":  # its devices are simulated and share one memory
        usable = min(usable, _MOST_BYTES_ON_CPU) // len(devices)
    ceiling = _LARGEST_CHUNK.get(platform, _LARGEST_CHUNK["other"])
    each = max(1, min(usable // max(1, bytes_per_row), ceiling))
    return equal_size(rows, each)


def _free_bytes(device: jax.Device) -> int:
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return free_host_bytes()


def free_host_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory of the host that is free: what the system says, or less where a container ends."""
    free = psutil.virtual_memory().available
    for limit, used in _LIMITS:
        try:
            left = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
        free = min(free, max(0, left))
    return free
