"""How fast a step could be: FLOPs and bytes that no implementation avoids, and the device's peaks.

FLOPs are those of the three passes. Bytes count every value once per pass that must touch it, as
if everything elementwise were fused into the convolution beside it.
"""

import math
import time

import jax
import jax.numpy as jnp

import dmbp_jax

_MASK = 4  # bytes of θ, and of the optimiser's memory: float32 whatever the activations are
_GATE = 1  # bytes of a boolean gate


def bytes_per_step(
    network: dmbp_jax.Network, x: jax.Array, activation: int, weight_bytes: int
) -> int:
    """Bytes that one step of the batch x reads and writes at least.

    Per ReLU unit, with activations of `activation` bytes: both forwards write and read its value
    (4 activations) and read θ and gate; the backward writes and reads its cotangent and reads the
    value of the sign that pulls (3 activations), θ and gate; the update writes θ and reads and
    writes the optimiser's memory. Weights are read once forwards and once backwards.
    """
    forward = 4 * activation + _MASK + _GATE
    backward = 3 * activation + _MASK + _GATE
    update = 3 * _MASK
    units = sum(math.prod(site.shape) for site in dmbp_jax.sites(network, x) if site.kind == "relu")
    return len(x) * units * (forward + backward + update) + 2 * weight_bytes


def measure_peaks(dtype: str = "float32", precision: str | None = None) -> tuple[float, float]:
    """(FLOP/s of a large matrix product, bytes/s of a large copy) on the first device, now."""
    cpu = jax.devices()[0].platform == "cpu"
    size, length = (2048, 1 << 25) if cpu else (8192, 1 << 30)
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    vector = jnp.zeros(length, jnp.float32)
    with jax.default_matmul_precision(precision):
        product = jax.jit(lambda a: a @ a).lower(matrix).compile()
    copy = jax.jit(lambda a: a + 1).lower(vector).compile()
    return (
        2 * size**3 / min(_seconds(product, matrix) for _ in range(5)),
        2 * vector.nbytes / min(_seconds(copy, vector) for _ in range(5)),
    )


def _seconds(function: jax.stages.Compiled, argument: jax.Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(argument))
    return time.perf_counter() - begin
