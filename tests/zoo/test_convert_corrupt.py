"""Broken checkpoints are refused with a typed error, wherever they are cut or damaged."""

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from handmade_checkpoints import (
    mapping,
    name,
    storage,
    tensor,
    value,
    write_legacy,
    write_zip,
)
from traps import nothing_is_executed  # noqa: F401 - on for every test here

from dmbp_jax.convert import read_checkpoint
from dmbp_jax.errors import CorruptCheckpointError, WeightsError

REFERENCES = Path(__file__).parents[1] / "references"
FOUR = np.arange(4, dtype=np.float32).tobytes()
WRITERS = [write_zip, write_legacy]

WRONG = {
    "beyond the end": tensor(shape=(5,)),
    "offset beyond the end": tensor(offset=1),
    "strides beyond the end": tensor(shape=(2, 2), strides=(4, 1)),
    "negative offset": tensor(offset=-1),
    "negative stride": tensor(strides=(-1,)),
    "negative size": tensor(shape=(-4,)),
    "huge size": tensor(shape=(2**62, 2**62), strides=(0, 0)),
    "size beyond 64 bits": tensor(shape=(2**80,)),
    "expanded tensor": tensor(shape=(10**6, 10**6), strides=(0, 0)),
    "thousand axes": tensor(shape=(1,) * 1000, strides=(1,) * 1000),
    "more sizes than strides": tensor(shape=(2, 2)),
    "sizes of the wrong type": tensor(shape=("4",)),
    "size true": tensor(shape=(True,)),
    "float size": tensor(shape=(4.0,)),
    "shape is no tuple": tensor(shape=4),
    "no storage": tensor(value(7)),
    "storage is no dtype": tensor(storage(kind="Size")),
    "negative storage": tensor(storage(length=-4)),
    "storage longer than the file": tensor(storage(length=2**40), shape=(2**40,)),
    "storage shorter than declared": tensor(storage(length=3), shape=(3,)),
    "storage of another dtype": tensor(storage(kind="DoubleStorage")),
    "view of a storage": tensor(storage(tail=value(("1", 0, 4)))),
    "missing storage": tensor(storage(key="7")),
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_sizes_that_contradict_each_other(body, write, tmp_path):
    with pytest.raises(CorruptCheckpointError):
        read_checkpoint(write(tmp_path / "wrong.pth", mapping({"a": body}), {"0": FOUR}))


def test_one_storage_with_two_dtypes(tmp_path):
    both = mapping({"a": tensor(), "b": tensor(storage(kind="IntStorage"))})
    for write in WRITERS:
        with pytest.raises(CorruptCheckpointError, match="one dtype"):
            read_checkpoint(write(tmp_path / "wrong.pth", both, {"0": FOUR}))


def test_legacy_lengths_are_compared(tmp_path):
    body = mapping({"a": tensor()})
    for length in (-1, 3, 5, 2**62):
        with pytest.raises(CorruptCheckpointError, match="declared"):
            read_checkpoint(write_legacy(tmp_path / "x.pth", body, {"0": FOUR}, [length]))
    with pytest.raises(CorruptCheckpointError, match="every storage once"):
        read_checkpoint(write_legacy(tmp_path / "x.pth", body, {"0": FOUR, "1": FOUR}))


BROKEN = {
    "empty": b"",
    "stack underflow": b"R",
    "tuple underflow": b"\x87",
    "no mark": b"t",
    "unknown memo": b"h\x07",
    "append to nothing": value(1) + b"a",
    "items of no dict": value(1) + b"(" + value("a") + value(1) + b"u",
    "odd items": b"}(" + value("a") + b"u",
    "call of a number": value(1) + value(()) + b"R",
    "call of a dtype": name("torch", "FloatStorage") + b")R",
    "wrong arguments": name("torch._utils", "_rebuild_tensor_v2") + b")R",
    "dict from numbers": name("collections", "OrderedDict") + value((5,)) + b"R",
    "list as a key": b"}(" + value([1]) + value(1) + b"u",
    "tuple as a key": b"}(" + value((1,)) + value(1) + b"u",
    "no storage reference": value("storage") + b"Q",
    "unknown opcode": b"\xff",
    "text that is no text": b"X\x02\x00\x00\x00\xff\xff",
    "huge string": b"\x8d" + struct.pack("<Q", 2**62),
    "number that never ends": b"I" + b"9" * 10_000 + b"\n",
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_broken_pickles(body, write, tmp_path):
    with pytest.raises(CorruptCheckpointError):
        read_checkpoint(write(tmp_path / "broken.pth", body, {"0": FOUR}))


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_truncated_at_every_kilobyte(container, tmp_path):
    whole = (REFERENCES / f"resnet18.{container}.pth").read_bytes()
    for length in [*range(0, len(whole), 1024), len(whole) - 1]:
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(CorruptCheckpointError):
            read_checkpoint(tmp_path / "cut.pth")


def test_truncated_safetensors(tmp_path):
    whole = (REFERENCES / "vgg16.timm.safetensors").read_bytes()
    for length in [*range(0, len(whole), 1024), len(whole) - 1]:
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(CorruptCheckpointError):
            read_checkpoint(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_random_damage_is_refused_or_harmless(container, tmp_path):
    whole = (REFERENCES / f"vgg16.{container}.pth").read_bytes()
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 30))):
            damaged[chance.randrange(len(whole) if chance.random() < 0.3 else 3000)] = (
                chance.randrange(256)
            )
        (tmp_path / "damaged.pth").write_bytes(damaged)
        try:
            arrays = read_checkpoint(tmp_path / "damaged.pth")
        except WeightsError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())
