"""A large run in one process: right numbers, exactly once, compiled once, failures named."""

import csv
from hashlib import sha256

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from short_methods import slow_beside
from small_runs import contents, overflowing_network, small_plan, tiny_network, write_pictures

import dmbp_jax
from dmbp_jax import DMBP, runs
from dmbp_jax.errors import (
    DeviceMemoryError,
    InputError,
    NoReluError,
    StoreError,
    UnsupportedNetworkError,
)
from dmbp_jax.methods import METHODS
from dmbp_jax.methods.keys import image_key
from dmbp_jax.metrics import insertion
from dmbp_jax.networks.network import Network
from dmbp_jax.runs import worker as worker_module
from dmbp_jax.runs.worker import Worker


def store_run(plan, folder, **options):
    store = runs.Store(folder)
    counts = runs.run_local(plan, store, **options)
    return counts, runs.open(folder)


def test_rows_and_maps_are_those_of_attribute(tmp_path):
    folder = write_pictures(tmp_path / "in", 10)
    everything = "heatmap,map,positive,negative"
    plan = small_plan(folder, save=everything, dtype="float32")
    counts, run = store_run(plan, tmp_path / "out")
    assert counts == (3, 3)
    net = tiny_network()
    x = np.stack([net.preprocess(path) for path in sorted(folder.iterdir())])
    expected = dmbp_jax.attribute(net, x, config=DMBP(steps=3))
    for name in everything.split(","):
        maps = run.maps(name)
        assert maps.shape[0] == len(maps) == len(run) == 10
        np.testing.assert_allclose(maps[:], getattr(expected, name), rtol=2e-4, atol=1e-6)
    probabilities = np.asarray(jax.nn.softmax(net(x)))
    for i, row in enumerate(run.rows):
        assert row["file"] == f"{i:03d}.png"
        assert (row["status"], row["error"]) == ("ok", None)
        assert row["label"] == expected.label[i] == probabilities[i].argmax()
        assert row["probability"] == pytest.approx(probabilities[i].max(), rel=1e-5)
        for name in ("y", "y_positive", "y_negative", "y_nuisance"):
            assert row[name] == pytest.approx(float(getattr(expected, name)[i]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("biases", slow_beside(["spread", "refine", "carry"], "spread", "carry"))
def test_complete_maps_are_those_of_attribute(tmp_path, biases):
    folder = write_pictures(tmp_path / "in", 4)
    plan = small_plan(folder, save="positive", dtype="float32", biases=biases)
    _, run = store_run(plan, tmp_path / "out")
    net = tiny_network()
    x = np.stack([net.preprocess(path) for path in sorted(folder.iterdir())])
    expected = dmbp_jax.attribute(net, x, config=DMBP(steps=3), biases=biases)
    np.testing.assert_allclose(run.maps("positive")[:], expected.positive, rtol=2e-4, atol=1e-6)
    sums = run.maps("positive")[:].sum((1, 2, 3))
    np.testing.assert_allclose(sums, [row["y_positive"] for row in run.rows], rtol=1e-4)


@pytest.mark.slow
def test_float16_maps_are_near_those_of_float32(tmp_path):
    folder = write_pictures(tmp_path / "in", 8)
    _, half = store_run(small_plan(folder), tmp_path / "half")
    _, full = store_run(small_plan(folder, dtype="float32"), tmp_path / "full")
    a, b = half.maps()[:], full.maps()[:]
    assert np.quantile(np.abs(a - b)[b != 0] / np.abs(b[b != 0]), 0.99) < 1e-3
    assert not np.array_equal(a, b)
    net = tiny_network()
    x = np.stack([net.preprocess(path) for path in sorted(folder.iterdir())])
    labels = np.array([row["label"] for row in full.rows], np.int32)
    auc = [np.asarray(insertion(net, x, labels, maps, step=1).auc) for maps in (a, b)]
    assert np.abs(auc[0] - auc[1]).max() < 1e-3  # of every image, so of their mean too
    assert np.ptp(auc[1]) > 1e-2  # the maps do decide the score


def test_reading_by_index_name_and_slice(tmp_path):
    _, run = store_run(small_plan(write_pictures(tmp_path / "in", 6)), tmp_path / "out")
    maps = run.maps("heatmap")
    np.testing.assert_array_equal(maps[3], maps["003.png"])
    np.testing.assert_array_equal(maps[-1], maps[5])
    np.testing.assert_array_equal(maps[1:5:2], np.stack([maps[1], maps[3]]))
    np.testing.assert_array_equal(np.asarray(maps), maps[:])
    np.testing.assert_array_equal(maps[4:1:-2], np.stack([maps[4], maps[2]]))
    assert maps[3:1].shape == maps[2:2].shape == (0, *maps.shape[1:])
    assert [row["file"] for row in run.rows[4:]] == ["004.png", "005.png"]
    assert maps[0].dtype == np.float32
    for wrong in (6, -7):
        with pytest.raises(IndexError, match="below 6"):
            maps[wrong]
        with pytest.raises(IndexError):
            run.rows[wrong]
    for wrong in ([0, 2], 1.0, None):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            maps[wrong]
    with pytest.raises(KeyError, match="no such row"):
        maps["dog.jpg"]
    with pytest.raises(InputError, match="name: Expected one of heatmap, got 'map'"):
        run.maps("map")


def test_several_labels_a_file(tmp_path):
    write_pictures(tmp_path / "in", 2)
    table = tmp_path / "in" / "rows.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("file", "label"), ("000.png", 2), ("001.png", 0), ("000.png", 1), ("000.png", "")]
        )
    _, run = store_run(small_plan(table, shard_size=3), tmp_path / "out")
    assert [row["label"] for row in run.rows][:3] == [2, 0, 1]
    np.testing.assert_array_equal(run.maps()["001.png"], run.maps()[1])
    with pytest.raises(KeyError, match=r"several rows; give \(file, label\)"):
        run.maps()["000.png"]
    np.testing.assert_array_equal(run.maps()["000.png", 1], run.maps()[2])


@pytest.mark.parametrize(
    "method", slow_beside(["gradient", "gradcam", "rise"], "gradient", "gradcam")
)
def test_other_methods(tmp_path, method):
    folder = write_pictures(tmp_path / "in", 4)
    options = {"n_masks": 8} if method == "rise" else {}
    plan = small_plan(folder, method=method, config=None, options=options, dtype="float32")
    _, run = store_run(plan, tmp_path / "out")
    net = tiny_network()
    paths = sorted(folder.iterdir())
    x = np.stack([net.preprocess(path) for path in paths])
    hashes = [sha256(path.read_bytes()).hexdigest() for path in paths]
    key = jnp.stack([image_key(0, one) for one in hashes]) if method == "rise" else None
    expected = np.asarray(METHODS[method](net, x, key=key, **options))
    expected = expected.sum(-1) if expected.ndim == 4 else expected
    np.testing.assert_allclose(run.maps()[:], expected, rtol=2e-4, atol=1e-6)
    assert run.rows[0]["y"] == pytest.approx(float(net(x)[0].max()), rel=1e-5)
    assert run.rows[0]["y_positive"] is None


def test_a_finished_run_does_nothing_and_a_half_one_the_rest(tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 10))
    _, run = store_run(plan, tmp_path / "out")
    whole = contents(tmp_path / "out")
    assert store_run(plan, tmp_path / "out")[0] == (0, 0)
    run.store.delete("commits/00000001.jsonl")
    half = runs.open(tmp_path / "out")
    assert half.missing == [4, 5, 6, 7]
    assert half.rows[5]["status"] == "missing"
    assert half.rows[5]["file"] == "005.png"
    batches = []
    counts, run = store_run(plan, tmp_path / "out", report=batches.append)
    assert counts == (1, 1)
    assert sum(done.rows for done in batches) == 4
    assert run.missing == []
    assert contents(tmp_path / "out") == whole


def test_a_record_of_another_run_is_not_read(tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 2), method="gradient", config=None)
    store = runs.Store(tmp_path / "out")
    runs.open_manifest(store, plan)
    assert runs.commit(store, "another", runs.Worker(plan).process_shard(0))
    run = runs.Run(store)
    for read in (lambda: run.rows[0], lambda: list(run.commits()), lambda: list(run.failures())):
        with pytest.raises(StoreError, match=r"00000000\.jsonl is of another run"):
            read()
    assert [problem.shard for problem in run.verify()] == [0]


def test_maps_that_are_not_done_are_nan(tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 6))
    store = runs.Store(tmp_path / "out")
    runs.open_manifest(store, plan)
    run = runs.open(tmp_path / "out")
    assert np.isnan(run.maps()[2]).all()
    assert run.missing == list(range(6))
    assert [row["status"] for row in run.rows] == ["missing"] * 6
    runs.run_local(plan, store)
    assert [row["status"] for row in run.rows] == ["ok"] * 6  # also of a run that is going on
    assert np.isfinite(run.maps()[2]).all()


def test_pictures_that_fail_are_rows_with_a_reason(tmp_path):
    folder = write_pictures(tmp_path / "in", 9)
    _, clean = store_run(small_plan(folder), tmp_path / "clean")
    data = (folder / "002.png").read_bytes()
    (folder / "002.png").write_bytes(data[: len(data) // 2])
    (folder / "005.png").write_bytes(b"")
    for i in range(4, 8):
        (folder / f"{i:03d}.png").write_bytes(b"no picture")  # all of shard 1
    plan = small_plan(folder)
    (folder / "000.png").unlink()  # vanishes after it was listed
    counts, run = store_run(plan, tmp_path / "out")
    assert counts == (3, 3)
    failed = {row["file"]: row["error"] for row in run.failures()}
    assert list(failed) == ["000.png", "002.png", *(f"{i:03d}.png" for i in range(4, 8))]
    assert failed["000.png"] == "no such file."
    assert "truncated" in failed["002.png"]
    assert failed["005.png"].startswith("not a picture")
    for i in (1, 3, 8):
        assert run.rows[i]["status"] == "ok"
        np.testing.assert_allclose(run.maps()[i], clean.maps()[i], rtol=1e-3, atol=1e-6)
    assert np.isnan(run.maps()[2]).all()
    assert run.rows[2]["y"] is None
    assert run.verify() == []


def test_a_picture_on_which_the_network_overflows_fails_alone(tmp_path):
    folder = write_pictures(tmp_path / "in", 5)
    Image.new("RGB", (20, 20), "white").save(folder / "002.png")
    plan = small_plan(folder, network=overflowing_network())
    _, run = store_run(plan, tmp_path / "out")
    assert [row["status"] for row in run.rows] == ["ok", "ok", "failed", "ok", "ok"]
    assert "overflow" in run.rows[2]["error"]
    assert np.isnan(run.maps()[2]).all()
    assert np.isfinite(run.maps()[3]).all()


def _rest(net):
    return net.preprocessing, net.labels, net.name, net.activation


def test_a_worker_compiles_once_over_all_its_shards(tmp_path):
    plan = small_plan(write_pictures(tmp_path / "in", 14))
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    worker = Worker(plan)
    worker.process_shard(0)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for shard in (1, 2, 3):  # the last has two rows
            worker.process_shard(shard)
        assert compiled == []
        Worker(small_plan(tmp_path / "in", shard_size=12)).process_shard(0)
        assert compiled  # the count does count
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
        worker.close()


def test_batches_of_any_size_give_the_same_numbers(tmp_path):
    folder = write_pictures(tmp_path / "in", 10)
    plan = small_plan(folder, shard_size=10, dtype="float32")
    _, one = store_run(plan, tmp_path / "one", batch_size=1)
    _, many = store_run(plan, tmp_path / "many", batch_size=8)
    np.testing.assert_allclose(one.maps()[:], many.maps()[:], rtol=2e-4, atol=1e-6)


def test_a_network_that_cannot_be_explained_is_refused(tmp_path):
    net = tiny_network()
    plan = small_plan(write_pictures(tmp_path / "in", 2))
    linear = nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(3)])
    variables = linear.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    plan = small_plan(tmp_path / "in", network=Network(linear, variables, *_rest(net)))
    with pytest.raises(NoReluError):
        runs.run_local(plan, runs.Store(tmp_path / "out"))


class Reversed(nn.Module):
    """Logits of the other images of a batch; of one image alone its own."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3))(x[::-1])).mean((1, 2)))


def test_a_network_that_mixes_images_is_refused_before_the_run(tmp_path):
    module, net = Reversed(), tiny_network()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    network = Network(module, variables, *_rest(net))
    plan = small_plan(write_pictures(tmp_path / "in", 2), network=network)
    with pytest.raises(UnsupportedNetworkError, match="every image of a batch"):
        runs.run_local(plan, runs.Store(tmp_path / "out"))
    assert not any((tmp_path / "out").glob("*"))


def test_too_large_a_batch_names_the_option_to_lower(tmp_path, monkeypatch):
    def full(*_, **__):
        raise DeviceMemoryError("chunk_size")

    monkeypatch.setattr(worker_module, "explain_images", full)
    plan = small_plan(write_pictures(tmp_path / "in", 16), shard_size=16)
    with pytest.raises(
        DeviceMemoryError, match=r"with 4 images at once; .* \(--batch-size\).* 2\."
    ):
        runs.run_local(plan, runs.Store(tmp_path / "out"))
    assert runs.open(tmp_path / "out").missing == list(range(16))
