"""Reading checkpoints: dtypes, strides, sharing, wrappers and prefixes, as PyTorch itself reads."""

import pickle
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from handmade_checkpoints import mapping, name, storage, tensor, value, write_legacy, write_zip

from benchmarks.faithfulness.real_networks import REAL
from dmbp_jax.convert import read_checkpoint
from dmbp_jax.errors import CorruptCheckpointError, WeightsError

WRITERS = [write_zip, write_legacy]
KINDS = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@pytest.mark.parametrize("write", WRITERS)
def test_every_dtype(write, tmp_path):
    numbers = {kind: np.array([0, 1, 1, 0], dtype) for kind, dtype in KINDS.items()}
    body = mapping({kind: tensor(storage(kind, kind)) for kind in KINDS})
    contents = {kind: array.tobytes() for kind, array in numbers.items()}
    lengths = () if write is write_zip else ([4] * len(KINDS),)
    arrays = read_checkpoint(write(tmp_path / "net.pth", body, contents, *lengths))
    assert list(arrays) == list(KINDS)
    for kind, array in numbers.items():
        assert arrays[kind].dtype == array.dtype
        np.testing.assert_array_equal(arrays[kind], array)


@pytest.mark.parametrize("write", WRITERS)
def test_windows_on_one_storage(write, tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    whole = storage(length=12)
    body = mapping(
        {
            "matrix": tensor(whole, 0, (3, 4), (4, 1)),
            "transposed": tensor(whole, 0, (4, 3), (1, 4)),
            "row": tensor(whole, 4, (4,), (1,)),
            "column": tensor(whole, 1, (3,), (4,)),
            "scalar": tensor(whole, 11, (), ()),
            "nothing": tensor(whole, 12, (0, 4), (4, 1)),
        }
    )
    arrays = read_checkpoint(write(tmp_path / "net.pth", body, {"0": numbers.tobytes()}))
    matrix = numbers.reshape(3, 4)
    expected = {
        "matrix": matrix,
        "transposed": matrix.T,
        "row": matrix[1],
        "column": matrix[:, 1],
        "scalar": matrix[2, 3],
        "nothing": matrix[:0],
    }
    for key, array in expected.items():
        assert arrays[key].shape == array.shape
        np.testing.assert_array_equal(arrays[key], array)
    assert not arrays["matrix"].flags.writeable


@pytest.mark.parametrize("write", WRITERS)
def test_wrappers_prefixes_and_harmless_company(write, tmp_path):
    numbers = np.arange(4, dtype=np.float32)
    weight, bias = tensor(), tensor(storage("1"))
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + bias + b"\x88NtR"
    ordered = name("collections", "OrderedDict") + b")R"
    inner = ordered + b"(" + value("module.a") + weight + value("module.b") + parameter + b"u"
    inner += value({"_metadata": OrderedDict()}) + b"b"
    body = mapping(
        {
            "epoch": value(90),
            "best": value(76.1),
            "arch": value("resnet50"),
            "done": value(True),
            "note": value(None),
            "history": value([1, (2.5, "x"), {"lr": 0.1}]),
            "optimizer": mapping({"state": mapping({"momentum": tensor(storage("2"))})}),
            "state_dict": inner,
        }
    )
    contents = {key: numbers.tobytes() for key in ("0", "1", "2")}
    arrays = read_checkpoint(write(tmp_path / "net.pth", body, contents))
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["b"], numbers)


def test_python_2_strings_and_ordered_dicts(tmp_path):
    # As PyTorch of 2017 wrote under Python 2: byte strings, an OrderedDict from a list of pairs.
    def old(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    stored = b"(" + old("storage") + name("torch", "FloatStorage") + old("0") + old("cpu")
    stored += value(4) + b"NtQ"
    window = name("torch._utils", "_rebuild_tensor") + b"(" + stored + b"K\x00(K\x04t(K\x01ttR"
    body = name("collections", "OrderedDict") + b"((" + b"(" + old("a") + window + b"l" + b"ltR"
    arrays = read_checkpoint(write_legacy(tmp_path / "old.pth", body, {"0": bytes(16)}))
    assert arrays["a"].shape == (4,)


def test_what_is_no_state_dict(tmp_path):
    four = {"0": bytes(16)}
    for body in (
        tensor(),
        mapping({"a": mapping({"b": tensor()})}),
        mapping({"layers": b"(" + tensor() + b"l"}),
    ):
        with pytest.raises(WeightsError, match="state dict"):
            read_checkpoint(write_zip(tmp_path / "net.pth", body, four))
    with pytest.raises(WeightsError, match="state dict"):
        read_checkpoint(write_zip(tmp_path / "net.pth", value({"epoch": 3}), {}))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(WeightsError, match="directory"):
        read_checkpoint(tmp_path)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CorruptCheckpointError, match="empty"):
        read_checkpoint(tmp_path / "empty.pth")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(CorruptCheckpointError, match="starts with"):
        read_checkpoint(tmp_path / "page.pth")


def test_big_endian_files(tmp_path):
    head = pickle.dumps({"little_endian": False}, protocol=2)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
    (tmp_path / "big.pth").write_bytes(magic + head)
    with pytest.raises(WeightsError, match="big-endian"):
        read_checkpoint(tmp_path / "big.pth")


def test_a_real_legacy_checkpoint():
    path = REAL / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip("needs the real networks")
    arrays = read_checkpoint(path)
    assert arrays["conv1.weight"].shape == (16, 3, 3, 3)
    assert arrays["linear.weight"].shape == (10, 64)
    assert sum(array.size for key, array in arrays.items() if "bn" not in key) == 268_346


@pytest.mark.parametrize("zipped", [True, False])
def test_equal_to_torch(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    random = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, generator=random)
    written = {
        "plain": base,
        "transposed": base.T,
        "slice": base[1:4, ::2],
        "bfloat16": base.bfloat16(),
        "half": base.half(),
        "double": base.double(),
        "parameter": torch.nn.Parameter(base + 1),
        "count": torch.tensor(7),
        "flags": base > 0,
        "empty": base[:0],
    }
    state_dict = torch.nn.BatchNorm2d(3).state_dict()  # an OrderedDict with metadata
    for extra in (written, state_dict):
        torch.save(extra, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        arrays = read_checkpoint(tmp_path / "net.pth")
        assert list(arrays) == list(extra)
        for key, expected in extra.items():
            assert arrays[key].shape == tuple(expected.shape)
            found = torch.from_numpy(arrays[key].astype(np.float64))
            assert torch.equal(found, expected.detach().double()), key


def test_a_whole_module_is_refused_with_advice(tmp_path):
    torch = pytest.importorskip("torch")
    for zipped in (True, False):
        torch.save(
            torch.nn.Linear(2, 2), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(WeightsError, match="state_dict"):
            read_checkpoint(tmp_path / "net.pth")
