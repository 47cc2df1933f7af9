"""Variants of the built-in network: training the ViT, the table of slopes; a step in turns."""

import json

import jax
import numpy as np
import pytest
from safetensors import safe_open

import dmbp_jax
from benchmarks.faithfulness import activations
from benchmarks.speed import step_speed
from benchmarks.training import train_builtin
from benchmarks.training.train_builtin import VARIANTS, make_variant
from dmbp_jax.models.builtin import INPUT_SHAPE

pytestmark = pytest.mark.slow
FEW = ["--pictures", "4", "--held-out", "40", "--steps", "1", "--batch", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The ViT, trained for one step."""
    folder = tmp_path_factory.mktemp("variants")
    train_builtin.main(["--out", str(folder / "vit.safetensors"), "--network", "vit", *FEW])
    return folder


def test_the_script_trains_the_vit(folder):
    with safe_open(folder / "vit.safetensors", "numpy") as written:
        assert written.get_slice("params/position").get_shape() == [1, 144, 64]
        assert written.metadata()["command"].endswith("--network vit")


def test_options_of_the_other_network_are_refused(capsys):
    with pytest.raises(SystemExit):
        train_builtin.main(["--out", "none", "--network", "vit", "--activation", "gelu"])
    assert "--activation: Expected only with builtin" in capsys.readouterr().err


def test_every_variant_is_explained_with_what_it_asks_for():
    counts = {}
    for name in VARIANTS:
        module, nonaffine = make_variant(name)
        variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *INPUT_SHAPE)))
        variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), variables)
        found = dmbp_jax.sites(
            variables, np.zeros(INPUT_SHAPE), apply_fn=module.apply, nonaffine=nonaffine
        )
        counts[name] = sum(site.masked for site in found), sum(s.kind == "frozen" for s in found)
    # Two activations of the stem and one a block; a norm each, two norms and a softmax a block.
    assert counts.pop("vit") == (2 + 3, 2 + 3 * 3 + 1)
    assert set(counts.values()) == {(7, 0)}


def test_the_table_is_measured_once(folder, capsys, monkeypatch):
    monkeypatch.setattr(activations, "COMPARED", {"gradient": "gradient × input"})
    monkeypatch.setattr(activations, "SLOPES", ("secant",))
    call = [str(folder), "--limit", "1", "--points", "3", "--measures", "all"]
    activations.main(call)
    out = capsys.readouterr().out
    records = json.loads((folder / "scores.json").read_text())["vit"]
    assert list(records) == [
        "gradient",
        "quick:pointwise=secant",
        "quick:pointwise=secant,carry",
    ]
    assert "### vit: 1 pictures, 3 points" in out
    assert "| vit | dmbp, secant, biases carried |" in out
    written = (folder / "scores.json").stat().st_mtime_ns
    activations.main(call)
    assert capsys.readouterr().out == out
    assert (folder / "scores.json").stat().st_mtime_ns == written


def record(values):
    return {"numbers": {"IM": values, "inside": values, "carried+": [0.0, 0.1, 0.9]}}


def test_the_table_by_hand():
    rows = activations.choose_rows("gelu", "quick")
    values = [[0.1] * 3, [0.0] * 3, [0.4, 0.5, 0.6], [0.5, 0.7, 0.9], [0.3] * 3, [1.0] * 3]
    network = {row: record(one) for row, one in zip(rows, values, strict=True)}
    lines = activations.summary({"gelu": network, "tanh": network, "relu": network})
    # Differences to the secant .1, .2, .3: mean .2, standard deviation .1, over √3; both networks
    # together .0894 over √6.
    tangent = "| gelu | dmbp, tangent | 0.700 | +0.200 ± 0.058 | – | – | 0.700 | – | 0.100 |"
    assert tangent in lines
    both = "| mean of gelu, tanh | dmbp, tangent | 0.700 | +0.200 ± 0.037 |"
    assert any(line.startswith(both) for line in lines)
    assert sum(line.startswith("| mean") for line in lines) == len(rows)
    assert activations.choose_rows("relu", "quick")[2:] == ["quick", "quick:carry"]


def test_a_step_beside_another_checkout():
    rounds = [[{"wall": a, "cpu": a / 2}, {"wall": 1.0, "cpu": 0.5}] for a in (0.9, 1.0, 1.4)]
    first, wall, cpu = step_speed.lines("net", [1.5, 2.0], rounds)
    assert first == "net: tracing 1.50 s and 2.00 s"
    assert wall.endswith(
        "1000.0 ms and 1000.0 ms; ratio to the other checkout 1.000 (0.950 to 1.200)"
    )
    assert "of the processor: 500.0 ms and 500.0 ms" in cpu
    assert step_speed.lines("net", [1.5], []) == ["net: tracing 1.50 s"]
    (_, wall, _) = step_speed.lines("net", [1.5], [[one] for one, _ in rounds])
    assert wall == "  a step, on the clock: 1000.0 ms"
