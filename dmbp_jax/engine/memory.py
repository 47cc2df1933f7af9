"""How many images fit at once: a bytes-per-image model and the memory that is free."""

import math
import os
from collections.abc import Sequence

import jax

from dmbp_jax.graph.graph import Site
from dmbp_jax.graph.model import is_traced

# Per ReLU unit, in mask-sized values: θ and the optimiser's memory (2), both signs' values (2),
# cotangents in flight, gates and winners. Measured with `benchmarks/speed.py` on CPU: ResNet50
# 5.7 at batch 1 (adjoint kernels included) and 4.6 at batch 8, VGG16 6.0 and 5.0.
_VALUES_PER_UNIT = 6
_SHARE_OF_FREE = 0.6
_LARGEST_CHUNK = {"cpu": 16, "other": 256}
# Beyond, an image costs more, as less of a batch stays in the caches (docs/speed.md).
_MOST_BYTES_ON_CPU = 7 * 2**28


def bytes_per_image(relus: Sequence[Site]) -> int:
    """Device memory of one image in the loop, in bytes, rounded up."""
    return _VALUES_PER_UNIT * sum(4 * math.prod(site.shape) for site in relus)


def choose_chunk_size(x: jax.Array, relus: Sequence[Site]) -> int:
    """Images to optimise at once on the device of `x`."""
    batch = x.shape[0]
    if is_traced(x):
        return batch
    devices = sorted(x.devices(), key=lambda device: device.id)
    platform = devices[0].platform
    usable = int(_SHARE_OF_FREE * min(_free_bytes(device) for device in devices))
    if platform == "cpu":  # its devices are simulated and share one memory
        usable = min(usable, _MOST_BYTES_ON_CPU) // len(devices)
    ceiling = _LARGEST_CHUNK.get(platform, _LARGEST_CHUNK["other"])
    each = max(1, min(usable // bytes_per_image(relus), ceiling))
    # Equal pieces need little padding; a sharded batch stays whole on every device.
    images = -(-batch // len(devices))
    return len(devices) * -(-images // -(-images // each))


def _free_bytes(device: jax.Device) -> int:
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
