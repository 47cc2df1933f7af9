"""What a PyTorch checkpoint's pickle says, opcode by opcode: nothing in it is imported or called.

`pickletools` reads the opcodes. A global is what `allowed` puts in its place, and a call is one of
that; objects get no attributes, and dicts take names alone as keys.
"""

import io
from collections.abc import Callable
from pickletools import genops
from reprlib import repr as short
from typing import Any, NamedTuple

from dmbp_jax.convert.allowed import (
    StandIn,
    Storage,
    find_global,
    make_storage,
    put_items,
    refuse,
)
from dmbp_jax.errors import CorruptCheckpointError, WeightsError

# No data of a checkpoint has these; those of EXT name classes by a number of the process.
_REFUSED = {"PERSID", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "DUP"}
_REFUSED |= {"NEXT_BUFFER", "READONLY_BUFFER"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: StandIn("builtins.set"),
}


class Pickle(NamedTuple):
    """Content (dicts, lists, tuples, numbers, strings, None, `Tensor`) and all storages named."""

    content: Any
    storages: dict[str, Storage]


def read_pickle(stream: io.BytesIO) -> Pickle:
    """Interpret one pickle and leave the stream behind its end."""
    try:
        return _interpret(stream)
    except WeightsError:
        raise
    except Exception as error:  # what a broken pickle does wrong differs
        text = " ".join(str(error).split()) or type(error).__name__
        raise CorruptCheckpointError(f"Expected a whole pickle, got: {text[:200]}") from error


def _interpret(stream: io.BytesIO) -> Pickle:
    stack: list[Any] = []
    marks: list[int] = []  # places in the stack
    memo: dict[int, Any] = {}
    opcodes: Any = genops(stream)  # each with its argument: a number or text, None if it has none
    storages: dict[str, Storage] = {}

    def pop_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in opcodes:
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case name if name in _REFUSED:
                raise refuse(f"the pickle opcode {name}")
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case "MARK":
                marks.append(len(stack))
            case "POP" if marks and marks[-1] == len(stack):
                marks.pop()
            case "POP":
                stack.pop()
            case "POP_MARK":
                pop_mark()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE":
                stack.append(tuple(pop_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in opcode.stack_before]
                stack.append(tuple(reversed(items)))
            case "LIST":
                stack.append(pop_mark())
            case "DICT":
                items = pop_mark()
                stack.append({})
                put_items(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "FROZENSET":
                pop_mark()
                stack.append(StandIn("builtins.frozenset"))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = [stack.pop()] if opcode.name == "APPEND" else pop_mark()
                _expect(stack[-1], (list, StandIn))
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(), stack.pop()][::-1] if opcode.name == "SETITEM" else pop_mark()
                put_items(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(find_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(find_global(module, name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(function(*arguments))
            case "NEWOBJ" | "NEWOBJ_EX":  # the stand-in of a class is that of its objects, too
                for _ in opcode.stack_before[1:]:
                    _expect(stack.pop(), (tuple, dict))
                _expect(stack[-1], StandIn)
            case "BUILD":  # attributes of an object, such as version numbers beside a state dict
                stack.pop()
                _expect(stack[-1], (dict, StandIn))
            case "BINPERSID":
                storage = make_storage(stack.pop())
                stack.append(storage)
                if (
                    isinstance(storage, Storage)
                    and storages.setdefault(storage.key, storage) != storage
                ):
                    raise CorruptCheckpointError(
                        f"storage {short(storage.key)}: Expected one dtype and length, got two."
                    )
            case _:  # a number, text or bytes
                stack.append(argument)
    return Pickle(stack.pop(), storages)


def _expect(value: Any, kinds: type | tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        raise CorruptCheckpointError("Expected an object, got something else.")
