"""A network that compiles in a second, small pictures, and the bytes of a store, for large runs."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from dmbp_jax import DMBP, Network
from dmbp_jax.networks.preprocessing import Preprocessing
from dmbp_jax.runs import Plan, plan

SIZE = 16
CLASSES = ("red", "green", "blue")


class TinyModule(nn.Module):
    """Two layers with a ReLU between them."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), strides=(2, 2))(x))
        return nn.Dense(len(CLASSES))(x.reshape(len(x), -1))


def tiny_network(seed: int = 0) -> Network:
    """The module with random weights, named and with its preprocessing."""
    module = TinyModule()
    variables = module.init(jax.random.key(seed), np.zeros((1, SIZE, SIZE, 3), np.float32))
    preprocessing = Preprocessing(SIZE, SIZE, (0.5,) * 3, (0.25,) * 3)
    return Network(module, variables, preprocessing, CLASSES, "tiny")


def overflowing_network() -> Network:
    """The tiny network with weights that overflow on a white picture, and on no other.

    White is 2 in every channel, so 27 taps of 1 give 54 there, and far less anywhere else.
    """
    net = tiny_network()
    variables = {
        "params": {
            "Conv_0": {"kernel": np.ones((3, 3, 3, 4)), "bias": np.full(4, -53.0)},
            "Dense_0": {"kernel": np.full((256, 3), 1e38), "bias": np.zeros(3)},
        }
    }
    variables = jax.tree.map(np.float32, variables)
    return Network(net.module, variables, net.preprocessing, net.labels, net.name, net.activation)


def write_pictures(folder: Path, count: int, side: int = 20) -> Path:
    """`count` random PNG pictures 000.png, 001.png, …"""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


def small_plan(folder: Path, **options) -> Plan:
    """A plan for these pictures with the tiny network, in shards of four."""
    settings = {"network": tiny_network(), "config": DMBP(steps=3), "shard_size": 4}
    return plan(folder, **(settings | options))


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every object of a store on a disk, without what a killed writer left behind."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".__lock")
    }


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a given size; skips the test where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        permitted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        permitted = False
    if not permitted:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        # Lazily: a busy mount (a file of it still open somewhere) is detached when it is let go.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted file system: its size, or "ro"."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
