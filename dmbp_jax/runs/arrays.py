"""The maps of a run as Zarr version 3: one array a kind of map, one shard object a shard of rows.

float16 alone would lose most values to underflow, so every map has a power of two as its scale.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

_LARGEST_EXPONENT = 15  # values are brought below 2¹⁵; float16 ends at 65504
_SMALLEST_EXPONENT = -126  # of a normal float32
_AXES = ("row", "y", "x", "channel")
SCALE = "_scale"  # a map `heatmap` in float16 has the array `heatmap_scale` beside it


def metadata(rows: int, shape: tuple[int, ...], dtype: str, shard_size: int) -> dict[str, Any]:
    """Zarr metadata of an array (rows, *shape): shards of `shard_size` rows, read row by row.

    What was never written reads as NaN. A scale (`shape` is ()) is read shard by shard.
    """
    little = _named("bytes", endian="little")
    kind = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 0}
    sharding = _named(
        "sharding_indexed",
        chunk_shape=[1 if shape else shard_size, *shape],
        codecs=[little, _named("blosc", typesize=np.dtype(dtype).itemsize, **kind)],
        index_codecs=[little, {"name": "crc32c"}],
        index_location="end",
    )
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *shape],
        "data_type": dtype,
        "chunk_grid": _named("regular", chunk_shape=[shard_size, *shape]),
        "chunk_key_encoding": _named("default", separator="/"),
        "fill_value": "NaN",
        "codecs": [sharding],
        "attributes": {},
        "dimension_names": list(_AXES[: 1 + len(shape)]),
    }


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    """How Zarr writes a codec or a grid."""
    return {"name": name, "configuration": configuration}


def group(arrays: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    """The `zarr.json` of the group and of its arrays, by key.

    The group holds a copy of all (consolidated metadata): other readers then list no folder.
    """
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    head = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {},
        "consolidated_metadata": consolidated,
    }
    objects = {f"{name}/zarr.json": encode(array) for name, array in arrays.items()}
    return objects | {"zarr.json": encode(head)}


def encode(value: Any) -> bytes:
    """JSON for people to read, the same bytes for the same value."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def encode_shard(
    layout: Mapping[str, dict[str, Any]], shard: int, maps: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """Key -> object; `maps` are all rows of the shard, (rows, *shape) by name, as in `layout`."""
    values: dict[str, np.ndarray] = dict(maps)
    for name, one in maps.items():
        if name + SCALE in layout:
            values[name], values[name + SCALE] = to_float16(one)
    memory = ts.Context()  # of its own: shards do not meet
    for name, one in values.items():
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "memory", "path": f"{name}/"},
            "metadata": layout[name],
            "create": True,
            "store_data_equal_to_fill_value": True,
        }
        array = ts.open(spec, context=memory).result()
        first = shard * layout[name]["chunk_grid"]["configuration"]["chunk_shape"][0]
        array[first : first + len(one)].write(one).result()
    objects = ts.KvStore.open({"driver": "memory"}, context=memory).result()
    keys = [key for key in objects.list().result() if b"/c/" in key]
    return {key.decode(): objects.read(key).result().value for key in keys}


def to_float16(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, ...) as float16 and their scales (N,): maps ≈ float16 · scale.

    The scale is the power of two that brings the largest |value| into [2¹⁴, 2¹⁵), so it costs no
    precision itself: values down to 2⁻²⁹ of the largest keep float16's relative error of 2⁻¹¹.
    A map with numbers that are not finite is stored as NaN, with scale NaN.
    """
    flat = maps.reshape(len(maps), -1)
    largest = np.abs(flat).max(-1, initial=0)  # NaN where a value is NaN
    finite = np.isfinite(largest)
    exponent = np.frexp(np.where(finite, largest, 0))[1] - _LARGEST_EXPONENT
    exponent = np.where(largest > 0, np.maximum(exponent, _SMALLEST_EXPONENT), 0)
    scale = np.where(finite, np.ldexp(np.float32(1), exponent), np.float32("nan"))
    with np.errstate(invalid="ignore"):
        scaled = flat / scale[:, None]
    return scaled.astype(np.float16).reshape(maps.shape), scale.astype(np.float32)
