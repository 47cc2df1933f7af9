"""Stored maps: float16 with a scale loses little, and other Zarr readers read them."""

import numpy as np
import pytest
from small_runs import small_plan, write_pictures

from dmbp_jax import runs
from dmbp_jax.runs.arrays import encode_shard, metadata, to_float16


def relative_errors(maps: np.ndarray) -> np.ndarray:
    """|restored − map| / |map| of every value that is not 0, by float64."""
    stored, scale = to_float16(maps)
    restored = stored.astype(np.float64) * scale.astype(np.float64)[:, None, None]
    values = maps.astype(np.float64)
    return (np.abs(restored - values) / np.abs(values))[values != 0]


@pytest.mark.parametrize("size", [1e-30, 1e-7, 1.0, 1e20])
def test_float16_keeps_the_relative_error_small_at_any_size(rng, size):
    # Values over six powers of ten, as attribution maps have them.
    maps = rng.normal(size=(4, 32, 32)) * 10.0 ** rng.uniform(-6, 0, (4, 32, 32)) * size
    errors = relative_errors(maps.astype(np.float32))
    assert np.quantile(errors, 0.99) < 1e-3
    assert errors.max() < 0.02 or size == 1e-30  # there float32 itself has few digits left


def test_plain_float16_would_not(rng):
    maps = (rng.normal(size=(4, 32, 32)) * 1e-7).astype(np.float32)
    plain = maps.astype(np.float16).astype(np.float64)
    assert np.quantile(np.abs(plain - maps) / np.abs(maps), 0.99) > 0.1


def test_scales_are_powers_of_two_and_survive_every_extreme():
    maps = np.float32([[3e38, -3e38], [1e-45, 0], [0, 0], [np.inf, 1], [1, -2]])
    stored, scale = to_float16(maps)
    assert np.isfinite(stored[:3]).all()
    assert np.isnan(stored[3]).any()
    assert np.isnan(scale[3])
    mantissa, _ = np.frexp(scale[[0, 1, 2, 4]])
    assert (mantissa == 0.5).all()
    assert scale[2] == 1
    assert (stored[4] * scale[4] == maps[4]).all()
    assert np.allclose(stored[0] * scale[0], maps[0], rtol=1e-3)


def test_equal_values_are_equal_bytes_and_shards_do_not_meet(rng):
    layout = {"map": metadata(10, (8, 8), "float16", 4)}
    values = rng.normal(size=(4, 8, 8)).astype(np.float16)
    first = encode_shard(layout, 1, {"map": values})
    assert list(encode_shard(layout, 0, {"map": values + 1})) == ["map/c/0/0/0"]
    assert encode_shard(layout, 1, {"map": values}) == first
    assert list(first) == ["map/c/1/0/0"]
    (data,) = encode_shard(layout, 0, {"map": np.full_like(values, np.nan)}).values()
    assert data


def test_zarr_python_reads_the_maps(tmp_path):
    zarr = pytest.importorskip("zarr")
    plan = small_plan(write_pictures(tmp_path / "in", 6), save="heatmap,positive")
    runs.run_local(plan, runs.Store(tmp_path / "out"))
    run = runs.open(tmp_path / "out")
    group = zarr.open_group(tmp_path / "out", mode="r")
    assert set(group.array_keys()) == {"heatmap", "heatmap_scale", "positive", "positive_scale"}
    maps = group["heatmap"][:].astype(np.float32) * group["heatmap_scale"][:][:, None, None]
    np.testing.assert_array_equal(maps, run.maps("heatmap")[:])
    parts = group["positive"][:].astype(np.float32) * group["positive_scale"][:].reshape(
        -1, 1, 1, 1
    )
    np.testing.assert_array_equal(parts, run.maps("positive")[:])
