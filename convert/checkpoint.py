"""PyTorch checkpoints without PyTorch: both `.pth` containers, opened with every size checked.

The zip holds a pickle and one stored entry per storage; the older legacy stream is five pickles
followed by the storages. No size that a file declares is believed before it is compared.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO

import numpy as np

from dmbp_jax.convert.allowed import StandIn, Storage, Tensor
from dmbp_jax.convert.pickles import read_pickle
from dmbp_jax.convert.variables import read_safetensors
from dmbp_jax.errors import CorruptCheckpointError, UnsafeCheckpointError, WeightsError

MAX_PICKLE = 4 * 2**20  # bytes; the pickle of ResNet152 has 0.2 MiB

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile, in any order


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the arrays of a `.pth` or safetensors file by name, executing nothing.

    Reads both PyTorch containers (zip and legacy stream). A `state_dict` wrapper is taken off,
    and so are the prefixes `module.` and `_orig_mod.` where every name has them; whatever lies
    beside the tensors is ignored: numbers, optimisers, objects of classes that are not there.

    Args:
      path: file written by `torch.save` or in safetensors format.

    Returns:
      Name to NumPy array, dtype as stored (bfloat16 by `ml_dtypes`). Arrays of a `.pth` file are
      read-only and may share memory.

    Raises:
      UnsafeCheckpointError: the file asks for something other than tensors.
      CorruptCheckpointError: the file is truncated, or its sizes contradict each other.
      WeightsError: the file is missing, or holds no state dict.

    Example:
      >>> import tempfile
      >>> from safetensors.numpy import save_file
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_file({"fc.bias": np.zeros(3, np.float32)}, f"{folder}/net.safetensors")
      ...     read_checkpoint(f"{folder}/net.safetensors")["fc.bias"].shape
      (3,)
    """
    return read_file(path)[0]


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """`read_checkpoint`, and the metadata of a safetensors file."""
    path = Path(path)
    arrays, metadata = None, {}
    try:
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            if start[8:9] == b"{":
                pass  # safetensors, which its own library reads below
            elif start[:4] == b"PK\x03\x04":
                arrays = _read_zip(file)
            elif start[:1] == b"\x80":
                arrays = _read_legacy(file)
            else:
                found = f"one that starts with {start[:8]!r}" if start else "an empty file"
                raise CorruptCheckpointError(
                    f"Expected a PyTorch (zip or legacy stream) or safetensors file, got {found}."
                )
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except WeightsError as error:
        raise type(error)(f"{path}: {error}") from error
    if arrays is None:
        arrays, metadata = read_safetensors(path)
    return _strip_prefixes(arrays), metadata


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _check_entries(archive, _length(file))
            pickle = next((name for name in entries if name.split("/")[-1] == "data.pkl"), None)
            if pickle is None:
                raise CorruptCheckpointError("Expected an entry data.pkl, got none.")
            folder = pickle.removesuffix("data.pkl")
            if entries[pickle].file_size > MAX_PICKLE:
                raise UnsafeCheckpointError(f"data.pkl: Expected at most {MAX_PICKLE} bytes.")
            if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
                raise WeightsError("Expected little-endian numbers, got big-endian.")
            content = read_pickle(io.BytesIO(archive.read(pickle))).content
            tensors = find_state_dict(content)
            numbers: dict[str, np.ndarray] = {}
            for storage in {tensor.storage for tensor in tensors.values()}:
                name = f"{folder}data/{storage.key}"
                if name not in entries:
                    raise CorruptCheckpointError(f"Expected an entry {short(name)}, got none.")
                if entries[name].file_size != _size(storage):
                    raise CorruptCheckpointError(
                        f"{short(name)}: Expected {_size(storage)} bytes "
                        f"({storage.length} of {storage.dtype}), got {entries[name].file_size}."
                    )
                numbers[storage.key] = np.frombuffer(archive.read(name), storage.dtype)
    except WeightsError:
        raise
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise CorruptCheckpointError(f"Expected a whole zip file, got: {error}") from error
    return {name: _window(tensor, numbers) for name, tensor in tensors.items()}


def _check_entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by name. PyTorch stores entries once and uncompressed, which no zip bomb can."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise CorruptCheckpointError("Expected every zip entry once, got one twice.")
    for entry in entries.values():
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnsafeCheckpointError(
                f"{short(entry.filename)}: Expected an uncompressed entry, as PyTorch writes them."
            )
    declared = sum(entry.file_size for entry in entries.values())
    if declared > length:
        raise CorruptCheckpointError(
            f"Expected zip entries of {length} bytes at most, got {declared} declared."
        )
    return entries


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    head = io.BytesIO(file.read(MAX_PICKLE))
    if read_pickle(head).content != _LEGACY_MAGIC:
        raise CorruptCheckpointError("Expected PyTorch's magic number, got another pickle.")
    if read_pickle(head).content != _LEGACY_PROTOCOL:
        raise CorruptCheckpointError(
            f"Expected PyTorch's protocol {_LEGACY_PROTOCOL}, got another."
        )
    system = read_pickle(head).content
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("Expected little-endian numbers, got big-endian.")
    content, storages = read_pickle(head)
    keys = read_pickle(head).content
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise CorruptCheckpointError("Expected a list of storages, got something else.")
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise CorruptCheckpointError("Expected every storage once, got another list of storages.")

    tensors = find_state_dict(content)
    needed = {tensor.storage.key for tensor in tensors.values()}
    numbers: dict[str, np.ndarray] = {}
    position = head.tell()
    for key in keys:
        file.seek(position)
        declared = int.from_bytes(file.read(8), "little", signed=True)
        size, left = _size(storages[key]), _length(file) - file.tell()
        if declared != storages[key].length or size > left:
            raise CorruptCheckpointError(
                f"storage {short(key)}: Expected {storages[key].length} numbers ({size} bytes), "
                f"got {declared} declared and {max(0, left)} bytes left."
            )
        if key in needed:
            numbers[key] = np.frombuffer(file.read(size), storages[key].dtype)
        position = file.tell() if key in needed else file.tell() + size
    return {name: _window(tensor, numbers) for name, tensor in tensors.items()}


def find_state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict by name, out of its wrappers if it has some."""
    for _ in _WRAPPERS:  # no deeper, since a dict may hold itself
        inner = (content.get(name) for name in _WRAPPERS) if isinstance(content, dict) else ()
        content = next((one for one in inner if isinstance(one, dict)), content)
    if isinstance(content, StandIn):
        raise WeightsError(
            f"Expected a state dict, got the pickled object {content.name[:100]!r}; save its "
            "state_dict instead."
        )
    if not isinstance(content, dict):
        raise WeightsError(f"Expected a state dict, got {type(content).__name__}.")
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    for name, value in named.items():
        if isinstance(value, StandIn) and value.name.startswith("torch._utils._rebuild_"):
            raise WeightsError(f"{short(name)}: Expected a plain tensor, got {value.name[:100]!r}.")
    if not tensors:
        raise WeightsError(
            "Expected a state dict (names to tensors), "
            f"got a dict with the keys {short([*content])}."
        )
    return tensors


def _window(tensor: Tensor, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    """The strided window of a tensor on its storage; `pickles` has checked that it fits."""
    storage = numbers[tensor.storage.key]
    strides = tuple(step * storage.itemsize for step in tensor.strides)
    start = storage[tensor.offset :] if math.prod(tensor.shape) else storage[:0]
    return np.lib.stride_tricks.as_strided(start, tensor.shape, strides, writeable=False)


def _strip_prefixes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take off what wrappers of the whole network put before every name."""
    while arrays:
        shared = [prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in arrays)]
        if not shared:
            break
        arrays = {name.removeprefix(shared[0]): array for name, array in arrays.items()}
    return arrays


def _size(storage: Storage) -> int:
    return storage.length * storage.dtype.itemsize


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
