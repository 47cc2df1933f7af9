"""One batch of pictures: the only place where large runs and `dmbp explain` call a method."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.catalogue import find_method
from dmbp_jax.dmbp.attribute import attribute
from dmbp_jax.dmbp.attribution import Attribution
from dmbp_jax.engine.compiling import run
from dmbp_jax.engine.scores import PROBABILITIES, pick
from dmbp_jax.methods.keys import image_key
from dmbp_jax.networks.network import Network


class Explained(NamedTuple):
    """Maps of a batch."""

    label: jax.Array  # (N,) int32, the classes that were explained
    logits: jax.Array  # (N, classes)
    map: jax.Array  # (N, H, W), or (N, H, W, C)
    attribution: Attribution | None  # of dmbp


def explain_images(
    net: Network,
    x: jax.Array | np.ndarray,
    labels: Sequence[int | None],
    *,
    method: str,
    options: Mapping[str, Any],
    identities: Sequence[str],
) -> Explained:
    """Maps of preprocessed images (N, H, W, C) by a method of the catalogue.

    A label that is None is the network's first choice; `identities` seed the random numbers. Both
    are of the first images; those beyond repeat image 0, to fill a batch.
    """
    row = find_method(method)
    missing = len(x) - len(labels)
    labels = [*labels, *[labels[0]] * missing]
    identities = [*identities, *[identities[0]] * missing]
    if method == "dmbp":
        given: Any = None  # the network's first choices
        if None not in labels:
            given = jnp.asarray(labels, jnp.int32)
        elif any(label is not None for label in labels):
            given = _first_choices(run(Network.__call__, net, x), labels)
        att = attribute(net, x, given, **options)
        assert att.logits is not None  # only of an attribution that an older version has saved
        return Explained(att.label, att.logits, att.map, att)
    keys = jnp.stack([image_key(0, one) for one in identities]) if row.random else None
    logits = run(Network.__call__, net, x)
    label = _first_choices(logits, labels)
    return Explained(label, logits, row.function(net, x, label, key=keys, **options), None)


def score(
    net: Network, found: Explained, save: tuple[str, ...]
) -> tuple[list[dict[str, Any] | None], dict[str, np.ndarray]]:
    """What a run stores of a batch: numbers of each image, None where one is not finite, and maps.

    `save` are names of maps: "heatmap", "map", "positive", "negative".
    """
    numbers = {"probability": pick(PROBABILITIES[net.activation](found.logits), found.label)}
    if found.attribution is not None:
        terms = ("y", "y_positive", "y_negative", "y_nuisance")
        numbers |= {name: getattr(found.attribution, name) for name in terms}
        finite = found.attribution.status
    else:
        numbers["y"] = pick(found.logits, found.label)
        whole = jnp.isfinite(found.map).all(range(1, found.map.ndim))
        finite = whole & jnp.isfinite(numbers["y"])
    finite = np.asarray(finite & jnp.isfinite(numbers["probability"]))
    columns = {name: np.asarray(column) for name, column in numbers.items()}
    # The shortest digits that give the same float32 again.
    rows: list[dict[str, Any] | None] = [
        {name: float(str(np.float32(column[i]))) for name, column in columns.items()}
        | {"label": int(label)}
        if finite[i]
        else None
        for i, label in enumerate(np.asarray(found.label))
    ]
    return rows, {name: np.asarray(_saved(found, name), np.float32) for name in save}


def _saved(found: Explained, name: str) -> jax.Array:
    """The maps that a run stores under a name."""
    if found.attribution is not None:
        return getattr(found.attribution, name)
    return found.map.sum(-1) if name == "heatmap" and found.map.ndim == 4 else found.map


def _first_choices(logits: jax.Array, labels: Sequence[int | None]) -> jax.Array:
    """(N,) int32: each label, or the largest logit where there is none."""
    given = np.array([label is not None for label in labels])
    asked = np.array([label or 0 for label in labels], np.int32)
    return jnp.where(given, asked, logits.argmax(-1).astype(jnp.int32))
