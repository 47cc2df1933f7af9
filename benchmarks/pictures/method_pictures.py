"""Draw every method on the same photos with SqueezeNet: the pictures of docs/methods.md.

Needs the real network and photos that `benchmarks/faithfulness/real_networks.py` describes:

    python -m benchmarks method_pictures docs/pictures
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks.faithfulness.real_networks import photos, squeezenet
from dmbp_jax.methods import METHODS
from dmbp_jax.pictures import diverging, grid

CHOSEN = ("Maltese_dog", "tiger_cat", "oxcart")
PICTURES = {
    "signed": ("gradient", "smoothgrad", "integrated_gradients", "blur_ig", "deeplift", "dmbp"),
    "coarse": ("guided_backprop", "guided_gradcam", "gradcam", "fullgrad", "rise", "lpr"),
}
OPTIONS = {"rise": {"n_masks": 2000}}
COLOURS = 128  # of the saved picture


def main() -> None:
    """Write methods_signed.png and methods_coarse.png into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go, e.g. docs/pictures")
    parser.add_argument("--only", choices=PICTURES, nargs="+", default=list(PICTURES))
    arguments = parser.parse_args()
    params, apply_fn, preprocess = squeezenet()
    paths, labels = photos()
    chosen = [i for i, path in enumerate(paths) if any(name in path.name for name in CHOSEN)]
    x = np.stack([preprocess(paths[i]) for i in chosen])
    views = [_crop(image) for image in x]
    for name in arguments.only:
        columns = [views]
        for method in PICTURES[name]:
            start = time.perf_counter()
            heat = METHODS[method](
                params, x, labels[chosen], apply_fn=apply_fn, **OPTIONS.get(method, {})
            )
            heat = np.asarray(jax.block_until_ready(heat))
            print(f"{method}: {time.perf_counter() - start:.1f} s", flush=True)
            if method == "rise":  # nearly flat: drawn from its minimum
                heat = heat - heat.min((1, 2), keepdims=True)
            columns.append([diverging(_halve(h)) for h in heat])
        rows = [list(row) for row in zip(*columns, strict=True)]
        picture = grid(rows, captions=["image", *PICTURES[name]])
        arguments.folder.mkdir(parents=True, exist_ok=True)
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(
            arguments.folder / f"methods_{name}.png", optimize=True
        )


def _crop(image: np.ndarray) -> Image.Image:
    """The photo as the network sees it (BGR minus mean), at half size."""
    rgb = np.clip(image + np.array([104, 117, 123]), 0, 255)[..., ::-1].astype(np.uint8)
    return Image.fromarray(rgb).resize((rgb.shape[1] // 2, rgb.shape[0] // 2))


def _halve(heat: np.ndarray) -> np.ndarray:
    """Channel sum, then the mean of 2 x 2 pixels, so that pictures stay small."""
    heat = heat.sum(-1) if heat.ndim == 3 else heat
    height, width = (side // 2 for side in heat.shape)
    return heat[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))


if __name__ == "__main__":
    main()
