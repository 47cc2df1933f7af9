"""Going on with the same run, and refusing every other one by the name of what differs."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from small_runs import CLASSES, contents, small_plan, tiny_network, write_pictures

from dmbp_jax import DMBP, Objective
from dmbp_jax.errors import ResumeError, StoreError
from dmbp_jax.networks.preprocessing import Preprocessing
from dmbp_jax.runs import Store, open_manifest
from dmbp_jax.runs import open as open_run


@pytest.fixture
def begun(tmp_path):
    """A store in which a run has begun, and its pictures."""
    folder = write_pictures(tmp_path / "in", 5)
    store = Store(tmp_path / "out")
    open_manifest(store, small_plan(folder))
    return store, folder


def test_the_same_run_goes_on_and_writes_nothing_new(begun, tmp_path):
    store, folder = begun
    before = contents(tmp_path / "out")
    first = open_run(store.url).fingerprint
    assert open_manifest(store, small_plan(folder)) == first
    assert contents(tmp_path / "out") == before


def test_a_start_that_was_cut_off_is_completed(begun, tmp_path):
    store, folder = begun
    whole = contents(tmp_path / "out")
    for name in ("inputs.jsonl", "zarr.json", "heatmap/zarr.json"):
        store.delete(name)
    (tmp_path / "out" / "manifest.json.__lock").write_bytes(b"")
    open_manifest(store, small_plan(folder))
    assert contents(tmp_path / "out") == whole
    store.delete("manifest.json")
    for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
        if not path.name.startswith("manifest.json"):
            path.rmdir() if path.is_dir() else path.unlink()
    open_manifest(store, small_plan(folder))  # killed inside its very first write
    assert contents(tmp_path / "out") == whole


def renamed(**changes):
    return dataclasses.replace(tiny_network(), **changes)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"network": tiny_network(seed=1)}, "weights"),
        ({"network": renamed(name="other")}, "network"),
        ({"network": renamed(activation="sigmoid")}, "activation"),
        ({"network": renamed(labels=CLASSES[::-1])}, "classes"),
        ({"network": renamed(preprocessing=Preprocessing(17, 16))}, "preprocessing.resize"),
        ({"method": "gradient", "config": None}, "method"),
        ({"config": DMBP(steps=4)}, "options.config.steps"),
        ({"config": DMBP(steps=3, optimizer=optax.adam(0.1))}, "options.config.optimizer"),
        ({"config": DMBP(steps=3, loss=Objective(lambda y, p, n: n - p))}, "options.config.loss"),
        ({"nonaffine": "freeze"}, "options.nonaffine"),
        ({"biases": "carry"}, "options.biases"),
        ({"labels": 1}, "labels"),
        ({"save": "map"}, "save"),
        ({"dtype": "float32"}, "dtype"),
        ({"shard_size": 5}, "shard_size"),
    ],
)
def test_another_run_is_refused_naming_the_field(begun, options, field):
    store, folder = begun
    with pytest.raises(ResumeError, match=f"another {field}: stored .*, now "):
        open_manifest(store, small_plan(folder, **options))


class Leaky(nn.Module):
    """Its activation is a function of the caller."""

    act: Callable

    @nn.compact
    def __call__(self, x):
        return nn.Dense(len(CLASSES))(self.act(x.reshape(len(x), -1)))


def test_networks_that_differ_in_a_function_are_two(tmp_path):
    """Their modules look alike, and so do their weights; their programs do not."""
    folder, store = write_pictures(tmp_path / "in", 2), Store(tmp_path / "out")
    slopes = [Leaky(lambda x, slope=slope: jnp.maximum(x, slope * x)) for slope in (0.1, 0.1, 0.2)]
    variables = slopes[0].init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    first, same, other = (renamed(module=module, variables=variables) for module in slopes)
    fingerprint = open_manifest(store, small_plan(folder, network=first))
    assert open_manifest(store, small_plan(folder, network=same)) == fingerprint
    with pytest.raises(ResumeError, match="another architecture: stored"):
        open_manifest(store, small_plan(folder, network=other))


def test_another_list_of_files_is_refused(begun):
    store, folder = begun
    (folder / "000.png").write_bytes(b"shorter")
    with pytest.raises(ResumeError, match=r"another images\.names and sizes"):
        open_manifest(store, small_plan(folder))
    write_pictures(folder, 6)
    with pytest.raises(ResumeError, match=r"another images\.rows: stored 5, now 6"):
        open_manifest(store, small_plan(folder))


def test_another_version_is_refused(begun, monkeypatch):
    store, folder = begun
    with monkeypatch.context() as patch:
        patch.setattr("dmbp_jax.runs.configuration.__version__", "9.9")
        with pytest.raises(ResumeError, match=r"another package: stored .*, now '9.9'"):
            open_manifest(store, small_plan(folder))
    monkeypatch.setattr(jax, "__version__", "0.99")
    with pytest.raises(ResumeError, match="another jax"):
        open_manifest(store, small_plan(folder))


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    folder = write_pictures(tmp_path / "in", 1)
    before = contents(folder)
    with pytest.raises(ResumeError, match=r"an empty folder or a store of dmbp run, got 000\.png"):
        open_manifest(Store(folder), small_plan(folder))
    assert contents(folder) == before
    with pytest.raises(ResumeError, match="Expected a folder, got a file"):
        open_manifest(Store(folder / "000.png"), small_plan(folder))


def test_what_is_no_store_is_not_opened(tmp_path):
    with pytest.raises(StoreError, match=r"Expected a store of dmbp run, got none"):
        open_run(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text("{}", "utf-8")
    with pytest.raises(StoreError, match="format 1"):
        open_run(tmp_path)
