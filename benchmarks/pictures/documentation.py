"""The pictures of the documentation: of every method, of the README, and the paper's figures.

    python -m benchmarks method_gallery docs/pictures      # nothing is downloaded
    python -m benchmarks method_pictures docs/pictures     # SqueezeNet on real photos
    python -m benchmarks paper_figures docs/pictures

The last two need the network and photos that `benchmarks/faithfulness/real_networks.py` describes.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import dmbp_jax
from benchmarks.faithfulness.real_networks import REAL, photos, squeezenet
from benchmarks.faithfulness.real_photos import crop
from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.cli.demo import compare, generate_pair
from dmbp_jax.data.generated import generate
from dmbp_jax.experiments.figures import Question, paper_figures, save_sheet
from dmbp_jax.methods import METHODS
from dmbp_jax.pictures import diverging, grid, panel

QUESTIONS = (("star", "cross", 3), ("striped disc", "dotted disc", 0))  # label, rival, index
SEED = 2
DEMO = (6, 7)  # labels of the rows in the README
PHOTOS = ("Maltese_dog", "tiger_cat", "oxcart")
SHEETS = {
    "signed": ("gradient", "smoothgrad", "integrated_gradients", "blur_ig", "deeplift", "dmbp"),
    "coarse": ("guided_backprop", "guided_gradcam", "gradcam", "fullgrad", "rise", "lpr"),
}
OPTIONS = {"rise": {"n_masks": 2000}}
PHOTOS_OF_FIGURES = ("tiger_cat", "oxcart", "dogsled")


def draw_gallery() -> None:
    """A picture for each method on generated pictures, `docs/methods.md`; the README's."""
    folder = _parser(draw_gallery).parse_args().folder
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
    samples = [generate_pair(label) for label in DEMO]
    crops = [net.crop(Image.fromarray(sample.image)) for sample in samples]
    x, labels = np.stack([net.preprocessing.normalise(crop) for crop in crops]), np.array(DEMO)
    maps = np.asarray(dmbp_jax.attribute(net, x, labels).map)
    gradients = np.asarray(METHODS["gradient"](net, x, labels))
    return compare(DEMO, samples, crops, [maps, gradients])


def draw_methods() -> None:
    """Every method on three photos with SqueezeNet: the sheets of `docs/methods.md`."""
    parser = _parser(draw_methods)
    parser.add_argument("--only", choices=SHEETS, nargs="+", default=list(SHEETS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    params, apply_fn, preprocess = squeezenet()
    paths, labels = photos()
    chosen = [i for i, path in enumerate(paths) if any(name in path.name for name in PHOTOS)]
    x = np.stack([preprocess(paths[i]) for i in chosen])
    views = [_half_size(crop(Image.open(paths[i]))) for i in chosen]
    for name in arguments.only:
        columns = [views]
        for method in SHEETS[name]:
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
        picture = grid(rows, captions=["image", *SHEETS[name]])
        save(picture, arguments.folder / f"methods_{name}.png", colours=128)


def draw_figures() -> None:
    """The paper's figures for SqueezeNet on real photos: the pictures of `docs/figures.md`."""
    parser = _parser(draw_figures)
    parser.add_argument("--figures", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--photos", nargs="+", default=PHOTOS_OF_FIGURES, help="parts of names")
    parser.add_argument("--fast", action="store_true", help="40 steps at rate 0.03 instead of 200")
    parser.add_argument("--format", default="webp", help="svg, pdf, png or webp (default)")
    args = parser.parse_args()
    params, apply_fn, _ = squeezenet()
    started = time.perf_counter()
    sheets = paper_figures(
        params,
        questions(args.photos),
        apply_fn=apply_fn,
        config=dmbp_jax.DMBP(steps=40, learning_rate=0.03) if args.fast else dmbp_jax.DMBP.paper(),
        numbers=args.figures,
        progress=True,
    )
    args.folder.mkdir(parents=True, exist_ok=True)
    for number, sheet in sheets:
        path = args.folder / f"figure{number}_photos.{args.format}"
        save_sheet(sheet, path)
        print(path, flush=True)
    print(f"{time.perf_counter() - started:.0f} s")


def questions(chosen: Sequence[str]) -> list[Question]:
    """The chosen photos, their classes, and the network's best other class."""
    params, apply_fn, preprocess = squeezenet()
    names = (REAL / "imagenet_classes.txt").read_text("utf-8").splitlines()
    paths, labels = photos()
    found = []
    for name in chosen:
        (i,) = (i for i, path in enumerate(paths) if name in path.name)
        x, label = preprocess(paths[i]), int(labels[i])
        ranked = np.argsort(-np.asarray(apply_fn(params, x[None])[0]))
        other = int(next(choice for choice in ranked if choice != label))
        picture = crop(Image.open(paths[i]))
        found.append(Question(picture, x, (label, other), (names[label], names[other])))
    return found


def save(picture: Image.Image, path: Path, colours: int = 256) -> None:
    """With few colours, so that the repository stays small."""
    picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)


def _parser(command: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=command.__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go, e.g. docs/pictures")
    return parser


def _half_size(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2))


def _halve(heat: np.ndarray) -> np.ndarray:
    """Channel sum, then the mean of 2 x 2 pixels, so that pictures stay small."""
    heat = heat.sum(-1) if heat.ndim == 3 else heat
    height, width = (side // 2 for side in heat.shape)
    return heat[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))


COMMANDS = {
    "method_gallery": draw_gallery,
    "method_pictures": draw_methods,
    "paper_figures": draw_figures,
}
