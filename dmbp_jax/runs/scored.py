"""DMBP for a row of a large run: the maps that are stored, with what the same pass says of x.

The forward pass that freezes the network at x has all logits, so the first choice and the
probability cost nothing more.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.explainer import DmbpExplainer, Run
from dmbp_jax.engine.scores import PROBABILITIES, pick

TOP1 = -1  # label of a row that asks for the network's first choice


class Scored(NamedTuple):
    """Numbers (N,) and maps of a batch."""

    label: jax.Array
    probability: jax.Array
    y: jax.Array
    y_positive: jax.Array | None
    y_negative: jax.Array | None
    y_nuisance: jax.Array | None
    finite: jax.Array  # bool
    maps: dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScoredDmbp:
    """An `engine.Explainer`: DMBP that answers with a `Scored`.

    Rows are (images, labels) with `TOP1` where the network's first choice is to be explained.

    Attributes:
      inner: the method.
      activation: key of `PROBABILITIES`.
      save: maps to return, of "heatmap", "map", "positive", "negative".
    """

    inner: DmbpExplainer
    activation: str = field(metadata={"static": True})
    save: tuple[str, ...] = field(metadata={"static": True})

    steps_per_call = None

    @property
    def steps(self) -> int:
        """As the method."""
        return self.inner.steps

    @property
    def bytes_per_row(self) -> int:
        """As the method."""
        return self.inner.bytes_per_row

    def start(self, rows: tuple[jax.Array, jax.Array]) -> Run:
        """As the method, with the labels that are given."""
        images, labels = rows
        run = self.inner.start((images, None))
        return run._replace(labels=jnp.where(labels == TOP1, run.labels, labels))

    def advance(self, state: Run, steps: int) -> Run:
        """As the method."""
        return self.inner.advance(state, steps)

    def finish(self, state: Run) -> Scored:
        """The method's numbers, the probability, and the maps to save."""
        result = self.inner.finish(state)
        logits = state.logits.astype(result.y.dtype)
        probability = pick(PROBABILITIES[self.activation](logits), result.label)
        known: dict[str, Any] = {
            name: getattr(result, name) for name in ("positive", "negative", "map", "heatmap")
        }
        return Scored(
            label=result.label,
            probability=probability,
            y=result.y,
            y_positive=result.y_positive,
            y_negative=result.y_negative,
            y_nuisance=result.y_nuisance,
            finite=result.status & jnp.isfinite(probability),
            maps={name: known[name] for name in self.save},
        )
