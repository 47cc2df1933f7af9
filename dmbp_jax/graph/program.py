"""A network as a flat program: steps, sites and their names, biases, without any array.

Made by `tracing`, evaluated by `graph`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from dmbp_jax.graph.biases import Bias
from dmbp_jax.graph.labels import Labels
from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.steps import Operand, Step, count_reads


@dataclass(frozen=True)
class Site:
    """One place of a network that a method may act on.

    Attributes:
      kind: kind of the piece, such as "relu" or "max_pool", "frozen" for a factor that is a
        constant at x, or "bias".
      index: position among the pieces (activations, pools, frozen factors) or among the biases, in
        order of evaluation.
      name: unique name made of the name scopes around it, such as `ResNet/layer1_0/relu1`.
      shape: shape of the piece's value, or of the value after the bias was added, for one image
        (leading axis 1).
      dtype: its dtype.
      masked: whether it carries a mask.
      order: axis i of `shape` is axis `order[i]` of the network's own value. Sites that are listed
        have the network's axes.
      labels: the rows and the columns of its elements (`positions`).
      extent: rows and columns of the image.
    """

    kind: str
    index: int
    name: str
    shape: tuple[int, ...]
    dtype: Any
    masked: bool = False
    order: tuple[int, ...] = field(default=(), repr=False)
    labels: Labels = field(default=((), ()), repr=False, compare=False)
    extent: tuple[int, ...] = field(default=(1, 1), repr=False)

    @property
    def has_positions(self) -> bool:
        """Whether it has more than one row or column, or may have."""
        return any(self.labels)

    @property
    def as_network(self) -> "Site":
        """The site with the axes of the network's own value."""
        stored = np.argsort(self.order)
        shape = tuple(self.shape[axis] for axis in stored)
        labels = tuple(tuple(one.transpose(stored) for one in kind) for kind in self.labels)
        return replace(self, shape=shape, labels=labels, order=tuple(range(len(stored))))

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Shape of its mask for one image: that of the network's own value without a leading 1."""
        shape = self.as_network.shape
        return shape[1:] if shape[:1] == (1,) else shape

    def to_mask(self, stored: jax.Array) -> jax.Array:
        """The mask of one image as it is handed out, of one with the axes of `shape`."""
        return stored.transpose(np.argsort(self.order).tolist()).reshape(self.mask_shape)

    def from_mask(self, mask: jax.Array) -> jax.Array:
        """The other way."""
        return mask.reshape(self.as_network.shape).transpose(self.order)


@dataclass(frozen=True, eq=False)
class Program:
    """The flattened program of a network at one shape of x. Hashed by identity."""

    steps: tuple[Step, ...]  # in order of evaluation
    inputs: tuple[int, ...]  # names of the network's arrays, then of the constants of its trace
    image: int  # name of x
    logits: Operand  # what the network returns
    sites: tuple[Site, ...]  # every piece and every bias
    # last result of a bias -> (index of its site, its steps)
    bias_groups: dict[int, tuple[int, Bias]]
    boundary: tuple[int, ...]  # values before the first piece that later steps still read

    @property
    def masked(self) -> tuple[Site, ...]:
        """Sites of the masked pieces (activations) in order of evaluation."""
        return tuple(site for site in self.sites if site.masked)

    @property
    def pooled(self) -> tuple[bool, ...]:
        """Whether only pools (and frozen factors) read the value of each masked piece."""
        pools = [step for step in self.steps if step.piece is not None and not step.piece.masked]
        by_pools, by_all = count_reads(pools), count_reads(self.steps)
        values = [s.results[0] for s in self.steps if s.piece is not None and s.piece.masked]
        return tuple(by_pools[name] == by_all[name] for name in values)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the factors that are constants at x."""
        return tuple(site.name for site in self.sites if site.kind == "frozen")

    @property
    def biases(self) -> tuple[Site, ...]:
        """The places where a constant is added, in order of evaluation."""
        return tuple(site for site in self.sites if site.kind == "bias")


def name_sites(
    steps: Sequence[Step],
    biases: Sequence[Bias],
    labels: Mapping[int, Labels],
    extent: tuple[int, ...],
    orders: Mapping[Operand, tuple[int, ...]],
) -> tuple[Site, ...]:
    """Every piece and bias, named by its scope, the kind appended unless it already ends in it."""
    found = [
        (step.piece.kind, step.index, step.piece.masked, step)
        for step in steps
        if step.piece is not None
    ]
    found += [("bias", index, False, bias[-1]) for index, bias in enumerate(biases)]
    names = []
    for kind, _, _, step in found:
        if isinstance(step.piece, FrozenFactor):
            kind = step.piece.name
        last = step.scope.rsplit("/", 1)[-1]
        names.append(step.scope if last.startswith(kind) else f"{step.scope}/{kind}".lstrip("/"))
    repeated = {name for name in names if names.count(name) > 1}
    counts: dict[str, int] = {}
    sites = []
    for (kind, index, masked, step), name in zip(found, names, strict=True):
        if name in repeated:
            counts[name] = counts.get(name, -1) + 1
            name = f"{name}_{counts[name]}"
        value = step.results[0]
        order = orders.get(value, tuple(range(len(step.shape))))
        of_image = labels[value], extent
        sites.append(Site(kind, index, name, step.shape, step.dtype, masked, order, *of_image))
    return tuple(sites)
