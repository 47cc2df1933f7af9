"""What a PyTorch checkpoint's pickle says, read by Python's own unpickler with its teeth drawn.

It imports nothing, sets no attribute, and calls nothing but what `allowed` has put in the place of
a global; dicts take names alone as keys.
"""

import io
import pickle
from collections.abc import Callable
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

# Opcodes of no data that a checkpoint has; EXT ones name classes by a number of the process.
_REFUSED = [
    "PERSID",
    "INST",
    "OBJ",
    "EXT1",
    "EXT2",
    "EXT4",
    "NEXT_BUFFER",
    "READONLY_BUFFER",
]


class Pickle(NamedTuple):
    """Content (dicts, lists, tuples, numbers, strings, None, `Tensor`) and all storages named."""

    content: Any
    storages: dict[str, Storage]


def read_pickle(stream: io.BytesIO) -> Pickle:
    """Interpret one pickle and leave the stream behind its end.

    Raises:
      UnsafeCheckpointError: an opcode or a global that data does not need; nothing is executed.
      CorruptCheckpointError: truncated, or no pickle.
    """
    reader = _Reader(stream, encoding="latin-1")
    try:
        return Pickle(reader.load(), reader.storages)
    except WeightsError:
        raise
    except Exception as error:  # what a broken pickle does wrong differs
        text = " ".join(str(error).split()) or type(error).__name__
        raise CorruptCheckpointError(f"Expected a whole pickle, got: {text[:200]}") from error


# The one written in Python, whose opcodes can be replaced; C's takes memory as the file says.
_Unpickler: Any = pickle._Unpickler


class _Reader(_Unpickler):
    """An unpickler of data."""

    def __init__(self, stream: io.BytesIO, encoding: str) -> None:
        super().__init__(stream, fix_imports=False, encoding=encoding)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Whatever stands for the global; it is not imported."""
        return find_global(module, name)

    def persistent_load(self, reference: Any) -> Storage | StandIn:
        """The storage that is kept elsewhere in the file."""
        storage = make_storage(reference)
        if isinstance(storage, StandIn):
            return storage
        if self.storages.setdefault(storage.key, storage) != storage:
            raise CorruptCheckpointError(
                f"storage {short(storage.key)}: Expected one dtype and length, got two."
            )
        return storage

    def put_item(self) -> None:
        """SETITEM."""
        value, key = self.stack.pop(), self.stack.pop()
        put_items(self.stack[-1], [(key, value)])

    def put_items(self) -> None:
        """SETITEMS."""
        items = self.pop_mark()
        put_items(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def make_dict(self) -> None:
        """DICT."""
        items = self.pop_mark()
        self.append({})
        put_items(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def append_item(self) -> None:
        """APPEND."""
        self._extend([self.stack.pop()])

    def append_items(self) -> None:
        """APPENDS, and ADDITEMS of a set."""
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], StandIn):
            raise CorruptCheckpointError("Expected a list, got something else.")

    def make_object(self) -> None:
        """NEWOBJ, NEWOBJ_EX: the stand-in of a class is that of its objects, too."""
        while not isinstance(self.stack[-1], StandIn):  # arguments
            if not isinstance(self.stack.pop(), (tuple, dict)):
                raise CorruptCheckpointError("Expected a class, got something else.")

    def drop_state(self) -> None:
        """BUILD: the attributes of an object, such as version numbers beside a state dict."""
        self.stack.pop()
        if not isinstance(self.stack[-1], (dict, StandIn)):
            raise CorruptCheckpointError("Expected an object, got something else.")

    def make_byte_array(self) -> None:
        """BYTEARRAY8: read, and no memory taken before."""
        self.read(int.from_bytes(self.read(8), "little"))
        self.append(StandIn("builtins.bytearray"))

    def make_set(self) -> None:
        """EMPTY_SET."""
        self.append(StandIn("builtins.set"))

    def make_frozen_set(self) -> None:
        """FROZENSET."""
        self.pop_mark()
        self.make_set()


def _refused(name: str) -> Callable[[_Reader], None]:
    def action(_: _Reader) -> None:
        raise refuse(f"the pickle opcode {name}")

    return action


_ACTIONS = {name: _refused(name) for name in _REFUSED} | {
    "SETITEM": _Reader.put_item,
    "SETITEMS": _Reader.put_items,
    "DICT": _Reader.make_dict,
    "APPEND": _Reader.append_item,
    "APPENDS": _Reader.append_items,
    "ADDITEMS": _Reader.append_items,
    "NEWOBJ": _Reader.make_object,
    "NEWOBJ_EX": _Reader.make_object,
    "BUILD": _Reader.drop_state,
    "BYTEARRAY8": _Reader.make_byte_array,
    "EMPTY_SET": _Reader.make_set,
    "FROZENSET": _Reader.make_frozen_set,
}
_Reader.dispatch = _Unpickler.dispatch | {
    getattr(pickle, name)[0]: action for name, action in _ACTIONS.items()
}
