"""What a checkpoint's pickle may name, and what is built in its place: tensors, sizes and dicts.

Nothing is imported. Classes beside the tensors become stand-ins, which take everything and do
nothing; functions are refused when they are called, those of Python's own library when named.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from dmbp_jax.errors import CorruptCheckpointError, UnsafeCheckpointError

_MAX_RANK = 64  # NumPy's
_SHOWN = 100  # characters of a name in a message


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
class StandIn:
    """What is called `name` in the file, or an object of that class; only the name is kept."""

    name: str
    is_class: bool = True

    def __call__(self, *_ignored: Any) -> "StandIn":
        """The object that a class would make; a function is refused."""
        if not self.is_class:
            raise refuse(f"a call of the global {self.name[:_SHOWN]!r}")
        return self


def refuse(what: str) -> UnsafeCheckpointError:
    """The error for what tensors do not need."""
    return UnsafeCheckpointError(
        f"Expected tensors only, got {what}; nothing was executed. Save a plain state_dict instead."
    )


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_ignored: Any) -> Any:
    """`torch._utils._rebuild_tensor(_v2)`: check that the window lies inside the storage."""
    if isinstance(storage, StandIn):  # of numbers that NumPy does not know
        return storage
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


def _ordered_dict(pairs: Any = None) -> dict[Any, Any]:
    """`collections.OrderedDict`: dicts keep their order anyway."""
    result: dict[Any, Any] = {}
    if pairs is not None:
        if not isinstance(pairs, list):
            raise CorruptCheckpointError(f"Expected a list, got {type(pairs).__name__}.")
        put_items(result, pairs)
        pairs.clear()  # used up: the same list in a thousand dicts would multiply a small file
    return result


def put_items(target: Any, pairs: Any) -> None:
    """`target[key] = value` for each pair, where the target is a dict that anybody will read."""
    if isinstance(target, StandIn):
        return
    if not isinstance(target, dict):
        raise CorruptCheckpointError(f"Expected a dict, got {type(target).__name__}.")
    for key, value in pairs:
        # Hashing nested tuples or comparing huge numbers could take for ever.
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**31):
            target[key] = value
        elif not isinstance(key, (float, StandIn, type(None))):  # keys of no state dict
            raise CorruptCheckpointError(f"Expected names as keys, got {type(key).__name__}.")


def _size(sizes: Any) -> tuple[int, ...]:
    """`torch.Size`."""
    if not _are_sizes(sizes):
        raise CorruptCheckpointError("Expected the sizes of a tensor, got something else.")
    return sizes


def _member(owner: Any, name: Any) -> StandIn:
    """`getattr` of a stand-in, with which members of an enumeration are written."""
    if not isinstance(owner, StandIn) or not isinstance(name, str):
        raise refuse("a call of the global builtins.getattr")
    return StandIn(f"{owner.name}.{name}", is_class=False)


def _array(kind: Any, *_ignored: Any) -> StandIn:
    """NumPy's `_reconstruct` of an array."""
    if kind != StandIn("numpy.ndarray"):
        raise refuse("a call of the global numpy._reconstruct")
    return kind


_BUILDERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _member,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_ignored: {},
    "numpy._core.multiarray._reconstruct": _array,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": lambda data, *_ignored: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_ignored: data,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
_DTYPES = {
    "Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8,
    "Bool": np.bool_, "ComplexDouble": np.complex128, "ComplexFloat": np.complex64,
}  # fmt: skip
_STORAGES = {f"torch.{name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()}

# What training scripts keep beside the weights and what has no capital, or is Python's own,
# by module.
_HARMLESS = {
    "_codecs": "encode",
    "argparse": "Namespace",
    "builtins": "bool bytearray bytes complex dict float frozenset int list long object range set "
    "slice str tuple unicode xrange",
    "collections": "Counter deque",
    "copyreg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "partial",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "scalar",
    "numpy._core.numeric": "_frombuffer",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "random": "Random",
    "torch": "device",
    "torch.serialization": "_get_layout",
    "types": "SimpleNamespace",
    "uuid": "UUID",
    "zoneinfo": "ZoneInfo._unpickle",
}
# Modules as other versions of Python and NumPy call them.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "pathlib._local": "pathlib",
}


def find_global(module: Any, name: Any) -> Any:
    """What stands for a global: a builder, the dtype of a storage, or a stand-in."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise CorruptCheckpointError("Expected the name of a global, got no string.")
    module = _RENAMED.get(module, module)
    full = f"{module}.{name}"
    if full in _BUILDERS:
        return _BUILDERS[full]
    if full in _STORAGES:
        return _STORAGES[full]
    harmless = name in _HARMLESS.get(module, "").split()
    if harmless or full.startswith("torch._utils._rebuild_") or name.startswith("__pyx_unpickle_"):
        return StandIn(full)
    if full.partition(".")[0] in sys.stdlib_module_names:
        raise refuse(f"the global {full[:_SHOWN]!r}")
    return StandIn(full, is_class=full.rpartition(".")[2][:1].isupper())


def make_storage(reference: Any) -> Storage | StandIn:
    """A persistent id: ("storage", type, key, device, length), and None in legacy streams."""
    match reference:
        case ("storage", np.dtype() as dtype, str() as key, _, int() as length, *view):
            if length >= 0 and view in ([], [None]):
                return Storage(key, dtype, length)
        case ("storage", StandIn() as kind, *_):
            return kind
        case ("module", *_):
            raise refuse("a pickled module")
    raise CorruptCheckpointError("Expected a reference to a storage, got another.")
