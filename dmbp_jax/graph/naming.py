"""Names of sites: the name scopes around them, made unique."""

from collections.abc import Mapping, Sequence

from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.program import Axes, BiasGroup, Site, Step


def name_sites(
    steps: Sequence[Step],
    groups: Sequence[BiasGroup],
    axes: Mapping[int, Axes],
    orders: Mapping[int, tuple[int, ...]],
) -> tuple[Site, ...]:
    """Every piece and every bias, the kind appended unless the scope already ends in it."""
    found = [
        (step.piece.kind, step.index, step.piece.masked, step)
        for step in steps
        if step.piece is not None
    ]
    found += [("bias", index, False, steps[group.steps[-1]]) for index, group in enumerate(groups)]
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
