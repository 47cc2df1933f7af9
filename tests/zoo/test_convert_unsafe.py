"""Hostile checkpoints are refused with a typed error; nothing in them is executed."""

import os
import struct
import subprocess
import zipfile

import numpy as np
import pytest
from handmade_checkpoints import (
    LEGACY_HEAD,
    mapping,
    name,
    program,
    storage,
    tensor,
    value,
    write_legacy,
    write_zip,
)
from traps import nothing_is_executed  # noqa: F401 - on for every test here

from dmbp_jax.convert import read_checkpoint
from dmbp_jax.errors import CorruptCheckpointError, UnsafeCheckpointError, WeightsError

FOUR = np.arange(4, dtype=np.float32).tobytes()
WRITERS = [write_zip, write_legacy]


class Reduce:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def reduced(function: str, *arguments: object) -> bytes:
    module, attribute = function.rsplit(".", 1)
    return name(module, attribute) + value(arguments) + b"R"


HOSTILE = {
    "os.system": reduced("os.system", "echo executed"),
    "posix.system": reduced("posix.system", "echo executed"),
    "eval": reduced("builtins.eval", "__import__('os').system('echo executed')"),
    "python 2 eval": reduced("__builtin__.eval", "1"),
    "getattr": reduced("builtins.getattr", "x", "y"),
    "import": reduced("importlib.import_module", "antigravity"),
    "subprocess": reduced("subprocess.Popen", ["echo"]),
    "torch.load": reduced("torch.load", "other.pth"),
    "dotted global": reduced("torch._utils.os.system", "echo executed"),
    "numpy object": reduced("numpy.core.multiarray._reconstruct", "x"),
    "global without a call": name("os", "system"),
    "inst": b"(" + value("echo executed") + b"ios\nsystem\n",
    "obj": b"(" + name("os", "system") + value("echo executed") + b"o",
    "newobj": name("os", "system") + value(("echo executed",)) + b"\x81",
    "stack global": value("os") + value("system") + b"\x93" + value(("echo executed",)) + b"R",
    "extension registry": b"\x82\x01",
    "text persistent id": b"Pstorage\n",
    "pickled module": b"(" + value("module") + value("x") + b"tQ",
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_globals_and_opcodes(body, write, tmp_path):
    places = {
        "top": body,
        "value": mapping({"a": tensor(), "b": body}),
        "wrapped": mapping({"state_dict": mapping({"a": tensor()}), "optimizer": body}),
        "nested": mapping({"a": tensor(), "b": mapping({"c": b"(" + body + b"l"})}),
        "dropped": mapping({"a": tensor(), "b": body + b"0N"}),
        "hooks": mapping({"a": tensor(), "b": tensor(offset=0)[:-2] + body + b"tR"}),
        "attributes": name("collections", "OrderedDict") + b")R" + body + b"b",
    }
    for content in places.values():
        with pytest.raises(UnsafeCheckpointError, match="nothing was executed"):
            read_checkpoint(write(tmp_path / "evil.pth", content, {"0": FOUR}))


# Pickled here, before the fixture sets its traps.
REDUCED = [
    value({"a": [Reduce(function, "echo executed")]})
    for function in (os.system, eval, subprocess.check_output, print)
]


def test_classes_with_reduce(tmp_path):
    for body in REDUCED:
        for write in WRITERS:
            with pytest.raises(UnsafeCheckpointError, match="global"):
                read_checkpoint(write(tmp_path / "evil.pth", body, {}))


def test_a_plain_pickle_is_no_checkpoint(tmp_path):
    (tmp_path / "evil.pth").write_bytes(program(HOSTILE["os.system"]))
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(tmp_path / "evil.pth")
    (tmp_path / "evil.pth").write_bytes(LEGACY_HEAD + program(HOSTILE["os.system"]))
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(tmp_path / "evil.pth")


def test_nested_tuples_take_no_time(tmp_path):
    # Hashing, comparing or printing this would take 2¹⁰⁰ steps.
    tower = value(()) + b"q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(100))
    bodies = {
        "key": b"}(" + tower + value(1) + b"u",
        "shape": tensor()[: -len(tensor())] + name("torch._utils", "_rebuild_tensor_v2")
        + b"(" + storage() + value(0) + tower + value((1,)) + b"tR",
        "global": tower + value("x") + b"\x93",
        "reference": tower + b"Q",
        "top": tower,
    }  # fmt: skip
    for body in bodies.values():
        with pytest.raises(WeightsError):
            read_checkpoint(write_zip(tmp_path / "tower.pth", body, {"0": FOUR}))


def test_small_files_do_not_multiply(tmp_path):
    # One list of ten thousand items, copied ten thousand times, would be a hundred million.
    pairs = value([[str(i), i] for i in range(10_000)]) + b"q\x00"
    copies = {
        "OrderedDict": name("collections", "OrderedDict") + b"h\x00\x85R",
        "Size": name("torch", "Size") + b"h\x00\x85R",
    }
    for copy in copies.values():
        body = b"(" + pairs + copy * 10_000 + b"l"
        with pytest.raises(WeightsError):
            read_checkpoint(write_zip(tmp_path / "copies.pth", body, {}))
    # Multiples of 2⁶¹ − 1 all hash to 0: a dict of them takes quadratic time.
    body = b"}(" + value(2**61 - 1) + b"Nu"
    with pytest.raises(CorruptCheckpointError, match="keys"):
        read_checkpoint(write_zip(tmp_path / "keys.pth", body, {}))


def test_zip_bombs(tmp_path):
    body = mapping({"a": tensor(storage(length=10**7), shape=(10**7,))})
    bomb = write_zip(tmp_path / "bomb.pth", body, {"0": bytes(4 * 10**7)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**5
    with pytest.raises(UnsafeCheckpointError, match="uncompressed"):
        read_checkpoint(bomb)

    # Sizes in the central directory far beyond the file.
    plain = write_zip(tmp_path / "plain.pth", mapping({"a": tensor()}), {"0": FOUR}).read_bytes()
    lie = struct.pack("<II", 2**31, 2**31)
    at = plain.rindex(struct.pack("<II", len(FOUR), len(FOUR)))
    (tmp_path / "lie.pth").write_bytes(plain[:at] + lie + plain[at + 8 :])
    with pytest.raises(CorruptCheckpointError, match="declared"):
        read_checkpoint(tmp_path / "lie.pth")

    # A thousand entries that share the same bytes.
    with zipfile.ZipFile(tmp_path / "overlap.pth", "w") as archive:
        archive.writestr("a/data.pkl", program(mapping({"a": tensor()})))
        archive.writestr("a/data/0", bytes(10**5))
        shared = archive.getinfo("a/data/0")
        for i in range(1, 1000):
            twin = zipfile.ZipInfo(f"a/data/{i}")
            twin.header_offset, twin.CRC = shared.header_offset, shared.CRC
            twin.file_size = twin.compress_size = shared.file_size
            archive.filelist.append(twin)
    with pytest.raises(CorruptCheckpointError, match="declared"):
        read_checkpoint(tmp_path / "overlap.pth")


def test_entries_that_appear_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.pth", "w") as archive:
        archive.writestr("a/data.pkl", program(mapping({"a": tensor()})))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", program(HOSTILE["os.system"]))
    with pytest.raises(CorruptCheckpointError, match="twice"):
        read_checkpoint(tmp_path / "twice.pth")


def test_pickles_too_large_to_be_a_state_dict(tmp_path):
    body = mapping({"a": tensor(), "b": value("x" * (5 * 2**20))})
    for write in WRITERS:
        with pytest.raises(WeightsError):
            read_checkpoint(write(tmp_path / "large.pth", body, {"0": FOUR}))
