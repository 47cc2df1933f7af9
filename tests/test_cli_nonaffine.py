"""`dmbp explain` with a network that has gates: frozen, and counted in one line."""

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

import dmbp_jax
from dmbp_jax.cli import main
from dmbp_jax.networks.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
