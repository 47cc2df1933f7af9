"""One picture for each method, on generated pictures with the built-in network.

The pictures of docs/methods_gallery.md, docs/first_map.md and the README; nothing is downloaded:

    python -m benchmarks method_gallery docs/pictures
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import dmbp_jax
from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.cli.demo import compare, generate_pairs, picture_of
from dmbp_jax.data.generated import generate
from dmbp_jax.methods import METHODS
from dmbp_jax.pictures import diverging, grid, panel

QUESTIONS = (("star", "cross", 3), ("striped disc", "dotted disc", 0))  # label, rival, index
SEED = 2
DEMO = (6, 7)  # labels of the rows in the README
COLOURS = 256  # of a saved picture


def main() -> None:
    """Write method_NAME.png for every row of the catalogue, first_map.png and demo.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go, e.g. docs/pictures")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    net = dmbp_jax.load("builtin")
    crops = [
        net.crop(Image.fromarray(generate(SEED, index, (label, other)).image))
        for label, other, index in QUESTIONS
    ]
    x = np.stack([net.preprocessing.normalise(crop) for crop in crops])
    labels = np.array([net.label_index(label) for label, _, _ in QUESTIONS])
    captions = [part for label, _, _ in QUESTIONS for part in ("image", label)]
    for method in CATALOGUE:
        heats = np.asarray(method.function(net, x, labels))
        if not method.signed:  # drawn from the minimum
            heats = heats - heats.min((1, 2), keepdims=True)
        row = [
            tile
            for crop, heat in zip(crops, heats, strict=True)
            for tile in (crop, diverging(heat))
        ]
        save(grid([row], captions=captions, scale=2), folder / f"method_{method.name}.png")
        print(method.name, flush=True)
    att = dmbp_jax.attribute(net, x[0], labels[0])
    parts = att.positive, att.negative, att.map
    save(panel(crops[0], *parts, title="star"), folder / "first_map.png")
    save(draw_demo(net), folder / "demo.png")


def draw_demo(net: dmbp_jax.Network) -> Image.Image:
    """Two of the ten rows that `dmbp demo` draws."""
    pairs = [pair for pair in generate_pairs(10) if pair.label in DEMO]
    crops = [net.crop(picture_of(pair)) for pair in pairs]
    x = np.stack([net.preprocessing.normalise(crop) for crop in crops])
    labels = np.array([pair.label for pair in pairs])
    maps = np.asarray(dmbp_jax.attribute(net, x, labels).map)
    return compare(pairs, crops, maps, np.asarray(METHODS["gradient"](net, x, labels)))


def save(picture: Image.Image, path: Path) -> None:
    """With few colours, so that the repository stays small."""
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
