"""The driver: source → equal padded batches → device(s) → sink.

`attribute`, the compared methods, the metrics, the command line, the experiments and the large
runs are its callers.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.engine import kept_programs
from dmbp_jax.engine.batches import Batch, fold, slice_rows
from dmbp_jax.engine.compiling import compiled
from dmbp_jax.engine.explainer import Explainer, State
from dmbp_jax.engine.memory import fitting_rows
from dmbp_jax.errors import DeviceMemoryError
from dmbp_jax.graph.model import is_traced

STEPS_PER_UPDATE = 20  # of a progress bar, where the explainer does not say


class Sink(Protocol):
    """Where results go."""

    def write(self, batch: Batch, results: Any) -> None:
        """Take the results of one batch: NumPy arrays with `batch.count` rows."""
        ...


class Memory:
    """A sink that keeps the results of all batches in the memory of the host."""

    def __init__(self) -> None:
        self._parts: list[Any] = []

    def write(self, batch: Batch, results: Any) -> None:
        """Keep the results."""
        self._parts.append(results)

    def results(self) -> Any:
        """One pytree for all rows, back on the device."""
        return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)), *self._parts)


def drive(
    explainer: Explainer,
    source: Iterable[Batch],
    sink: Sink,
    on_steps: Callable[[int], object] | None = None,
) -> None:
    """Explain every batch of a source; its results leave the device before the next one starts.

    Args:
      explainer: what is computed.
      source: batches of one shape.
      sink: gets each batch with its results.
      on_steps: is told how many steps were taken, as they are.

    Raises:
      DeviceMemoryError: the device ran out of memory.
    """
    for batch in source:
        size = len(jax.tree.leaves(batch.rows)[0])
        with memory_errors(size):
            results = explain_batch(explainer, batch.rows, on_steps)
            on_host = jax.tree.map(lambda a, n=batch.count: np.asarray(a)[:n], results)
        sink.write(batch, on_host)


def explain(
    explainer: Explainer,
    rows: Any,
    *,
    chunk_size: int | None = None,
    progress: str | None = None,
) -> Any:
    """The results for arrays in memory, `chunk_size` rows at a time.

    Args:
      explainer: what is computed.
      rows: a pytree with the batch on axis 0.
      chunk_size: rows at once; None takes as many as fit.
      progress: title of a bar over the steps, or None; ignored inside a trace.

    Raises:
      DeviceMemoryError: the device ran out of memory.
    """
    leaves = jax.tree.leaves(rows)
    count = len(leaves[0])
    size = chunk_size or fitting_rows(count, explainer.bytes_per_row, leaves[0])
    if is_traced((explainer, rows)):
        if size >= count:
            return _explain(explainer, rows)
        results = jax.lax.map(partial(_explain, explainer), fold(rows, count, size))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], results)
    batches = -(-count // min(size, count))
    with _progress_bar(progress, batches * explainer.steps) as bar:
        on_steps = None if bar is None else bar.update
        if size >= count:
            with memory_errors(size):
                return jax.block_until_ready(explain_batch(explainer, rows, on_steps))
        sink = Memory()
        drive(explainer, slice_rows(rows, count, size), sink, on_steps)
        with memory_errors(size):
            return sink.results()


def explain_batch(
    explainer: Explainer, rows: Any, on_steps: Callable[[int], object] | None = None
) -> Any:
    """The results of one batch, on the device.

    One program where nobody watches and the explainer allows it; else compiled pieces, so that
    the host can count steps. Both compute the same.
    """
    if explainer.steps_per_call is None and on_steps is None:
        return kept_programs.run(_explain, explainer, rows)
    state, advance = compiled(_start)(explainer, rows), advance_program()
    taken = 0
    while taken < explainer.steps:
        steps = min(explainer.steps_per_call or STEPS_PER_UPDATE, explainer.steps - taken)
        state = jax.block_until_ready(advance(explainer, state, steps=steps))
        taken += steps
        if on_steps is not None:
            on_steps(steps)
    return compiled(_finish)(explainer, state)


@contextmanager
def memory_errors(size: int) -> Any:
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


def _explain(explainer: Explainer, rows: Any) -> Any:
    state = explainer.start(rows)
    return explainer.finish(explainer.advance(state, explainer.steps))


def _start(explainer: Explainer, rows: Any) -> State:
    return explainer.start(rows)


def advance_program() -> Callable[..., State]:
    """`_advance(explainer, state, steps=…)`, compiled; it takes the state away from the caller."""
    return compiled(_advance, static_argnames="steps", donate_argnames="state")


def _advance(explainer: Explainer, state: State, *, steps: int) -> State:
    return explainer.advance(state, steps)


def _finish(explainer: Explainer, state: State) -> Any:
    return explainer.finish(state)


def _progress_bar(title: str | None, total: int) -> AbstractContextManager[Any]:
    if title is None:
        return nullcontext()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="step", desc=title)
