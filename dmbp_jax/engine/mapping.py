"""Functions of a batch as explainers: one evaluation a row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

Options = tuple[tuple[str, Any], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchFunction:
    """`function(shared, rows, **options)`: a batched function as an explainer without steps.

    Attributes:
      shared: a pytree that all rows read, such as the network.
      function: module-level, so that equal calls compile once.
      options: hashable keyword arguments.
      bytes_per_row: as in `Explainer`.
    """

    shared: Any
    function: Callable[..., Any] = field(metadata={"static": True})
    options: Options = field(metadata={"static": True})
    bytes_per_row: int = field(metadata={"static": True})
    steps: int = field(metadata={"static": True}, default=0)
    steps_per_call: int = field(metadata={"static": True}, default=0)

    def start(self, rows: Any) -> Any:
        """The whole computation."""
        return self.function(self.shared, rows, **dict(self.options))

    def advance(self, state: Any, steps: int) -> Any:
        """Nothing is left to do."""
        return state

    def finish(self, state: Any) -> Any:
        """The results."""
        return state
