"""One batch of a large run on the devices: the only place where a run calls a method.

Every call has the same shapes, so that a worker compiles once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.catalogue import find_method
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine.compiling import compiled
from dmbp_jax.engine.driver import explain
from dmbp_jax.engine.scores import PROBABILITIES, pick
from dmbp_jax.graph.call import check_call
from dmbp_jax.methods.keys import image_key
from dmbp_jax.networks.network import Network
from dmbp_jax.runs.scored import TOP1, Scored, ScoredDmbp

BATCH_SIZE = 8  # images a device explains at once, unless told otherwise


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
) -> Scored:
    """Explain images, spread over the local devices; their number is a multiple of the devices.

    Args:
      net: as `replicate` returns it.
      x: (N, H, W, C) preprocessed images.
      labels: (N,) int32, `TOP1` for the network's first choice.
      method: key of `METHODS`, with its `options`.
      save: maps to return, of "heatmap", "map", "positive", "negative".
      identities: of each image, seeds methods that draw random numbers.

    Returns:
      NumPy arrays, the maps as float32; terms are None for methods without them.
    """
    batch = _sharding(jax.sharding.PartitionSpec("batch"))
    rows = jax.device_put(x, batch), jax.device_put(labels, batch)
    if method == "dmbp":
        scored = _dmbp(net, *rows, save, **options)
    else:
        row = find_method(method)
        keys = jnp.stack([image_key(0, one) for one in identities]) if row.random else None
        scored = _method(net, *rows, partial(row.function, key=keys, **options), save)
    result = jax.tree.map(np.asarray, scored)
    maps = {name: np.asarray(one, np.float32) for name, one in result.maps.items()}
    return result._replace(maps=maps)


def _dmbp(
    net: Network,
    x: jax.Array,
    labels: jax.Array,
    save: tuple[str, ...],
    config: DMBP,
    biases: str,
    **call: Any,
) -> Scored:
    """What `attribute` does, with the labels of the rows and the probability."""
    checked = check_call(net, x, dtype=config.dtype, precision=config.precision, **call)
    checked.network.program()  # refuses what is not supported, before anything is compiled
    inner = DmbpExplainer(checked.network, config, biases, low=checked.low)
    explainer = ScoredDmbp(inner, net.activation, save)
    return explain(explainer, (checked.images, labels), chunk_size=len(x))


def _method(
    net: Network, x: jax.Array, labels: jax.Array, function: Callable[..., Any], save: Sequence[str]
) -> Scored:
    """One of the compared methods; y is the logit."""
    label, probability, logit = compiled(_scores)(net, x, labels)
    values = function(net, x, label)
    summed = values.sum(-1) if values.ndim == 4 else values
    finite = jnp.isfinite(values).all(range(1, values.ndim)) & jnp.isfinite(logit)
    maps = {name: summed if name == "heatmap" else values for name in save}
    return Scored(label, probability, logit, None, None, None, finite, maps)


def _scores(net: Network, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, ...]:
    """Label (the first choice where it is `TOP1`), its probability and its logit."""
    logits = net(x)
    label = jnp.where(labels == TOP1, logits.argmax(-1).astype(jnp.int32), labels)
    return label, pick(PROBABILITIES[net.activation](logits), label), pick(logits, label)


def _sharding(spec: jax.sharding.PartitionSpec) -> jax.sharding.NamedSharding:
    devices = np.array(jax.local_devices())
    return jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("batch",)), spec)
