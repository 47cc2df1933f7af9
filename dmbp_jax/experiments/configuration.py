"""Everything that the numbers of an evaluation depend on, as JSON: it decides what can continue."""

import itertools
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.data.samples import Dataset
from dmbp_jax.experiments.batches import Transform, Transforms
from dmbp_jax.experiments.folder import FORMAT
from dmbp_jax.experiments.measuring import EvaluatedNetwork
from dmbp_jax.experiments.plan import Plan
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.graph.model import bind
from dmbp_jax.runs.fingerprint import describe, fingerprint
from dmbp_jax.version import __version__


def configure(
    evaluated: EvaluatedNetwork,
    network: str,
    dataset: Dataset,
    settings: Settings,
    plan: Plan,
    transforms: Transforms,
) -> dict[str, Any]:
    """Name -> value; compared entry by entry when an evaluation is continued.

    Long values, such as weights and code, are there as SHA-256 of what `describe` says of them.
    """
    model = bind(evaluated.params, evaluated.apply_fn)
    chosen = sha256()
    for target in itertools.chain(*plan.batches):
        named = f"{target.picture.name}\n{target.label}\n{target.picture.labels}\n"
        chosen.update(named.encode(errors="surrogateescape"))
    return {
        "format": FORMAT,
        "version": __version__,
        "jax": jax.__version__,
        "device": next(iter(jnp.zeros(()).devices())).device_kind,
        "tables": list(settings.tables),
        "dataset": dataset.name,
        "network": network,
        "weights": fingerprint(model.arrays),
        "network without weights": fingerprint((model.apply_fn, model.skeleton)),
        "preprocess": _describe_transform(transforms.preprocess),
        "crop": _describe_transform(transforms.crop),
        "images per class": settings.per_class(dataset.name),
        "limit": settings.limit,
        "seed": settings.seed,
        "redraws": settings.redraws,
        "targets": sum(map(len, plan.batches)),
        "chosen targets": chosen.hexdigest(),
        "batch size": settings.batch_size,
        "step": settings.step,
        "points": settings.points,
        "activation": settings.activation,
        "last layer": settings.last_layer,
        "methods": [row.name for row in plan.rows],
        "code of methods": fingerprint([row.identity for row in plan.rows]),
    } | {f"options of {row.name}": describe(dict(row.options)) for row in plan.rows}


def _describe_transform(transform: Transform | None) -> Any:
    """By content; of a network's own method, without the weights that come with it."""
    owner = getattr(transform, "__self__", None)
    own = getattr(owner, "preprocessing", None)
    if own is None:
        return describe(transform)
    return describe({"function": getattr(transform, "__func__", None), "preprocessing": own})
