"""One batch of a large run on the devices: the only place where a run calls a method.

Every call has the same shapes, so that a worker compiles once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.catalogue import find_method
from dmbp_jax.dmbp.attribute import attribute
from dmbp_jax.engine.compiling import run
from dmbp_jax.engine.scores import PROBABILITIES, pick
from dmbp_jax.methods.keys import image_key
from dmbp_jax.networks.network import Network

BATCH_SIZE = 8  # images a device explains at once, unless told otherwise


class Scored(NamedTuple):
    """Numbers (N,) and maps of a batch; terms are None for methods without them."""

    label: Any
    probability: Any
    y: Any
    y_positive: Any
    y_negative: Any
    y_nuisance: Any
    finite: Any  # bool
    maps: dict[str, Any]


def replicate(net: Network) -> Network:
    """The network on every local device."""
    return jax.device_put(net, _sharding(jax.sharding.PartitionSpec()))


def explain_batch(
    net: Network,
    x: np.ndarray,
    labels: Sequence[int | None],
    *,
    method: str,
    options: Mapping[str, Any],
    save: tuple[str, ...],
    identities: Sequence[str],
) -> Scored:
    """Explain images, spread over the local devices; their number is a multiple of the devices.

    Args:
      net: as `replicate` returns it.
      x: (N, H, W, C) preprocessed images.
      labels: of each image, None for the network's first choice.
      method: key of `METHODS`, with its `options`.
      save: maps to return, of "heatmap", "map", "positive", "negative".
      identities: of each image, seeds methods that draw random numbers.

    Returns:
      NumPy arrays, the maps as float32; terms are None for methods without them.
    """
    images = jax.device_put(x, _sharding(jax.sharding.PartitionSpec("batch")))
    if method == "dmbp":
        given = _labels(net, images, labels)
        att = attribute(net, images, given, chunk_size=len(x), **options)
        terms = att.y, att.y_positive, att.y_negative, att.y_nuisance
        logits: Any = att.logits  # there, unless an older version has written the attribution
        label, finite = att.label, att.status
        maps = {name: getattr(att, name) for name in save}
    else:
        row = find_method(method)
        keys = jnp.stack([image_key(0, one) for one in identities]) if row.random else None
        logits = run(_logits, net, images)
        label = _first_choices(logits, labels)
        values = row.function(net, images, label, key=keys, **options)
        terms = pick(logits, label), None, None, None
        finite = jnp.isfinite(values).all(range(1, values.ndim)) & jnp.isfinite(terms[0])
        summed = values.sum(-1) if values.ndim == 4 else values
        maps = {name: summed if name == "heatmap" else values for name in save}
    probability = pick(PROBABILITIES[net.activation](logits), label)
    scored = Scored(label, probability, *terms, finite & jnp.isfinite(probability), maps)
    result = jax.tree.map(np.asarray, scored)
    return result._replace(maps={name: np.float32(one) for name, one in result.maps.items()})


def _labels(net: Network, images: jax.Array, labels: Sequence[int | None]) -> jax.Array | None:
    """As `attribute` takes them; the network is asked only where some have a label and some not."""
    if all(label is None for label in labels):
        return None
    if None not in labels:
        return jnp.asarray(labels, jnp.int32)
    return _first_choices(run(_logits, net, images), labels)


def _first_choices(logits: jax.Array, labels: Sequence[int | None]) -> jax.Array:
    """(N,) int32: each label, or the largest logit where there is none."""
    given = np.array([label is not None for label in labels])
    asked = np.array([label or 0 for label in labels], np.int32)
    return jnp.where(given, asked, logits.argmax(-1).astype(jnp.int32))


def _logits(net: Network, x: jax.Array) -> jax.Array:
    return net(x)


def _sharding(spec: jax.sharding.PartitionSpec) -> jax.sharding.NamedSharding:
    devices = np.array(jax.local_devices())
    return jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("batch",)), spec)
