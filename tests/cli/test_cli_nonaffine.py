"""`dmbp explain` and `dmbp run` with a network that has gates: frozen, and counted in one line."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from command_line import (  # fixtures too
    TINY,
    folder_of_pictures,  # noqa: F401
    jax_settings_as_before,  # noqa: F401 - on for every test here
    refused,
)
from small_runs import tiny_network

import dmbp_jax
from dmbp_jax import runs
from dmbp_jax.cli import main
from dmbp_jax.methods import METHODS
from dmbp_jax.networks.preprocessing import Preprocessing


class Gated(nn.Module):
    """Squeeze-and-excite between two convolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), 2)(x))
        x = x * nn.sigmoid(nn.Dense(4, name="excite")(x.mean((1, 2), keepdims=True)))
        return nn.Dense(3)(nn.relu(nn.LayerNorm(name="norm")(x)).mean((1, 2)))


@pytest.fixture(autouse=True)
def gated(monkeypatch: pytest.MonkeyPatch) -> dmbp_jax.Network:
    variables = Gated().init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    net = dmbp_jax.Network(
        Gated(), variables, Preprocessing(resize=16, size=16), ("a", "b", "c"), "tiny"
    )
    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda *_: net)
    return net


def test_explain_freezes_and_says_how_many(
    capsys: pytest.CaptureFixture[str], gated: dmbp_jax.Network, folder: Path
) -> None:
    argv = ["explain", "good0.png", "good1.png", "--label", "b", "--steps", "3", "--npz"]
    assert main([*argv, "--batch-size", "1", "-o", "maps", *TINY]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("tiny: gates taken as constants at each image: 2 (")
    assert len(others) == 2 and all(line.startswith("good") for line in others)
    stored = dmbp_jax.Attribution.load("maps/good0.dmbp.npz")
    assert stored.frozen == ("Gated/logistic", "Gated/norm/rsqrt")


def test_other_methods_freeze_where_they_look_inside(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    for method, lines in (("fullgrad", 2), ("gradient", 1)):
        assert main(["explain", "good0.png", "--method", method, "-o", method, *TINY]) == 0
        assert len(capsys.readouterr().out.splitlines()) == lines


def test_refuse(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    message = refused(capsys, "explain", "good0.png", "--nonaffine", "refuse", *TINY)
    assert "'mul' at 'Gated'" in message and "'Gated/norm/rsqrt'" in message


RUN = ["run", "good0.png", "good1.png", "-o", "maps.zarr", "--dtype", "float32", *TINY]


def preprocessed(net: dmbp_jax.Network) -> np.ndarray:
    return np.stack([net.preprocess(name) for name in ("good0.png", "good1.png")])


@pytest.mark.slow
def test_run_freezes_and_stores_the_maps_of_attribute(
    capsys: pytest.CaptureFixture[str], gated: dmbp_jax.Network, folder: Path
) -> None:
    names = ("map", "positive", "negative")
    assert main([*RUN, "--steps", "3", "--save", ",".join(names)]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("tiny: gates taken as constants at each image: 2 (")
    assert last == "maps.zarr: 2 rows in 1 shards done, 0 failed"
    expected = dmbp_jax.attribute(
        gated, preprocessed(gated), config=dmbp_jax.DMBP(steps=3), nonaffine="freeze"
    )
    run = runs.open("maps.zarr")
    for name in names:
        np.testing.assert_allclose(run.maps(name)[:], getattr(expected, name), rtol=2e-4, atol=1e-6)
    assert run.configuration["options"]["nonaffine"] == "freeze"


@pytest.mark.slow
def test_run_takes_it_for_methods_that_look_inside(
    capsys: pytest.CaptureFixture[str], gated: dmbp_jax.Network, folder: Path
) -> None:
    assert main([*RUN, "--method", "fullgrad"]) == 0
    run, x = runs.open("maps.zarr"), preprocessed(gated)
    expected = METHODS["fullgrad"](gated, x, nonaffine="freeze")
    np.testing.assert_allclose(run.maps()[:], expected, rtol=2e-4, atol=1e-6)
    assert main([*RUN, "-o", "gradient.zarr", "--method", "gradient"]) == 0
    assert runs.open("gradient.zarr").configuration["options"] == {}
    assert capsys.readouterr().out.count("gates taken as constants") == 1


def test_run_refuses_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    message = refused(capsys, *RUN, "--nonaffine", "refuse")
    assert "'mul' at 'Gated'" in message and "'Gated/norm/rsqrt'" in message
    assert not Path("maps.zarr").exists()
    message = refused(capsys, *RUN, "--nonaffine", "ignore")
    assert "--nonaffine" in message and "'ignore'" in message


def test_run_goes_on_with_the_same_choice_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    small = [*RUN, "--steps", "1"]
    monkeypatch.setattr("dmbp_jax.networks.load.load", lambda *_: tiny_network())
    assert main([*small, "--nonaffine", "refuse"]) == 0  # a network without gates takes both
    capsys.readouterr()
    message = refused(capsys, *small)
    assert "another options.nonaffine: stored 'refuse', now 'freeze'" in message


@pytest.mark.slow
def test_evaluate_tabulates_networks_with_gates_and_takes_the_options_of_dmbp(
    folder: Path, gated: dmbp_jax.Network
) -> None:
    """What README recommends for such a network, as the same numbers of the library."""
    Path("labels.csv").write_text("file,label\ngood0.png,b\ngood1.png,2\n")
    line = "evaluate --table 2 --dataset csv --root . --labels labels.csv --points 3 -o out "
    line += (
        "--weights w --methods dmbp gradcam gradient --quick --biases carry --option dmbp.init=0.5"
    )
    assert main([*line.split(), *TINY]) == 1  # the folder has files that no row names
    config = dmbp_jax.DMBP.quick(init=0.5)
    x = np.stack([gated.preprocess(f"good{i}.png") for i in range(2)])
    att = dmbp_jax.attribute(gated, x, [1, 2], config=config, biases="carry", nonaffine="freeze")
    curves = dmbp_jax.metrics.insertion(gated, x, [1, 2], att.heatmap, points=3)
    table = Path("out/tables.csv").read_text().splitlines()
    (row,) = [line.split(",") for line in table if line.startswith("2,dmbp,im,")]
    assert float(row[3]) == pytest.approx(float(np.mean(curves.auc)), abs=1e-5)
    stored = json.loads(Path("out/dmbp-evaluation/manifest.json").read_text())["configuration"]
    assert stored["options of gradcam"] == {"nonaffine": "freeze"}
    assert stored["options of gradient"] == {}


def test_evaluate_refuses_gates_when_told(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    Path("labels.csv").write_text("file,label\ngood0.png,b\n")
    line = "evaluate --table 2 --dataset csv --root . --nonaffine refuse --methods dmbp "
    line += "-o out --weights w"
    assert "'mul' at 'Gated'" in refused(capsys, *line.split(), *TINY)
