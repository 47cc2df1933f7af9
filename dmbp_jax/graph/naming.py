"""Names of sites: the name scopes around them, made unique."""

from collections.abc import Mapping, Sequence

from dmbp_jax.graph.biases import Bias
from dmbp_jax.graph.labels import Labels
from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.steps import Operand, Step


def name_sites(
    steps: Sequence[Step],
    biases: Sequence[Bias],
    labels: Mapping[int, Labels],
    extent: tuple[int, ...],
    orders: Mapping[Operand, tuple[int, ...]],
) -> tuple[Site, ...]:
    """Every piece and every bias, the kind appended unless the scope already ends in it."""
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
