"""The protocol between the engine and whoever makes maps: start, advance, finish.

The engine knows nothing else of a method, so that every method runs in it: one after the other,
in batches, on several devices, with a progress bar, in a large run.
"""

from typing import Any, Protocol

State = Any  # a pytree of arrays


class Explainer(Protocol):
    """Pure functions from a batch to its results; a pytree whose leaves are the network's arrays.

    A frozen dataclass registered with `jax.tree_util.register_dataclass` is one: arrays are its
    leaves, settings are static and hashable, so that equal explainers compile once.

    Attributes:
      steps: how often `advance` goes on with a batch, in all.
      steps_per_call: steps in one compiled call, as often as a bar moves; divides `steps`.
      bytes_per_row: device memory that one row of a batch takes, in bytes.

    An explainer with an attribute `identity`, a text that says everything its program depends on
    but the shapes of its arrays, has its programs kept on disk (`engine/kept_programs.py`).
    """

    @property
    def steps(self) -> int: ...

    @property
    def steps_per_call(self) -> int: ...

    @property
    def bytes_per_row(self) -> int: ...

    def start(self, rows: Any) -> State:
        """The state of a batch; `rows` is a pytree with the batch on axis 0."""
        ...

    def advance(self, state: State, steps: int) -> State:
        """The state `steps` steps later; as it is where there are none."""
        return state

    def finish(self, state: State) -> Any:
        """The results, a pytree with the batch on axis 0; the state unless told."""
        return state
