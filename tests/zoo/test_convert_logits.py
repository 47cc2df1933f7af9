"""Converted networks answer as PyTorch does: stored float64 logits, both containers, no PyTorch.

The references come from tests/references/make_torch_references.py.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from references.cases import FULL, SMALL, Case, picture, random_state

import dmbp_jax
from dmbp_jax.convert import convert_file, load_variables, read_checkpoint
from dmbp_jax.convert.conversion import convert_entry
from dmbp_jax.networks.registry import Entry, find_entry

REFERENCES = Path(__file__).parents[1] / "references"
TOLERANCE = 1e-4  # of the largest logit


def relative_error(logits, expected) -> float:
    return float(np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max())


def entry_of(case: Case) -> Entry:
    entry = find_entry(case.network)
    return replace(entry, module=entry.module.clone(**case.sizes))


def answer(case: Case, state_dict) -> jax.Array:
    entry = entry_of(case)
    variables = convert_entry(state_dict, case.network, entry)
    return jax.jit(entry.module.apply)(variables, picture(case.side))


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_from_both_containers(name, container):
    state_dict = read_checkpoint(REFERENCES / f"{name}.{container}.pth")
    expected = np.load(REFERENCES / "small.npz")[name]
    assert expected.std() > 0.1  # not a dead network
    assert relative_error(answer(SMALL[name], state_dict), expected) < TOLERANCE


def test_timm_names_in_safetensors():
    state_dict = read_checkpoint(REFERENCES / "vgg16.timm.safetensors")
    assert "head.fc.weight" in state_dict
    expected = np.load(REFERENCES / "small.npz")["vgg16"]
    assert relative_error(answer(SMALL["vgg16"], state_dict), expected) < TOLERANCE


def test_missing_batch_counters_and_float64_and_float16():
    state_dict = read_checkpoint(REFERENCES / "resnet50.zip.pth")
    old = {key: v for key, v in state_dict.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state_dict)
    expected = np.load(REFERENCES / "small.npz")["resnet50"]
    for dtype, tolerance in ((np.float64, TOLERANCE), (np.float16, 2e-2)):
        cast = {key: value.astype(dtype) for key, value in old.items()}
        assert relative_error(answer(SMALL["resnet50"], cast), expected) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_size_networks(name, tmp_path):
    if name == "vgg16" and not os.environ.get("DMBP_SLOW_TESTS"):
        pytest.skip("VGG16 needs 2 GB and half a minute; set DMBP_SLOW_TESTS=1")
    stored = np.load(REFERENCES / f"{name}_full.npz")
    state_dict = random_state(json.loads(str(stored["shapes"])))
    assert relative_error(answer(FULL[name], state_dict), stored["logits"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_full_resnet50_written_by_torch(container, tmp_path):
    torch = pytest.importorskip("torch")
    stored = np.load(REFERENCES / "resnet50_full.npz")
    state_dict = random_state(json.loads(str(stored["shapes"])))
    tensors = {key: torch.from_numpy(value) for key, value in state_dict.items()}
    tensors = {f"module.{key}": value for key, value in tensors.items()}
    wrapped = {"epoch": 3, "best": 0.5, "arch": "resnet50", "state_dict": tensors}
    zipped = container == "zip"
    torch.save(wrapped, tmp_path / "in.pth", _use_new_zipfile_serialization=zipped)

    convert_file(tmp_path / "in.pth", tmp_path / "out.safetensors", "resnet50")
    call = jax.jit(lambda net, x: net(x))
    for weights in ("in.pth", "out.safetensors"):
        net = dmbp_jax.load("resnet50", weights=tmp_path / weights)
        assert relative_error(call(net, picture(96)), stored["logits"]) < TOLERANCE
    assert call._cache_size() == 1  # the module and the names are equal: nothing to trace again
    shape = load_variables(tmp_path / "out.safetensors")["params"]["layer4_2"]["conv3"]
    assert shape["kernel"].shape == (1, 1, 512, 2048)
    assert shape["bias"].dtype == np.float32
