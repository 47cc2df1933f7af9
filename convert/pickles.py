"""What a PyTorch checkpoint's pickle says, read by an interpreter that can only build data.

Python's unpickler calls what the file names. This one knows the opcodes and the few globals that
tensors need, builds dicts, lists and `Tensor` descriptions, and refuses everything else by name.
"""

import io
import math
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from dmbp_jax.errors import CorruptCheckpointError, UnsafeCheckpointError, WeightsError

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


class Pickle(NamedTuple):
    """Content (dicts, lists, tuples, numbers, strings, None, `Tensor`) and all storages named."""

    content: Any
    storages: dict[str, Storage]


@dataclass(frozen=True)
class _Mark:
    """What the MARK opcode leaves on the stack."""


@dataclass(frozen=True)
class _Global:
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
    result = _dict(_expect(pairs, list))
    pairs.clear()  # used up: the same list in a thousand dicts would multiply a small file
    return result


def _dict(pairs: Iterable[Any]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in pairs:
        result[_key(key)] = value
    return result


def _size(sizes: Any) -> tuple[int, ...]:
    """`torch.Size`."""
    if not _are_sizes(sizes):
        raise CorruptCheckpointError("Expected the sizes of a tensor, got something else.")
    return sizes


_GLOBALS: dict[tuple[str, str], _Global] = {
    ("collections", "OrderedDict"): _Global(_ordered_dict),
    ("torch._utils", "_rebuild_tensor"): _Global(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Global(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Global(_parameter),
    ("torch", "Size"): _Global(_size),
    ("torch", "DoubleStorage"): _Global(dtype=np.dtype(np.float64)),
    ("torch", "FloatStorage"): _Global(dtype=np.dtype(np.float32)),
    ("torch", "HalfStorage"): _Global(dtype=np.dtype(np.float16)),
    ("torch", "BFloat16Storage"): _Global(dtype=np.dtype(ml_dtypes.bfloat16)),
    ("torch", "LongStorage"): _Global(dtype=np.dtype(np.int64)),
    ("torch", "IntStorage"): _Global(dtype=np.dtype(np.int32)),
    ("torch", "ShortStorage"): _Global(dtype=np.dtype(np.int16)),
    ("torch", "CharStorage"): _Global(dtype=np.dtype(np.int8)),
    ("torch", "ByteStorage"): _Global(dtype=np.dtype(np.uint8)),
    ("torch", "BoolStorage"): _Global(dtype=np.dtype(np.bool_)),
}


def _find_global(module: Any, name: Any) -> _Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise CorruptCheckpointError("Expected the name of a global, got no string.")
    if (module, name) not in _GLOBALS:
        raise UnsafeCheckpointError(
            f"Expected tensors only, got the global {short(f'{module}.{name}')}; "
            "nothing was executed. Save a plain state_dict instead."
        )
    return _GLOBALS[module, name]


def _storage(reference: Any) -> Storage:
    """A persistent id: ("storage", type, key, device, length), and None in legacy streams."""
    match reference:
        case (
            "storage",
            _Global(dtype=np.dtype() as dtype),
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


def _key(value: Any) -> Any:
    """A name or a small number; hashing nested tuples or huge numbers could take for ever."""
    if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**31):
        return value
    raise CorruptCheckpointError(f"Expected names as keys of a dict, got {type(value).__name__}.")


def read_pickle(stream: io.BytesIO) -> Pickle:
    """Interpret one pickle and leave the stream behind its end.

    Raises:
      UnsafeCheckpointError: an opcode or a global that tensors do not need; nothing is executed.
      CorruptCheckpointError: truncated, or no pickle.
    """
    try:
        return _interpret(stream)
    except WeightsError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # What a broken pickle does wrong differs; that it is broken is all there is to say.
        raise CorruptCheckpointError(f"Expected a whole pickle, got: {error}") from error


def _interpret(stream: io.BytesIO) -> Pickle:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def pop_to_mark() -> list[Any]:
        for start in range(len(stack) - 1, -1, -1):
            if isinstance(stack[start], _Mark):
                items = stack[start + 1 :]
                del stack[start:]
                return items
        raise CorruptCheckpointError("Expected a mark on the pickle's stack, got none.")

    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_Mark())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case (
                "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4"
                | "FLOAT" | "BINFLOAT"
                | "STRING" | "BINSTRING" | "SHORT_BINSTRING"
                | "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8"
            ):  # fmt: skip
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                items = tuple(stack[-count:])
                if len(items) < count:
                    raise CorruptCheckpointError(f"Expected {count} items on the stack, got fewer.")
                del stack[-count:]
                stack.append(items)
            case "LIST":
                stack.append(pop_to_mark())
            case "DICT":
                items = pop_to_mark()
                stack.append(_dict(zip(items[::2], items[1::2], strict=True)))
            case "APPEND":
                item = stack.pop()
                _expect(stack[-1], list).append(item)
            case "APPENDS":
                items = pop_to_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _expect(stack[-1], dict)[_key(key)] = value
            case "SETITEMS":
                items = pop_to_mark()
                pairs = zip(items[::2], items[1::2], strict=True)
                _expect(stack[-1], dict).update(_dict(pairs))
            case "POP":
                stack.pop()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[_expect(argument, int)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[_expect(argument, int)])
            case "GLOBAL":
                stack.append(_find_global(*_expect(argument, str).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_find_global(module, name))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise CorruptCheckpointError(
                        f"storage {short(storage.key)}: Expected one dtype and length, got two."
                    )
                stack.append(storage)
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                build = _expect(function, _Global).build
                if build is None:
                    raise CorruptCheckpointError("Expected a function, got a dtype.")
                stack.append(build(*_expect(arguments, tuple)))
            case "BUILD":
                stack.pop()  # attributes of an OrderedDict: version numbers of the modules
                _expect(stack[-1], dict)
            case "STOP":
                return Pickle(stack.pop(), storages)
            case _:
                raise UnsafeCheckpointError(
                    f"Expected tensors only, got the pickle opcode {opcode.name}; "
                    "nothing was executed. Save a plain state_dict instead."
                )
    raise CorruptCheckpointError("Expected a whole pickle, got its beginning.")


def _expect(value: Any, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise CorruptCheckpointError(
            f"Expected {kind.__name__.strip('_')}, got {type(value).__name__}."
        )
    return value
