"""Time the insertion metric on real photos, beside as many plain forward passes of the network.

    python -m benchmarks insertion [--photos 24] [--points 65]

SqueezeNet v1.0; its weights lie outside the repository, see
`benchmarks/faithfulness/real_networks.py`.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import dmbp_jax
from benchmarks.faithfulness import real_networks
from dmbp_jax.methods import METHODS

CHUNK = 32
ROUNDS = 8


def main() -> None:
    """Print seconds with compilation (first call) and without, and what the metric adds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--points", type=int, default=65)
    options = parser.parse_args()
    params, apply_fn, preprocess = real_networks.squeezenet()
    paths, labels = real_networks.photos()
    paths, labels = paths[: options.photos], labels[: options.photos]
    x = jnp.stack([jnp.asarray(preprocess(path)) for path in paths])
    heatmap = METHODS["gradient"](params, x, labels, apply_fn=apply_fn)

    def metric() -> Any:
        return dmbp_jax.metrics.insertion(
            params, x, labels, heatmap, apply_fn=apply_fn, points=options.points, chunk_size=CHUNK
        ).auc

    forward = jax.jit(apply_fn)
    batch = jnp.resize(x, (CHUNK, *x.shape[1:]))
    jax.block_until_ready(forward(params, batch))
    passes = len(x) * options.points
    first, again = seconds(metric), seconds(metric)
    plain = seconds(lambda: [forward(params, batch) for _ in range(ROUNDS)]) / (ROUNDS * CHUNK)
    print(f"{len(x)} photos x {options.points} points = {passes} forward passes of SqueezeNet v1.0")
    print(f"insertion, first call   {first:6.1f} s")
    print(f"insertion, second call  {again:6.1f} s = {1e3 * again / passes:.1f} ms a pass")
    print(f"plain forward           {1e3 * plain:6.1f} ms a picture, {CHUNK} at once")


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock time of one call, results included."""
    begin = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
