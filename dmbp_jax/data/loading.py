"""Pictures read in threads, a few ahead of the one in use; one that cannot be read is named.

Datasets, runs and the command line read here. Pillow releases the interpreter lock while it
decodes, so threads are enough.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from dmbp_jax.checks import check_count
from dmbp_jax.data.samples import Picture, Skipped
from dmbp_jax.errors import ImageError

Item = TypeVar("Item")
Found = TypeVar("Found")


class Loaded(NamedTuple):
    """A picture and its array."""

    picture: Picture
    x: np.ndarray


def load_pictures(
    pictures: Iterable[Picture],
    preprocess: Callable[[Image.Image], np.ndarray],
    *,
    workers: int = 4,
    prefetch: int = 16,
) -> Generator[Loaded | Skipped, None, None]:
    """Decode and preprocess pictures in threads, and hand them out in their order.

    Nothing is dropped silently: a picture that cannot be decoded comes out as a `Skipped` in its
    place. Leaving the loop early stops the workers.

    Args:
      pictures: of a `Dataset`.
      preprocess: from an RGB picture to an array, `net.preprocess`; called in several threads.
      workers: number of threads.
      prefetch: pictures decoded or being decoded ahead of the one in use; bounds memory.

    Yields:
      `Loaded(picture, x)` or `Skipped(name, reason)`.

    Raises:
      InputError, InputTypeError: `workers` or `prefetch` < 1, or not integers.

    Example:
      >>> from dmbp_jax.data import list_generated
      >>> for item in load_pictures(list_generated(size=2), np.asarray):
      ...     print(type(item).__name__, item.x.shape)
      Loaded (96, 96, 3)
      Loaded (96, 96, 3)
    """
    check_count(workers, "workers")
    check_count(prefetch, "prefetch")

    def load() -> Generator[Loaded | Skipped, None, None]:
        read = ReadAhead(pictures, lambda one: preprocess(one.open()), workers, prefetch)
        with read:
            for picture, x in read:
                yield skip(picture, x) if isinstance(x, ImageError) else Loaded(picture, x)

    return load()


def skip(picture: Picture, error: ImageError) -> Skipped:
    """A picture that cannot be read, by name."""
    return Skipped(picture.name, reason(error, getattr(picture, "path", None)))


def reason(error: ImageError, path: object) -> str:
    """Why a picture cannot be read, on one line and without its path."""
    return " ".join(str(error).removeprefix(f"{path}: ").split())


class ReadAhead(Generic[Item, Found]):
    """Each item with what `read` makes of it, in order; an `ImageError` comes out in its place.

    The threads start at once, and stop when it is closed, or left as a context.
    """

    def __init__(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Found],
        workers: int = 4,
        prefetch: int = 16,
    ) -> None:
        self._items, self._read = iter(items), read
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._pending: deque[tuple[Item, Future[Found | ImageError]]] = deque()
        self._submit(prefetch)

    def __enter__(self) -> "ReadAhead[Item, Found]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[Item, Found | ImageError]]:
        while self._pending:
            item, found = self._pending.popleft()
            self._submit(1)
            yield item, found.result()

    def close(self) -> None:
        """Stop the threads; what is not read yet is left unread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, count: int) -> None:
        for item in islice(self._items, count):
            self._pending.append((item, self._pool.submit(self._attempt, item)))

    def _attempt(self, item: Item) -> Found | ImageError:
        try:
            return self._read(item)
        except ImageError as error:
            return error
