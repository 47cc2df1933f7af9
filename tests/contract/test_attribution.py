"""What `attribute` returns: saved, loaded and indexed."""

import jax
import numpy as np
import pytest
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from dmbp_jax.errors import DataError, InputError

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
    np.testing.assert_array_equal(one.history, batch.history[4])
    with pytest.raises(IndexError, match="index"):
        batch[5]
    with pytest.raises(IndexError):
        batch[-6]
    with pytest.raises(InputError):
        one[0]
    with pytest.raises(InputError):
        list(one)
    assert [int(one.label) for one in batch] == LABELS.tolist()


@pytest.mark.parametrize(
    "index",
    [
        slice(0, 2),
        slice(None, None, -2),
        slice(7, 9),
        [3, -5],
        [],
        np.array([True, False, False, True, False]),
        jax.numpy.array([4, 4]),
    ],
)
def test_several_images_of_a_batch(batch, index):
    some = batch[index]
    places = np.arange(5)[np.asarray(index, int) if isinstance(index, list) else index]
    for ours, theirs in zip(jax.tree.leaves(some), jax.tree.leaves(batch), strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs)[places])
    assert len(some) == len(places) and some.masks is None


@pytest.mark.parametrize(
    "index", ["x", 1.5, None, True, (0, 1, 2.0), [[0], [1]], slice("a", None), b"1", ...]
)
def test_an_index_of_another_kind_is_named(batch, index):
    with pytest.raises(TypeError, match="index: Expected an int, a slice"):
        batch[index]


@pytest.mark.parametrize("index", [[5], [0, -6], np.array([True] * 6)])
def test_images_that_are_not_there(batch, index):
    with pytest.raises(IndexError, match="index"):
        batch[index]


def test_an_index_inside_a_trace(batch):
    third = jax.jit(lambda att, i: att[i])(batch, 2)
    np.testing.assert_array_equal(third.history, batch.history[2])
    some = jax.jit(lambda att, i: att[i])(batch, np.array([1, -1], np.int8))
    np.testing.assert_array_equal(some.map, batch.map[np.array([1, 4])])


@pytest.mark.parametrize("index", [5, -6, np.uint8(200), np.array([9, 0])])
def test_images_that_are_not_there_inside_a_trace(batch, index):
    found = jax.jit(lambda att, i: att[i])(batch, index)
    missing = np.ravel(index) != 0
    np.testing.assert_array_equal(np.ravel(found.status), ~missing)
    assert np.isnan(np.reshape(found.map, (len(missing), -1))[missing]).all()
    assert (
        np.isnan(np.ravel(found.y)[missing]).all()
        and np.isfinite(np.ravel(found.y)[~missing]).all()
    )


def _as_0_2(path, attribution):
    """As `save` wrote it in 0.2: format 2, `history` (steps, N, 3), steps taken, no logits."""
    with np.load(attribution.save(path)) as stored:
        arrays = dict(stored)
    arrays |= {"format": np.int64(2), "steps": np.full(attribution.y.shape, 8, np.int32)}
    del arrays["logits"]
    if arrays["history"].ndim == 3:
        arrays["history"] = arrays["history"].swapaxes(0, 1)
    np.savez_compressed(path, **arrays)
    return path


def test_files_of_the_format_before_are_read(tmp_path, batch):
    for attribution in (batch, batch[2]):
        loaded = dmbp_jax.Attribution.load(_as_0_2(tmp_path / "old.npz", attribution))
        assert loaded.logits is None
        np.testing.assert_array_equal(loaded.history, attribution.history)
        np.testing.assert_array_equal(loaded.map, attribution.map)
        again = dmbp_jax.Attribution.load(loaded.save(tmp_path / "new.npz"))
        assert jax.tree.structure(again) == jax.tree.structure(loaded)


@pytest.mark.slow
def test_damaged_files_are_refused_or_right(tmp_path, batch):
    """2,000 flips of one bit, and every kind of truncation, of a small file."""
    good = batch[:2].save(tmp_path / "good.npz").read_bytes()
    expected = jax.tree.leaves(batch[:2])
    random, refused = np.random.default_rng(0), 0
    directory = good.rindex(b"PK\x01\x02", 0, good.index(b"PK\x01\x02") + 4)
    places = [*random.integers(0, len(good), 1000), *random.integers(directory, len(good), 1000)]
    damaged = [_flipped(good, place, random.integers(8)) for place in places]
    damaged += [good[:length] for length in random.integers(0, len(good), 100)]
    path = tmp_path / "damaged.npz"
    for data in damaged:
        path.write_bytes(data)
        try:
            loaded = dmbp_jax.Attribution.load(path)
        except DataError:
            refused += 1
            continue
        for ours, theirs in zip(jax.tree.leaves(loaded), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert refused > 1000


def _flipped(data, place, bit):
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)
