"""What a large run does, decided before it starts: rows, network, method, and how it is stored.

A plan is cut into shards of equal length; a shard is the unit of work and of commitment.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from dmbp_jax.catalogue import BIASES, find_method
from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.runs.inputs import Inputs, Label, Paths, list_inputs

if TYPE_CHECKING:
    from dmbp_jax.dmbp.config import DMBP
    from dmbp_jax.networks.network import Network

MAPS = ("heatmap", "map", "positive", "negative")
DTYPES = ("float16", "float32")
SHARD_SIZE = 128


@dataclass(frozen=True, eq=False)
class Plan:
    """A large run.

    Attributes:
      inputs: rows of (file, label).
      network: the network with its weights.
      method: key of `METHODS`.
      options: of the method; dmbp has `config` and `biases`.
      save: maps that are stored, of `MAPS`.
      dtype: "float16" (with a scale per map) or "float32".
      shard_size: rows of a shard.
    """

    inputs: Inputs
    network: "Network"
    method: str = "dmbp"
    options: Mapping[str, Any] = field(default_factory=dict)
    save: tuple[str, ...] = ("heatmap",)
    dtype: str = "float16"
    shard_size: int = SHARD_SIZE

    @property
    def shards(self) -> int:
        """Number of shards; the last may be shorter."""
        return -(-len(self.inputs) // self.shard_size)

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, len(self.inputs)))

    def map_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one map: (H, W) of a heatmap, (H, W, C) of the others."""
        size = self.network.preprocessing.size
        return (size, size) if name == "heatmap" else (size, size, 3)


def plan(
    images: Paths,
    labels: Label = None,
    *,
    network: "Network | str",
    weights: str | os.PathLike[str] | None = None,
    class_names: str | os.PathLike[str] | None = None,
    method: str = "dmbp",
    config: "DMBP | None" = None,
    options: Mapping[str, Any] | None = None,
    nonaffine: str = "refuse",
    biases: str = "drop",
    save: str | Sequence[str] = "heatmap",
    dtype: str = "float16",
    shard_size: int = SHARD_SIZE,
) -> Plan:
    """Decide a large run; everything that can be wrong with it is refused here.

    Args:
      images: a folder, a glob pattern, picture files, or a CSV file (`list_inputs`).
      labels: None for the network's top-1; a class by number or name; a CSV file of labels.
      network: a `Network`; or the name of one, with `weights` and `class_names` as in `load`.
      method: key of `METHODS`.
      config: of dmbp; None is `DMBP()`.
      options: of another method.
      nonaffine: as in `dmbp_jax.attribute`, of every method that looks into the network.
      biases: as in `dmbp_jax.attribute`, of dmbp: "drop", "spread", "refine" or "carry".
      save: "heatmap" (the map summed over channels), "map", "positive", "negative"; several as a
        sequence or separated by commas. Methods other than dmbp have no parts.
      dtype: "float16", each map with a power of two as its scale, or "float32".
      shard_size: rows of a shard, at least 1.

    Raises:
      InputError, InputTypeError, DataError: an argument is wrong; the message names it.

    Example:
      >>> plan("photos", network="resnet50").shards  # doctest: +SKIP
      7813
    """
    from dmbp_jax.dmbp.config import DMBP
    from dmbp_jax.graph.linearisation import PRODUCTS
    from dmbp_jax.networks.load import load
    from dmbp_jax.networks.network import Network

    @cache
    def loaded() -> Network:  # after the images were found, since it may be a download
        return network if isinstance(network, Network) else load(network, weights, class_names)

    row = find_method(method)
    options = dict(options or {})
    for name in ("config", "nonaffine", "biases"):
        if name in options:
            raise InputError(f"options: Expected {name} as an argument of its own.")
    check_choice(biases, "biases", BIASES)
    check_choice(nonaffine, "nonaffine", PRODUCTS)
    if method == "dmbp":
        config = DMBP() if config is None else config
        if not isinstance(config, DMBP):
            raise InputTypeError(f"config: Expected a DMBP, got {type(config).__name__}.")
        options |= {"config": config, "biases": biases}
    elif config is not None or biases != "drop":
        name = "biases" if config is None else "config"
        raise InputError(f"{name}: Expected none with method {method!r}.")
    if unknown := sorted(set(options) - set(row.options)):
        raise InputError(f"options: Expected some of {row.options}, got {unknown}.")
    if "nonaffine" in row.options:
        options["nonaffine"] = nonaffine
    return Plan(
        inputs=list_inputs(images, labels, lambda label, **how: loaded().label_index(label, **how)),
        network=loaded(),
        method=method,
        options=options,
        save=_check_save(save, method, row.coarse),
        dtype=check_choice(dtype, "dtype", DTYPES),
        shard_size=check_count(shard_size, "shard_size"),
    )


def _check_save(save: str | Sequence[str], method: str, coarse: bool) -> tuple[str, ...]:
    names = save.split(",") if isinstance(save, str) else list(save)
    chosen = dict.fromkeys(check_choice(name.strip(), "save", MAPS) for name in names)
    if not chosen:
        raise InputError("save: Expected at least one map, got none.")
    if method != "dmbp" and (parts := {"positive", "negative"} & set(chosen)):
        raise InputError(f"save: Expected heatmap or map with {method}, got {sorted(parts)}.")
    if coarse and "map" in chosen:
        raise InputError(f"save: Expected heatmap: maps of {method} have no channels.")
    return tuple(name for name in MAPS if name in chosen)
