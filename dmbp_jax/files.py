"""Writing files whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` once that has succeeded.

    Beside it, because a rename is atomic only within one file system; with a name of its own, so
    that processes and threads writing the same file do not meet.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
