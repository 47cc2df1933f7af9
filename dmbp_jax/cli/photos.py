"""Photos for `dmbp explain`: names of their results, decoding, hashing, and groups of one shape."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmbp_jax.errors import DmbpError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from dmbp_jax import Network


class Photo(NamedTuple):
    """One image that could be read.

    Attributes:
      path: its file.
      target: the picture to write.
      crop: the part that the network gets, for drawing.
      x: the same part as the network's input, (H, W, C).
      digest: SHA-256 of the file's bytes.
    """

    path: Path
    target: Path
    crop: "Image.Image"
    x: "np.ndarray"
    digest: bytes


def name_results(images: Sequence[Path], folder: Path, method: str) -> list[Path]:
    """OUT/<name>.<method>.png for each image; equal names of different folders get -2, -3, …"""
    taken: dict[str, None] = {}
    for image in images:
        name, count = image.stem, 1
        while name in taken:
            count += 1
            name = f"{image.stem}-{count}"
        taken[name] = None
    return [folder / f"{name}.{method}.png" for name in taken]


def read(
    net: "Network",
    files: Iterable[tuple[Path, Path]],
    failed: Callable[[Path, Exception], None],
) -> Iterator[Photo]:
    """The photos that can be read, each decoded once; `failed` gets each of the others."""
    for path, target in files:
        try:
            crop = net.crop(path)
            x = net.preprocessing.normalise(crop)
            yield Photo(path, target, crop, x, sha256(path.read_bytes()).digest())
        except (DmbpError, OSError) as error:
            failed(path, error)


def batches(
    photos: Iterator[Photo], count: int, batch_size: int
) -> "Iterator[tuple[list[Photo], np.ndarray]]":
    """Photos in groups of equal size, with their inputs stacked.

    The last group is filled up with repeats of one of its images, so that one compiled program
    serves all of them; an image's result does not depend on its batch mates.
    """
    from dmbp_jax.engine.batches import collect_rows, equal_size

    rows = ((photo, photo.x) for photo in photos)
    for batch in collect_rows(rows, equal_size(count, batch_size)):
        yield list(batch.items), batch.rows
