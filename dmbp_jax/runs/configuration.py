"""Everything that a number of a run depends on: what has to be the same for the run to go on."""

from dataclasses import fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.networks.network import Network
from dmbp_jax.runs.fingerprint import describe, fingerprint
from dmbp_jax.runs.plan import Plan
from dmbp_jax.version import __version__


def configure(plan: Plan) -> dict[str, Any]:
    """Name -> value, in the order in which differences are named."""
    inputs = plan.inputs
    images = {"rows": len(inputs), "names and sizes": fingerprint((inputs.files, inputs.sizes))}
    return {
        **describe_network(plan.network),
        "method": plan.method,
        "options": {name: _fields(value) for name, value in plan.options.items()},
        "images": images,
        "labels": fingerprint(inputs.labels),
        "save": list(plan.save),
        "dtype": plan.dtype,
        "shard_size": plan.shard_size,
        "package": __version__,
        "jax": jax.__version__,
        "device": jax.local_devices()[0].device_kind,
    }


def describe_network(net: Network) -> dict[str, Any]:
    """What a map depends on in a network; the architecture is the program that it traces to."""
    size = net.preprocessing.size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    program = trace(bind(net), image).trace.identity.digest
    return {
        "network": net.name,
        "weights": fingerprint(net.variables),
        "architecture": fingerprint(program),
        "preprocessing": _fields(net.preprocessing),
        "activation": net.activation,
        "classes": fingerprint(net.labels),
    }


def _fields(value: Any) -> Any:
    """A description; of a dataclass field by field, so that a difference is named by its field."""
    if not is_dataclass(value):
        return describe(value)
    return {one.name: describe(getattr(value, one.name)) for one in fields(value)}
