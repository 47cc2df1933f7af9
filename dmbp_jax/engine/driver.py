"""The driver: rows in memory → equal pieces → device(s) → results.

`attribute`, the compared methods, the metrics, the command line, the experiments and the large
runs are its callers.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.engine.batches import Cut, count_shards, equal_size
from dmbp_jax.engine.compiling import run
from dmbp_jax.engine.explainer import Explainer
from dmbp_jax.engine.memory import rows_at_once
from dmbp_jax.engine.programs import find
from dmbp_jax.errors import DeviceMemoryError
from dmbp_jax.graph.model import is_traced


def explain(
    explainer: Explainer,
    rows: Any,
    *,
    chunk_size: int | None = None,
    progress: str | None = None,
) -> Any:
    """The results for arrays in memory, `chunk_size` rows at a time; they lie where the rows do.

    Args:
      explainer, rows: what is computed, and of what: a pytree with the batch on axis 0.
      chunk_size: rows at once, of all devices together and at least one on each; None takes as
        many as fit.
      progress: title of a bar over the steps, or None; ignored inside a trace.
    """
    cut = _cut(jax.tree.leaves(rows)[0], chunk_size, explainer.bytes_per_row)
    if is_traced((explainer, rows)):
        if cut.pieces == 1:
            return run(explain_traced, explainer, rows)
        pieces = jnp.arange(cut.pieces)
        each = jax.lax.map(lambda i: explain_traced(explainer, cut.piece(rows, i)), pieces)
        return cut.join(each)
    with (
        _progress_bar(progress, cut.pieces * explainer.steps) as bar,
        _memory_errors(chunk_size or cut.shards * cut.size),
    ):
        on_steps = None if bar is None else bar.update
        if cut.pieces == 1:
            return jax.block_until_ready(explain_batch(explainer, rows, on_steps))
        results, on_host = None, []
        for index in range(cut.pieces):  # results leave the device before the next piece starts
            piece = run(_piece, rows, np.int32(index), cut=cut)
            results = explain_batch(explainer, piece, on_steps)
            on_host.append(jax.tree.map(np.asarray, results))
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *on_host)
        return jax.tree.map(_put_like, cut.join(stacked), results)


def _cut(first: jax.Array, chunk_size: int | None, bytes_per_row: int) -> Cut:
    """How rows are cut, by what is known of their first array."""
    shards = count_shards(first)
    rows = len(first) // shards
    size = equal_size(rows, rows_at_once(rows, chunk_size, bytes_per_row, first))
    if is_traced(first):  # Whole pieces stay on their devices, which are not known here.
        size = next((one for one in range(size, size // 2, -1) if rows % one == 0), size)
    return Cut(shards, rows, size)


def explain_batch(
    explainer: Explainer, rows: Any, on_steps: Callable[[int], object] | None = None
) -> Any:
    """The results of one piece, on the device(s), by three programs: start, advance and finish.

    `on_steps` is told how many steps were taken, as they are.
    """
    if not explainer.steps:
        return run(explain_traced, explainer, rows)
    programs = find(explainer, rows)
    leaves, steps = jax.tree.leaves(explainer), explainer.steps_per_call
    state = programs.start(leaves, jax.tree.leaves(rows))
    for _ in range(explainer.steps // steps):
        state = programs.advance(leaves, state)
        if on_steps is not None:
            jax.block_until_ready(state)
            on_steps(steps)
    return programs.finish(leaves, state)


def explain_traced(explainer: Explainer, rows: Any) -> Any:
    """The whole computation of one piece as a part of one trace."""
    state = explainer.start(rows)
    return explainer.finish(explainer.advance(state, explainer.steps))


def _piece(rows: Any, index: jax.Array, *, cut: Cut) -> Any:
    return cut.piece(rows, index)


def _put_like(array: np.ndarray, like: jax.Array) -> jax.Array:
    """On the device(s) of another array with the same axes; left to JAX where that one was."""
    return jax.device_put(array, like.sharding) if like.committed else jnp.asarray(array)


@contextmanager
def _memory_errors(size: int) -> Any:
    """Out of memory becomes a `DeviceMemoryError` that names `chunk_size`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DeviceMemoryError(
            f"The device ran out of memory with chunk_size={size}; "
            f"pass a smaller one, for instance chunk_size={max(1, size // 2)}."
        ) from error


def _progress_bar(title: str | None, total: int) -> AbstractContextManager[Any]:
    if title is None or sys.stderr is None:  # without a console there is nothing to draw on
        return nullcontext()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="step", desc=title)
