"""Reading text and JSON of any tool, and writing files whole or not at all."""

import codecs
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmbp_jax.errors import DataError, InputError

# The marks that say how a text is encoded, the longer first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def file_size(path: str | os.PathLike[str]) -> int | None:
    """Bytes of a file; None if it is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def read_text(path: Path, what: str) -> str:
    """A text file in UTF-8, or in what its byte-order mark says; every line ends with a newline."""
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
        text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        if "\0" in text:
            raise ValueError("it is no text: it has bytes of value 0")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: Expected {what}: {error}") from error
    return text


def read_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads`, of which whatever is wrong with the text is a `ValueError`."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_lines(data: bytes) -> list[Any]:
    """What is on each line, read as one JSON: a third of the time of each by itself."""
    return read_json(b"[%s]" % b",".join(data.splitlines()))


def write_json(value: Any) -> bytes:
    """A line of JSON for `read_json`; numbers that are not finite, which it lacks, are refused."""
    return json.dumps(value, allow_nan=False).encode() + b"\n"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` once that has succeeded.

    Beside it, because a rename is atomic only within one file system; with a name of its own, so
    that processes and threads writing the same file do not meet. The name is short, so that it
    fits wherever that of `path` does, and ends as that does, since writers look at the suffix.

    Raises:
      InputError: `path` is a folder or a device, in whose place no file may come.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: Expected the name of a file, got a folder or a device.")
    part = path.with_name(f".dmbp-{uuid.uuid4().hex[:8]}{path.suffix[-16:]}")
    try:
        yield part
        part.replace(path)
    except OSError as error:  # a full disk names no file, and the user knows nothing of `part`
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
