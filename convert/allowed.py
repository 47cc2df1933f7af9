"""What a checkpoint's pickle may name, and what is built in its place: tensors, sizes and dicts.

Nothing is imported. The table below lists every global that tensors need; any other is refused.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

from dmbp_jax.errors import CorruptCheckpointError, UnsafeCheckpointError

_T = TypeVar("_T")

_MAX_RANK = 64  # NumPy's


@dataclass(frozen=True)
class Storage:
    """A run of numbers kept elsewhere in the file under `key`."""

    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class Tensor:
    """A strided window on a storage, bounds checked; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Global:
    """An allowed global, not imported: what calling it builds, or the dtype it stands for."""

    build: Callable[..., Any] | None = None
    dtype: np.dtype | None = None


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_ignored: Any) -> Tensor:
    """`torch._utils._rebuild_tensor(_v2)`: check that the window lies inside the storage."""
    if not isinstance(storage, Storage):
        raise CorruptCheckpointError(f"tensor: Expected a storage, got {type(storage).__name__}.")
    if not _are_sizes((offset,)) or not _are_sizes(shape) or not _are_sizes(strides):
        raise CorruptCheckpointError("tensor: Expected offset, shape and strides of whole numbers.")
    window = f"offset {offset}, shape {shape}, strides {strides}"
    if len(shape) != len(strides):
        raise CorruptCheckpointError(f"tensor: Expected as many sizes as strides, got {window}.")
    size = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # A tensor larger than its storage repeats numbers (stride 0): a few bytes could fill memory.
    if size and (last >= storage.length or size > storage.length):
        raise CorruptCheckpointError(
            f"tensor: Expected a window inside {storage.length} numbers, got {window}."
        )
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _are_sizes(values: Any) -> bool:
    """Whether this is a short tuple of numbers from 0 to 2⁶³ − 1, safe to multiply and print."""
    return (
        isinstance(values, tuple)
        and len(values) <= _MAX_RANK
        and all(type(n) is int and 0 <= n < 2**63 for n in values)
    )


def _parameter(data: Any, *_ignored: Any) -> Any:
    """`torch._utils._rebuild_parameter`: the tensor inside."""
    return data


def _ordered_dict(pairs: Any = None) -> dict[Any, Any]:
    """`collections.OrderedDict`: dicts keep their order anyway."""
    if pairs is None:
        return {}
    result = make_dict(expect(pairs, list))
    pairs.clear()  # used up: the same list in a thousand dicts would multiply a small file
    return result


def make_dict(pairs: Iterable[Any]) -> dict[Any, Any]:
    """A dict of pairs whose keys are allowed."""
    result: dict[Any, Any] = {}
    for key, value in pairs:
        result[check_key(key)] = value
    return result


def _size(sizes: Any) -> tuple[int, ...]:
    """`torch.Size`."""
    if not _are_sizes(sizes):
        raise CorruptCheckpointError("Expected the sizes of a tensor, got something else.")
    return sizes


_GLOBALS: dict[tuple[str, str], Global] = {
    ("collections", "OrderedDict"): Global(_ordered_dict),
    ("torch._utils", "_rebuild_tensor"): Global(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Global(_tensor),
    ("torch._utils", "_rebuild_parameter"): Global(_parameter),
    ("torch", "Size"): Global(_size),
    ("torch", "DoubleStorage"): Global(dtype=np.dtype(np.float64)),
    ("torch", "FloatStorage"): Global(dtype=np.dtype(np.float32)),
    ("torch", "HalfStorage"): Global(dtype=np.dtype(np.float16)),
    ("torch", "BFloat16Storage"): Global(dtype=np.dtype(ml_dtypes.bfloat16)),
    ("torch", "LongStorage"): Global(dtype=np.dtype(np.int64)),
    ("torch", "IntStorage"): Global(dtype=np.dtype(np.int32)),
    ("torch", "ShortStorage"): Global(dtype=np.dtype(np.int16)),
    ("torch", "CharStorage"): Global(dtype=np.dtype(np.int8)),
    ("torch", "ByteStorage"): Global(dtype=np.dtype(np.uint8)),
    ("torch", "BoolStorage"): Global(dtype=np.dtype(np.bool_)),
}


def find_global(module: Any, name: Any) -> Global:
    """The row of a global.

    Raises:
      UnsafeCheckpointError: a global that tensors do not need.
      CorruptCheckpointError: not a name.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise CorruptCheckpointError("Expected the name of a global, got no string.")
    if (module, name) not in _GLOBALS:
        raise UnsafeCheckpointError(
            f"Expected tensors only, got the global {short(f'{module}.{name}')}; "
            "nothing was executed. Save a plain state_dict instead."
        )
    return _GLOBALS[module, name]


def make_storage(reference: Any) -> Storage:
    """A persistent id: ("storage", type, key, device, length), and None in legacy streams."""
    match reference:
        case (
            "storage",
            Global(dtype=np.dtype() as dtype),
            str() as key,
            _,
            int() as length,
            *view,
        ):
            if length >= 0 and view in ([], [None]):
                return Storage(key, dtype, length)
        case ("module", *_):
            raise UnsafeCheckpointError(
                "Expected tensors only, got a pickled module; nothing was executed. "
                "Save its state_dict instead."
            )
    raise CorruptCheckpointError("Expected a reference to a storage, got another.")


def check_key(value: Any) -> Any:
    """A name or a small number; hashing nested tuples or huge numbers could take for ever."""
    if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**31):
        return value
    raise CorruptCheckpointError(f"Expected names as keys of a dict, got {type(value).__name__}.")


def expect(value: Any, kind: type[_T]) -> _T:
    """The value, if it has this type.

    Raises:
      CorruptCheckpointError: it has another.
    """
    if not isinstance(value, kind):
        raise CorruptCheckpointError(f"Expected {kind.__name__}, got {type(value).__name__}.")
    return value
