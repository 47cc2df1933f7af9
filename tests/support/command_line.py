"""For tests of the command line: how a refusal looks, a tiny network, a folder of pictures.

Fixtures are imported by name where they are used.
"""

from collections.abc import Iterator
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import dmbp_jax
from dmbp_jax.cli import main
from dmbp_jax.data.generated import generate
from dmbp_jax.networks.preprocessing import Preprocessing

TINY = ["--network", "tiny", "--no-compilation-cache", "--quiet"]


@pytest.fixture(autouse=True)
def jax_settings_as_before() -> Iterator[None]:
    """Commands switch the compilation cache of the process; other tests must not notice."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; its one line on stderr."""
    try:
        code = main(argv)
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


class Tiny(nn.Module):
    """A network that compiles in a second."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3), 2)(x)).mean((1, 2)))


@pytest.fixture(name="tiny")
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> dmbp_jax.Network:
    """`--network tiny`, 16x16 pixels."""
    variables = Tiny().init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    small = Preprocessing(resize=16, size=16)
    net = dmbp_jax.Network(Tiny(), variables, small, ("ant", "bee", "honey bee"), "tiny")
    load = dmbp_jax.load

    def load_tiny(name: str, *args: object) -> dmbp_jax.Network:
        return net if name == "tiny" else load(name, *args)

    monkeypatch.setattr("dmbp_jax.networks.load.load", load_tiny)
    return net


@pytest.fixture(name="folder")
def folder_of_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two good pictures and three files that cannot be decoded; commands run beside them."""
    for index in range(2):
        Image.fromarray(generate(3, index).image).save(tmp_path / f"good{index}.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMBP_HOME", str(tmp_path / "home"))
    return tmp_path
