"""Names of sites: the name scopes around them, made unique."""

from collections.abc import Mapping, Sequence

from dmbp_jax.graph.biases import Bias
from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.program import Axes, Site
from dmbp_jax.graph.steps import Step


def name_sites(
    steps: Sequence[Step],
    biases: Sequence[Bias],
    axes: Mapping[int, Axes],
    orders: Mapping[int, tuple[int, ...]],
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
        found_axes, order = axes.get(step.results[0]), orders.get(step.results[0])
        order = order or tuple(range(len(step.shape)))
        sites.append(Site(kind, index, name, step.shape, step.dtype, masked, order, found_axes))
    return tuple(sites)
