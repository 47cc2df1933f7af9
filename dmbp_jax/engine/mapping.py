"""A function of one image, evaluated once for every image of a call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax

from dmbp_jax.engine.content import ByContent
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.explainer import Explainer
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork


def each_image(rule: Callable[..., Any], call: Call, *rows: Any) -> Any:
    """`rule(network, image, label, *row)` for every image, `chunk_size` at once.

    Args:
      rule: what it captures are numbers and names, so that equal calls compile once.
      call: the label is None where its caller named none.
      rows: further pytrees of arrays with a leading axis N.
    """
    explainer = EachImage(call.network, ByContent(rule))
    return explain(explainer, (call.images, call.labels, *rows), chunk_size=call.chunk_size)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EachImage(Explainer):
    """`rule(network, *row)` of every row, as an explainer without steps."""

    network: TracedNetwork
    rule: ByContent = field(metadata={"static": True})

    steps = steps_per_call = 0

    @property
    def bytes_per_row(self) -> int:
        """All values that one forward pass computes."""
        return self.network.trace.bytes_per_image

    def start(self, rows: Any) -> Any:
        """The whole computation."""
        return jax.vmap(partial(self.rule, self.network))(*rows)
