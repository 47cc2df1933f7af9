"""What training scripts keep beside the weights, and before their names: taken off, never run."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import pathlib
import pickle
import random
import types
import uuid

import numpy as np
import pytest
from handmade_checkpoints import mapping, name, storage, tensor, value, write_legacy, write_zip
from traps import nothing_is_executed  # noqa: F401 - on for every test here

from dmbp_jax.convert import read_checkpoint
from dmbp_jax.convert.pickles import read_pickle
from dmbp_jax.errors import UnsafeCheckpointError, WeightsError

FOUR = np.arange(4, dtype=np.float32).tobytes()


class Mode(enum.Enum):
    FAST = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Config:
    def __init__(self):
        self.lr, self.inner = 0.1, {"a": {1, 2}}


class Attributes(dict):
    """As Lightning's hyper-parameters."""


class Items(list):
    """A list with a class."""


def reduced(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


OBJECTS = {
    "NumPy scalar": np.float64(76.1),
    "NumPy integer": np.int64(3),
    "NumPy array": np.arange(3),
    "NumPy generator": np.random.default_rng(0),
    "NumPy state": np.random.RandomState(0).get_state(),
    "namespace": argparse.Namespace(lr=0.1, sizes=(1, 2), inner=argparse.Namespace(a={1})),
    "set": {"a", "b"},
    "frozen set": frozenset({1, (2, 3)}),
    "complex": 1 + 2j,
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"x"),
    "range and slice": [range(3), slice(1, 2)],
    "time": [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1)],
    "date": datetime.date(2026, 1, 2),
    "path": pathlib.Path("runs/1"),
    "decimal and fraction": [decimal.Decimal("1.5"), fractions.Fraction(1, 3)],
    "uuid": uuid.UUID(int=3),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], maxlen=3),
    "default dict": collections.defaultdict(list, {"a": [1]}),
    "member": Mode.FAST,
    "flags": Flags.A | Flags.B,
    "by member": {Mode.FAST: 1, None: 2, 1.5: 3},
    "class": Config,
    "object": Config(),
    "dict with a class": Attributes(lr=0.1),
    "list with a class": Items([1, 2]),
    "names": types.SimpleNamespace(a=1),
    "partial": functools.partial(int, "3"),
    "random": random.Random(0),
}
BODIES = {key: value(content) for key, content in OBJECTS.items()} | {
    "device": reduced("torch", "device", value("cuda"), value(0)),
    "dtype": name("torch", "float32"),
    "function, not called": name("torch.nn.functional", "relu"),
    "layout": reduced("torch.serialization", "_get_layout", value("torch.strided")),
    "optimiser": mapping({"state": b"}(" + value(0) + mapping({"momentum": tensor()}) + b"u"}),
    "quantised": reduced("torch._utils", "_rebuild_qtensor", storage(kind="QInt8Storage")),
    "scheduler": name("torch.optim.lr_scheduler", "StepLR") + b")\x81" + value({"gamma": 1}) + b"b",
    "modules of other versions": b"("
    + reduced("pathlib._local", "PosixPath", value("runs"))
    + reduced("numpy.core.multiarray", "scalar", name("numpy", "dtype"), value("12345678"))
    + reduced("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), value((0,)))
    + reduced("numpy.core.numeric", "_frombuffer", value("1234"), name("numpy", "dtype"))
    + b"l",
    "nested": b"(" + value({"a": [Config(), {"b": Mode.FAST}]}) + b"l",
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_harmless_company_is_ignored(write, tmp_path):
    lengths = () if write is write_zip else ([4],)
    for key, body in BODIES.items():
        if key == "quantised" and write is write_legacy:
            continue  # a storage of unknown size cannot be passed over in a stream
        weights = mapping({"a": tensor(), "b": body})
        for content in (weights, mapping({"state_dict": mapping({"a": tensor()}), "z": body})):
            if key == "quantised" and content is weights:
                continue
            arrays = read_checkpoint(write(tmp_path / "net.pth", content, {"0": FOUR}, *lengths))
            assert list(arrays) == ["a"], key
            assert arrays["a"].tolist() == [0, 1, 2, 3]


def test_newer_protocols():
    """Sets, and names on the stack, as `torch.save(..., pickle_protocol=4)` writes them."""
    for protocol in (2, 3, 4, 5):
        for key, content in OBJECTS.items():
            pickled = pickle.dumps(("before", content, "after"), protocol=protocol)
            before, _, after = read_pickle(io.BytesIO(pickled)).content
            assert (before, after) == ("before", "after"), key


REFUSED = {
    "function of a library": reduced("numpy.testing", "runstring", value("x"), value({})),
    "member called": name("builtins", "getattr")
    + b"(" + name("__main__", "Config") + value("run") + b"tR" + value(()) + b"R",
    "getattr of a module": reduced("builtins", "getattr", name("torch", "hub"), value("load"))
    + value(()) + b"R",
    "partial of a function": reduced("functools", "partial", name("os", "system")),
    "reconstructor of a function": reduced("copyreg", "_reconstructor", name("os", "system")),
    "array of another class": reduced("numpy._core.multiarray", "_reconstruct", name("a", "B")),
    "the same of NumPy 1": reduced("numpy.core.multiarray", "_reconstruct", name("a", "B")),
    "class of Python": reduced("subprocess", "Popen", value("x")),
    "lambda": reduced("__main__", "<lambda>"),
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_functions_are_refused(body, tmp_path):
    for content in (body, mapping({"a": tensor(), "b": body})):
        with pytest.raises(UnsafeCheckpointError, match="nothing was executed"):
            read_checkpoint(write_zip(tmp_path / "evil.pth", content, {"0": FOUR}))


def test_attributes_are_set_on_nothing(tmp_path):
    """BUILD on what stands for a global would change it for the next file."""
    slots = b"N" + value({"__call__": 1, "name": "x"}) + b"\x86b"
    for one in (name("collections", "OrderedDict"), name("torch", "FloatStorage"), b"]"):
        with pytest.raises(WeightsError):
            read_checkpoint(write_zip(tmp_path / "x.pth", one + slots, {}))
    body = mapping({"a": tensor(), "b": name("__main__", "Config") + slots})
    assert list(read_checkpoint(write_zip(tmp_path / "x.pth", body, {"0": FOUR}))) == ["a"]


def test_a_file_cannot_take_memory_by_saying_a_number(tmp_path):
    for body in (
        b"\x96" + (2**40).to_bytes(8, "little"),  # BYTEARRAY8
        b"\x8e" + (2**40).to_bytes(8, "little"),  # BINBYTES8
        b"Nr" + (2**32 - 1).to_bytes(4, "little"),  # LONG_BINPUT
        b"\x95" + (2**40).to_bytes(8, "little"),  # FRAME
    ):
        with pytest.raises(WeightsError):
            read_checkpoint(write_zip(tmp_path / "x.pth", body, {}))


def test_what_an_object_is_called_is_said(tmp_path):
    body = name("torchvision.models.resnet", "ResNet") + b")\x81" + value({"training": True}) + b"b"
    with pytest.raises(WeightsError, match=r"pickled object .*ResNet.*state_dict instead"):
        read_checkpoint(write_zip(tmp_path / "x.pth", body, {}))
    qtensor = reduced("torch._utils", "_rebuild_qtensor", storage(kind="QInt8Storage"))
    body = mapping({"a": tensor(), "b": qtensor})
    with pytest.raises(WeightsError, match=r"'b': Expected a plain tensor, got .*_rebuild_qtensor"):
        read_checkpoint(write_zip(tmp_path / "x.pth", body, {"0": FOUR}))


def test_wrappers_inside_wrappers(tmp_path):
    inner = mapping({"module._orig_mod.a": tensor(), "module._orig_mod.b": tensor()})
    for wrappers in (["model"], ["model", "state_dict"], ["state_dict", "net", "module"]):
        body = inner
        for wrapper in wrappers:
            body = mapping({"epoch": value(3), wrapper: body})
        assert list(read_checkpoint(write_zip(tmp_path / "x.pth", body, {"0": FOUR}))) == ["a", "b"]
    loop = b"}q\x00(" + value("state_dict") + b"h\x00u"
    with pytest.raises(WeightsError, match="state dict"):
        read_checkpoint(write_zip(tmp_path / "x.pth", loop, {}))
