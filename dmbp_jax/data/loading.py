"""Decoding in worker threads, a few pictures ahead; what cannot be decoded is handed out by name.

Pillow releases the interpreter lock while it decodes, so threads are enough.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dmbp_jax.checks import check_count
from dmbp_jax.data.samples import Picture, Skipped
from dmbp_jax.errors import ImageError


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
    return _load(pictures, preprocess, workers, prefetch)


def _load(
    pictures: Iterable[Picture],
    preprocess: Callable[[Image.Image], np.ndarray],
    workers: int,
    prefetch: int,
) -> Generator[Loaded | Skipped, None, None]:
    pending: deque[Future[Any]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for picture in pictures:
            pending.append(executor.submit(_load_one, picture, preprocess))
            if len(pending) > prefetch:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _load_one(
    picture: Picture, preprocess: Callable[[Image.Image], np.ndarray]
) -> Loaded | Skipped:
    try:
        return Loaded(picture, preprocess(picture.open()))
    except ImageError as error:
        path = getattr(picture, "path", None)
        return Skipped(picture.name, str(error).removeprefix(f"{path}: "))
