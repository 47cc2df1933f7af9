"""One batch of a large run on the devices: the only place where a run calls a method.

Every call has the same shapes, so that a worker compiles once.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.catalogue import find_method
from dmbp_jax.dmbp.attribute import attribute
from dmbp_jax.engine.scores import PROBABILITIES
from dmbp_jax.methods.keys import image_key
from dmbp_jax.networks.network import Network

BATCH_SIZE = 8  # images a device explains at once, unless told otherwise
TOP1 = -1  # label of a row that asks for the network's first choice


class Explained(NamedTuple):
    """Numbers and maps of a batch, as NumPy arrays; terms are None for methods without them."""

    label: np.ndarray
    probability: np.ndarray
    y: np.ndarray
    y_positive: np.ndarray | None
    y_negative: np.ndarray | None
    y_nuisance: np.ndarray | None
    finite: np.ndarray  # (N,) bool
    maps: Mapping[str, np.ndarray]


def replicate(net: Network) -> Network:
    """The network on every local device."""
    return jax.device_put(net, _sharding(jax.sharding.PartitionSpec()))


def explain_batch(
    net: Network,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    method: str,
    options: Mapping[str, Any],
    save: tuple[str, ...],
    identities: Sequence[str],
) -> Explained:
    """Explain images, spread over the local devices; their number is a multiple of the devices.

    Args:
      net: as `replicate` returns it.
      x: (N, H, W, C) preprocessed images.
      labels: (N,) int32, `TOP1` for the network's first choice.
      method: key of `METHODS`, with its `options`.
      save: maps to return, of "heatmap", "map", "positive", "negative".
      identities: of each image, seeds methods that draw random numbers.
    """
    batch = _sharding(jax.sharding.PartitionSpec("batch"))
    x, labels = jax.device_put(x, batch), jax.device_put(labels, batch)
    label, probability, logit = _scores(net, x, labels)
    terms: dict[str, Any] = {}
    if method == "dmbp":
        result = attribute(net, x, label, chunk_size=len(x), **options)
        maps = _maps(result.positive, result.negative, save)
        finite = result.status & jnp.isfinite(probability)
        names = ("y", "y_positive", "y_negative", "y_nuisance")
        terms = {name: np.asarray(getattr(result, name)) for name in names}
    else:
        row = find_method(method)
        keys = [image_key(0, one) for one in identities] if row.random else None
        key = None if keys is None else jnp.stack(keys)
        values = row.function(net, x, label, key=key, **options)
        summed = values.sum(-1) if values.ndim == 4 else values
        maps = {name: summed if name == "heatmap" else values for name in save}
        finite = jnp.isfinite(values).all(range(1, values.ndim)) & jnp.isfinite(logit)
        terms = {"y": np.asarray(logit)}
    return Explained(
        label=np.asarray(label),
        probability=np.asarray(probability),
        y=terms["y"],
        y_positive=terms.get("y_positive"),
        y_negative=terms.get("y_negative"),
        y_nuisance=terms.get("y_nuisance"),
        finite=np.asarray(finite),
        maps={name: np.asarray(one, np.float32) for name, one in maps.items()},
    )


@jax.jit
def _scores(net: Network, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, ...]:
    """Label (the first choice where it is `TOP1`), its probability and its logit."""
    logits = net(x)
    label = jnp.where(labels == TOP1, logits.argmax(-1).astype(jnp.int32), labels)
    pick = partial(jnp.take_along_axis, indices=label[:, None], axis=-1)
    return label, pick(PROBABILITIES[net.activation](logits))[:, 0], pick(logits)[:, 0]


@partial(jax.jit, static_argnames="save")
def _maps(positive: jax.Array, negative: jax.Array, save: tuple[str, ...]) -> dict[str, jax.Array]:
    both = positive + negative
    known = {"positive": positive, "negative": negative, "map": both, "heatmap": both.sum(-1)}
    return {name: known[name] for name in save}


def _sharding(spec: jax.sharding.PartitionSpec) -> jax.sharding.NamedSharding:
    devices = np.array(jax.local_devices())
    return jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("batch",)), spec)
