"""The benchmarks run on the built-in network, and the implementations they time agree.

No time is asserted; what is checked is that the numbers are there and come from the same masks.
"""

import importlib.util
import json
import math

import numpy as np
import pytest

import dmbp_jax
from dmbp_jax.models import VGG16, ResNet50

pytestmark = pytest.mark.slow
HAVE_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAVE_TORCH, reason="PyTorch is not installed")


@pytest.fixture(autouse=True, scope="module")
def quiet_threads():
    """OpenMP's threads, which PyTorch starts, do not spin while they wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield


@pytest.fixture(scope="module")
def row(quiet_threads, tmp_path_factory):
    """What `speed.py` writes about two pictures, with PyTorch where it is installed."""
    from benchmarks.speed.speed import main

    target = tmp_path_factory.mktemp("speed") / "speed.json"
    arguments = ["--networks", "builtin", "--batches", "2", "--rounds", "1", "--steps", "3"]
    arguments += ["--no-torch-compile", "--peak-tflops", "1"]
    arguments += ["--peak-gbps", "10", "--full", "2", "3"]
    assert main([*arguments, "--json", str(target)]) == 0
    (row,) = json.loads(target.read_text())["rows"]
    return row


def test_options_have_the_documented_defaults():
    from benchmarks.speed.speed import CONTENDERS, parse

    args = parse([])
    assert (args.networks, args.size, args.rounds) == (["resnet50"], 224, 5)
    assert tuple(args.contenders) == CONTENDERS


def test_titles_name_every_contender():
    from benchmarks.speed.contenders import TITLES
    from benchmarks.speed.speed import CONTENDERS

    assert tuple(TITLES) == CONTENDERS


def test_rows_are_complete(row):
    from benchmarks.speed.report import agreement_lines, row_lines

    assert {"forward", "jax", "convolutions"} <= set(row["seconds"])
    assert all(math.isfinite(s) and s > 0 for seconds in row["seconds"].values() for s in seconds)
    assert row["memory"]["scratch"] > 0
    report = "\n".join(row_lines(row))
    assert "roofline" in report
    assert "attribute(), 2 steps" in report and "attribute(), 3 steps" in report
    lines, _ = agreement_lines([row], 1e-3)
    assert ("NOT CHECKED" in lines[0]) != HAVE_TORCH


def test_flops_of_a_step_are_those_of_three_passes():
    from benchmarks.speed.contenders import Convolutions, make_images, make_network

    network, config = make_network("builtin", 96), dmbp_jax.DMBP()
    flops = Convolutions(network, make_images("builtin", 2, 96), config, 1).flops
    # Multiply-adds of the convolutions after the first ReLU, by hand: positions of the output,
    # inputs, outputs, taps. XLA leaves out the taps that fall into the padding.
    late = [(24 * 24, 24, 32, 9), (24 * 24, 32, 32, 9), (24 * 24, 24, 32, 1)]
    late += [(24 * 24, 32, 32, 9)] * 2
    late += [(12 * 12, 32, 64, 9), (12 * 12, 64, 64, 9), (12 * 12, 32, 64, 1)]
    by_hand = 2 * 3 * 2 * sum(math.prod(sizes) for sizes in late)
    assert 0.9 < flops / by_hand < 1.05


@needs_torch
def test_both_torch_implementations_agree_with_jax(row):
    assert set(row["differences"]) == {"torch-gated", "torch-double"}
    assert max(row["differences"].values()) < 1e-3


@needs_torch
@pytest.mark.parametrize(
    ("name", "module", "last"),
    [
        ("resnet50", ResNet50(classes=10, width=4), "fc"),
        ("vgg16", VGG16(classes=10, widths=(4, 8, 8, 16, 16), hidden=16), "fc8"),
    ],
)
def test_torch_networks_compute_the_same_logits(name, module, last):
    import torch

    from benchmarks.speed.contenders import make_images, random_variables
    from benchmarks.speed.torch_dmbp import operations, plain_logits

    variables, x = random_variables(module, last, 64), make_images(name, 1, 64)
    ops = operations(name, variables, torch.device("cpu"))
    logits = plain_logits(ops, torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(logits.numpy(), module.apply(variables, x), rtol=1e-4, atol=1e-3)


def test_a_disagreement_is_a_failure():
    from benchmarks.speed.report import agreement_lines

    rows = [{"network": "builtin", "differences": {"torch-gated": 2e-3}}]
    lines, agree = agreement_lines(rows, 1e-3)
    assert not agree and "DISAGREES" in lines[-1]
    assert not agreement_lines([{"network": "x", "differences": {"torch-gated": math.nan}}], 1)[1]


def test_precision_compares_a_run_with_itself():
    from benchmarks.studies.settings import attribute, compare, generated_case

    case = generated_case(1, seed=0)
    result = attribute(case, "float32, default", 3)
    row = compare(case, result, result, points=3)
    assert (row["y_positive"], row["y_negative"]) == (0, 0)
    assert row["rank_worst"] == pytest.approx(1)
    assert row["finite"] == 1
