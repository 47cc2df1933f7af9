"""What a PyTorch checkpoint's pickle says, read by an interpreter that can only build data.

Python's unpickler calls what the file names. This one knows the opcodes that tensors need, builds
dicts, lists and `Tensor` descriptions, and refuses everything else by name.
"""

import io
import pickletools
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple

from dmbp_jax.convert.allowed import (
    Global,
    Storage,
    check_key,
    expect,
    find_global,
    make_dict,
    make_storage,
)
from dmbp_jax.errors import CorruptCheckpointError, UnsafeCheckpointError, WeightsError


class Pickle(NamedTuple):
    """Content (dicts, lists, tuples, numbers, strings, None, `Tensor`) and all storages named."""

    content: Any
    storages: dict[str, Storage]


@dataclass(frozen=True)
class _Mark:
    """What the MARK opcode leaves on the stack."""


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
                stack.append(make_dict(zip(items[::2], items[1::2], strict=True)))
            case "APPEND":
                item = stack.pop()
                expect(stack[-1], list).append(item)
            case "APPENDS":
                items = pop_to_mark()
                expect(stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                expect(stack[-1], dict)[check_key(key)] = value
            case "SETITEMS":
                items = pop_to_mark()
                pairs = zip(items[::2], items[1::2], strict=True)
                expect(stack[-1], dict).update(make_dict(pairs))
            case "POP":
                stack.pop()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[expect(argument, int)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[expect(argument, int)])
            case "GLOBAL":
                stack.append(find_global(*expect(argument, str).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(find_global(module, name))
            case "BINPERSID":
                storage = make_storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise CorruptCheckpointError(
                        f"storage {short(storage.key)}: Expected one dtype and length, got two."
                    )
                stack.append(storage)
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                build = expect(function, Global).build
                if build is None:
                    raise CorruptCheckpointError("Expected a function, got a dtype.")
                stack.append(build(*expect(arguments, tuple)))
            case "BUILD":
                stack.pop()  # attributes of an OrderedDict: version numbers of the modules
                expect(stack[-1], dict)
            case "STOP":
                return Pickle(stack.pop(), storages)
            case _:
                raise UnsafeCheckpointError(
                    f"Expected tensors only, got the pickle opcode {opcode.name}; "
                    "nothing was executed. Save a plain state_dict instead."
                )
    raise CorruptCheckpointError("Expected a whole pickle, got its beginning.")
