"""The pixels of a picture, and the colours of its extremes."""

import numpy as np
from PIL import Image

WHITE, RED, BLUE = (255, 255, 255), (128, 0, 0), (0, 0, 76)


def pixels(picture: Image.Image) -> np.ndarray:
    assert isinstance(picture, Image.Image)
    assert picture.mode == "RGB"
    return np.asarray(picture)
