"""From the name of a network to a `Network` with its weights.

The weights come from a file, from the cache of downloads, or from inside the package.
"""

import os
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import jax

from dmbp_jax.convert import read_weights
from dmbp_jax.networks.download import fetch
from dmbp_jax.networks.network import Network
from dmbp_jax.networks.registry import find_entry


def load(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
) -> Network:
    """Load a named network.

    Without `weights`, the published checkpoint is downloaded once to `$DMBP_HOME`,
    `$XDG_CACHE_HOME/dmbp-jax` or `~/.cache/dmbp-jax`, and checked at every load. Some checkpoints
    are checked by their whole SHA-256, the others by its first 8 hex digits, 32 bits, which are
    part of the file's name: that finds damage, not an attack. `dmbp networks` says it for each.
    "builtin" needs no download; "efficientnet_lite1" is read from an installed Python package. A
    file given as `weights` is not compared with any hash.

    Args:
      name: one of `list_networks()`.
      weights: file to read instead: `.pth` or safetensors, of torchvision, timm or TorchRay, or
        written by `dmbp convert`.
      labels: class names, or a text file with one per line; with another number of names than
        the network has classes, `weights` must be a network fine-tuned to that many classes.

    Raises:
      InputError: no network has this name; the message lists near ones.
      DownloadError: the checkpoint cannot be fetched; the message says what to do by hand.
      WeightsError: the file is missing, corrupt, unsafe, or does not fit the network.

    Example:
      >>> load("builtin").labels[6:9]
      ('star', 'cross', 'ring')
    """
    entry = find_entry(name)
    if weights is not None:
        path = Path(weights)
    elif entry.checkpoint is not None:
        path = fetch(entry.checkpoint)
    else:
        with as_file(files("dmbp_jax.models").joinpath(f"{name}.safetensors")) as shipped:
            return load(name, shipped, labels)
    entry, variables, names = read_weights(path, name, labels)
    return Network(
        module=entry.module,
        variables=jax.device_put(variables),
        preprocessing=entry.preprocessing,
        labels=names,
        name=name,
        activation=entry.activation,
    )
