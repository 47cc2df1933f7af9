"""The three programs of an explainer, start, advance and finish: made once, compiled side by side.

A bar, a piece of a batch and a call that nobody watches run the same three. They read and return
flat lists of arrays, so that those of a disk (`engine/kept_programs.py`) can take their place.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from dmbp_jax.engine import kept_programs
from dmbp_jax.engine.batches import batch_sharding
from dmbp_jax.engine.compiling import compiled, find_program
from dmbp_jax.engine.explainer import Explainer
from dmbp_jax.graph.tracing import settings_of_traces

Arrays = list[Any]


class Programs(NamedTuple):
    """Compiled functions of the leaves of an explainer and those of its rows or its state."""

    start: Callable[[Arrays, Arrays], Arrays]
    advance: Callable[[Arrays, Arrays], Arrays]  # by `steps_per_call`; it takes the state away
    finish: Callable[[Arrays, Arrays], Any]


def find(explainer: Explainer, rows: Any) -> Programs:
    """The programs for arrays of these shapes, made before or made now.

    Two explainers with equal `identity` share them; so do equal explainers.
    """
    leaves, tree = jax.tree.flatten(explainer)
    row_leaves, rows_tree = jax.tree.flatten(rows)
    place = kept_programs.find_place(explainer, rows)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in (*leaves, *row_leaves))
    batch, platform = batch_sharding(row_leaves[0]), jax.default_backend()
    key = place or (tree, rows_tree, shapes, batch, platform, settings_of_traces())

    def make() -> Programs:
        made = _make(tree, rows_tree, batch, explainer.steps_per_call, platform)
        return _compile(made, leaves, row_leaves, batch, place)

    return find_program(explainer, key, make)


def _make(
    tree: Any, rows_tree: Any, batch: NamedSharding | None, steps: int, platform: str
) -> Programs:
    state_tree = rows_tree  # once start was traced that of a state

    def spread(results: Any) -> Any:
        """Each array lies as the rows do: XLA leaves what does not depend on them everywhere."""
        if batch is None or batch.mesh.size == 1:
            return results
        return jax.tree.map(
            lambda a: jax.lax.with_sharding_constraint(a, _place(a, batch)), results
        )

    def flat(state: Any) -> Arrays:
        nonlocal state_tree
        leaves, state_tree = jax.tree.flatten(spread(state))
        # A weak type would be lost between two programs, and make the next one anew.
        return [a.astype(a.dtype) if jax.typeof(a).weak_type else a for a in leaves]

    def start(leaves: Arrays, rows: Arrays) -> Arrays:
        explainer = jax.tree.unflatten(tree, leaves)
        return flat(explainer.start(jax.tree.unflatten(rows_tree, rows)))

    def advance(leaves: Arrays, state: Arrays) -> Arrays:
        explainer = jax.tree.unflatten(tree, leaves)
        return flat(explainer.advance(jax.tree.unflatten(state_tree, state), steps))

    def finish(leaves: Arrays, state: Arrays) -> Any:
        explainer = jax.tree.unflatten(tree, leaves)
        return spread(explainer.finish(jax.tree.unflatten(state_tree, state)))

    return Programs(
        compiled(start, platform),
        compiled(advance, platform, donate_argnums=1),
        compiled(finish, platform),
    )


def _place(a: Any, batch: NamedSharding | None) -> NamedSharding | None:
    """Where an array of a state or of results lies: scalars on every device."""
    if batch is None or a.ndim:
        return batch
    return NamedSharding(batch.mesh, PartitionSpec())


def _compile(
    made: Programs,
    leaves: Arrays,
    rows: Arrays,
    batch: NamedSharding | None,
    place: kept_programs.Place | None,
) -> Programs:
    """The programs, or those kept at a place, compiled in threads while the next one is traced.

    On several devices without a batch that is cut it is known how the arrays of a state lie once
    the program before is compiled: there each one is compiled when it is called.
    """
    devices = {d for a in (*leaves, *rows) if isinstance(a, jax.Array) for d in a.devices()}
    is_unknown = batch is None and len(devices) > 1
    if is_unknown or jax.config.jax_disable_jit:  # pyrefly: ignore[missing-attribute]
        return made
    kept = None if place is None else kept_programs.read(place)
    # A kept program commits its results: one that is lowered for others is compiled once more.
    committed = None if place is None else SingleDeviceSharding(*devices)
    state, found, exported = rows, [], []
    with ThreadPoolExecutor(len(made)) as pool:
        for index, program in enumerate(made):
            if place is not None:
                one = (
                    kept[index] if kept else kept_programs.export_program(program, (leaves, state))
                )
                if one is None:
                    return _compile(made, leaves, rows, batch, None)
                exported.append(one)
                donated = {"donate_argnums": 1} if program is made.advance else {}
                program = compiled(one.call, place.platform, **donated)
            lowered: Any = program.lower(leaves, state)  # pyrefly: ignore[missing-attribute]
            found.append((program, pool.submit(lowered.compile)))
            state = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(
                    a.shape, a.dtype, sharding=_place(a, batch) or committed
                ),
                lowered.out_info,
            )
    for _, job in found:
        job.result()
    if place is not None and kept is None:
        kept_programs.write(place, exported)
    return Programs(*(program for program, _ in found))
