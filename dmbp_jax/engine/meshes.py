"""Arrays on meshes of JAX's default kind, with "explicit" axes: every public function takes them.

There JAX asks every operation for a sharding, and the code of a network has none to say. Inside of
a call the axes are of kind "auto", where XLA finds it; results come back as explicit ones.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def on_any_mesh(rows: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """The same function of arrays on meshes of every kind, given as arguments or by `jax.set_mesh`.

    Args:
      rows: name of the argument with the batch. Inside a trace results of as many rows lie on the
        devices as it does, and others on each of them.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        # A guard is against transfers that nobody asked for: who calls with an array of NumPy does.
        @jax.transfer_guard("allow")
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            mesh = _explicit_mesh(jax.tree.leaves((args, kwargs)))
            if mesh is None:
                return function(*args, **kwargs)
            given = signature(function).bind(*args, **kwargs).arguments.get(rows)
            with _inside(mesh):
                args, kwargs = jax.tree.map(_to_auto, (args, kwargs))
                result = function(*args, **kwargs)
            return jax.tree.map(partial(_to_explicit, mesh, given), result)

        return call

    return decorate


def _explicit_mesh(leaves: list[Any]) -> Any:
    """The mesh of an argument, or the one that is set, if it has an explicit axis; else None.

    A mesh of devices outside of a trace, an abstract one inside.
    """
    meshes = [mesh for leaf in leaves if _is_explicit(mesh := _mesh_of(leaf))]
    mesh = meshes[0] if meshes else jax.sharding.get_abstract_mesh()
    if not _is_explicit(mesh):
        return None
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*leaves, jnp.zeros(()))):
        return mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh
    return mesh if isinstance(mesh, Mesh) else jax.sharding.get_mesh()


def _mesh_of(leaf: Any) -> Any:
    found = jax.typeof(leaf) if isinstance(leaf, jax.core.Tracer) else leaf
    return getattr(getattr(found, "sharding", None), "mesh", None)


def _is_explicit(mesh: Any) -> bool:
    return mesh is not None and AxisType.Explicit in mesh.axis_types


def _automatic(mesh: Any) -> Any:
    """The same mesh with its explicit axes made automatic."""
    kinds = tuple(AxisType.Auto if k == AxisType.Explicit else k for k in mesh.axis_types)
    if isinstance(mesh, Mesh):
        return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    return mesh.update(axis_types=kinds)


def _inside(mesh: Any) -> AbstractContextManager[Any]:
    """What an operation inside of the call sees as the mesh that is set."""
    if not isinstance(mesh, Mesh):
        return jax.sharding.use_abstract_mesh(_automatic(mesh))
    is_set = not jax.sharding.get_abstract_mesh().empty
    return jax.set_mesh(_automatic(mesh)) if is_set else nullcontext()


def _to_auto(leaf: Any) -> Any:
    mesh = _mesh_of(leaf)
    if not _is_explicit(mesh):
        return leaf
    if isinstance(mesh, Mesh) and not isinstance(jnp.zeros(()), jax.core.Tracer):
        return jax.device_put(leaf, NamedSharding(_automatic(mesh), leaf.sharding.spec))  # no copy
    return jax.sharding.reshard(leaf, PartitionSpec())  # of no explicit axis: it stays where it is


def _to_explicit(mesh: Any, given: Any, leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    if isinstance(mesh, Mesh):
        found = leaf.sharding
        if not isinstance(found, NamedSharding) or found.mesh != _automatic(mesh):
            return leaf
        return jax.device_put(leaf, NamedSharding(mesh, found.spec))
    first = jax.tree.leaves(given)[0]
    alike = leaf.ndim > 0 and leaf.shape[0] == first.shape[0]
    spec = getattr(getattr(jax.typeof(first), "sharding", None), "spec", None) or (None,)
    place = NamedSharding(mesh, PartitionSpec(spec[0] if alike else None))
    return jax.sharding.reshard(leaf, place)
