"""Maps that another tool has made, in a store like that of a run: to report and to evaluate them.

The store holds what `dmbp run` writes, so every reader of it reads these maps too.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.errors import InputError, ResumeError
from dmbp_jax.runs import records
from dmbp_jax.runs.arrays import encode_shard
from dmbp_jax.runs.inputs import Label, Paths, list_inputs
from dmbp_jax.runs.manifest import array_layout, open_manifest
from dmbp_jax.runs.plan import DTYPES, SHARD_SIZE, Plan
from dmbp_jax.runs.reader import Run
from dmbp_jax.runs.store import Store

if TYPE_CHECKING:
    from dmbp_jax.networks.network import Network

_KINDS = {3: "heatmap", 4: "map"}
_NOT_FINITE = "the map has numbers that are not finite"


def store_maps(
    store: Store,
    maps: Any,
    images: Paths,
    labels: Label = None,
    *,
    network: "Network",
    method: str,
    dtype: str = "float32",
    shard_size: int = SHARD_SIZE,
) -> Run:
    """Write maps of another tool into a store; `dmbp evaluate --maps` scores them.

    Args:
      store: an empty one, or one that this function did not finish.
      maps: (N, H, W), or (N, H, W, C), which is summed over channels when it is scored. A NumPy
        array or anything that gives one when it is cut, such as a memory map; a shard at a time is
        in memory.
      images: a folder, a pattern, files, or a CSV table `file,label`, as in `plan`; the maps are
        in the order of its rows.
      labels: the class that the maps explain, by number or name, or a CSV table; none beside a
        table of images.
      network: the network that was explained.
      method: name of the tool or its method, for tables and pages.
      dtype: "float32", or "float16", each map with a power of two as its scale.
      shard_size: maps of a shard.

    Returns:
      The run, opened. A map that is not finite is a row with status "failed".

    Raises:
      InputError: another number or shape of maps than the pictures and the network ask for; a
        picture without a label.
      ResumeError: the store holds another run, or other maps.
      StoreError: it cannot be written.

    Example:
      >>> store_maps(Store("ig.zarr"), np.load("ig.npy", mmap_mode="r"), "photos.csv",
      ...            network=net, method="captum-ig")  # doctest: +SKIP
    """
    inputs = list_inputs(images, labels, network.label_index)
    if None in inputs.labels:
        file = inputs.files[inputs.labels.index(None)]
        raise InputError(f"labels: Expected a label for every map, got none for {file}.")
    shape = tuple(np.shape(maps))
    kind = _KINDS.get(len(shape), "heatmap")
    check_choice(dtype, "dtype", DTYPES)
    check_count(shard_size, "shard_size")
    plan = Plan(inputs, network, method, {}, (kind,), dtype, shard_size)
    expected = (len(inputs), *plan.map_shape(kind))
    if shape != expected:
        raise InputError(f"maps: Expected shape {expected}, got {shape}.")
    fingerprint = open_manifest(store, plan)
    for shard in range(plan.shards):
        rows = plan.rows(shard)
        values = np.asarray(maps[rows.start : rows.stop], np.float32)
        finite = [bool(np.isfinite(one).all()) for one in values]
        table = tuple(
            records.new_row(inputs, row, records.OK)
            if good
            else records.new_row(inputs, row, records.FAILED, _NOT_FINITE)
            for row, good in zip(rows, finite, strict=True)
        )
        objects = encode_shard(array_layout(plan), shard, {kind: values})
        part = records.Part(shard, objects, table)
        if records.commit(store, fingerprint, part):
            continue
        (stored,) = records.read_records(store, fingerprint, [shard])
        if stored is not None and stored.objects != records.describe_objects(part):
            raise ResumeError(
                f"{store.url}: Expected these maps in shard {shard}, other ones are stored there. "
                "Choose another store."
            )
    return Run(store)
