"""From a picture to the array a network was trained on: resize, centre crop, mean, std.

`crop` gives the part that the network gets as a picture, `normalise` the same part as numbers.
"""

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dmbp_jax.checks import check_choice
from dmbp_jax.data.decoding import open_image
from dmbp_jax.errors import InputError

_ELONGATED = 16  # sides ratio above which a picture is cut before it is resized
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, then

        x = (maximum · pixels / 255 − mean) / std        for each of R, G, B.

    Resizing is Pillow's filter with torchvision's rounding, so the pixels equal those of
    `torchvision.transforms.Resize` and `CenterCrop`.

    Attributes:
      resize: shorter side after resizing, in pixels.
      size: side of the square crop, at most `resize`.
      mean: mean of R, G, B.
      std: standard deviation of R, G, B.
      maximum: value of a white pixel before mean and std: 1, or 255 for Caffe networks.
      interpolation: filter of the resizing, "bilinear" or "bicubic".

    Example:
      >>> white = Image.new("RGB", (640, 480), "white")
      >>> recipe = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
      >>> recipe.normalise(recipe.crop(white))[0, 0]
      array([2., 2., 2.], dtype=float32)
    """

    resize: int = 256
    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    maximum: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the sizes and the filter."""
        if not 0 < self.size <= self.resize:
            raise InputError(f"size: Expected 0 < size <= resize ({self.resize}), got {self.size}.")
        check_choice(self.interpolation, "interpolation", tuple(_FILTERS))

    def crop(self, source: str | os.PathLike[str] | Image.Image) -> Image.Image:
        """The part of the picture that the network gets: RGB, `size` × `size`, not normalised."""
        picture = _shorten(open_image(source))
        width, height = picture.size
        shorter = min(width, height)
        resized = int(self.resize * width / shorter), int(self.resize * height / shorter)
        picture = picture.resize(resized, _FILTERS[self.interpolation])
        left, top = (round((side - self.size) / 2) for side in resized)
        return picture.crop((left, top, left + self.size, top + self.size))

    def normalise(self, crop: Image.Image) -> np.ndarray:
        """The network's input (size, size, 3), float32, from a picture that `crop` has made."""
        pixels = np.asarray(crop, np.float32)
        scale = np.float32(self.maximum / 255)
        mean, std = np.array([self.mean, self.std], np.float32)
        return (pixels * scale - mean) / std


def _shorten(picture: Image.Image) -> Image.Image:
    """Cut the ends of a very long picture, which resizing would blow up beyond memory."""
    width, height = picture.size
    longest = _ELONGATED * min(width, height)
    if max(width, height) <= longest:
        return picture
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return picture.crop((left, top, left + min(width, longest), top + min(height, longest)))
