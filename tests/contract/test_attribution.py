"""What `attribute` returns: saved, loaded and indexed."""

import jax
import numpy as np
import pytest
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")
LAYERS = NETWORKS["residual"]
PARAMS = jax.tree.map(lambda a: np.float32(a), make_params(LAYERS, 0))
IMAGES = np.stack([make_image(seed) for seed in range(5)]).astype(np.float32)
LABELS = np.array([0, 3, 1, 4, 2])


def attribute(x, label, **options):
    few, network = dmbp_jax.DMBP(steps=8), apply_fn_of(LAYERS)
    return dmbp_jax.attribute(PARAMS, x, label, apply_fn=network, config=few, **options)


@pytest.fixture(scope="module")
def batch():
    return attribute(IMAGES, LABELS)


def test_save_and_load(tmp_path, batch):
    for attribution in (batch, attribute(IMAGES[0], 0, return_masks=True)):
        path = attribution.save(tmp_path / "map")
        assert path == tmp_path / "map.npz"
        loaded = dmbp_jax.Attribution.load(path)
        assert jax.tree.structure(loaded) == jax.tree.structure(attribution)
        for ours, theirs in zip(jax.tree.leaves(attribution), jax.tree.leaves(loaded), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        dmbp_jax.Attribution.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(DataError, match=r"text\.npz"):
        dmbp_jax.Attribution.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(DataError, match=r"other\.npz"):
        dmbp_jax.Attribution.load(tmp_path / "other.npz")


def test_save_leaves_nothing_behind_when_it_fails(tmp_path, batch, monkeypatch):
    def broken(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        batch.save(tmp_path / "map")
    assert list(tmp_path.iterdir()) == []


def test_indexing_a_batch(batch):
    one = batch[-1]
    assert len(batch) == 5 and one.history.shape == (8, 3)
    np.testing.assert_array_equal(one.map, batch.map[4])
    with pytest.raises(IndexError):
        batch[5]
    with pytest.raises(InputError):
        one[0]
