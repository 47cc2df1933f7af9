"""`dmbp demo`: the method against plain gradients, where the right answer is known.

The package generates pictures with two rival objects, so it is known where evidence for and against
each label is.
"""

import argparse
from typing import TYPE_CHECKING, NamedTuple

from dmbp_jax.cli import compilation
from dmbp_jax.cli.commands import add_command, add_dmbp, add_output_folder, make_config
from dmbp_jax.cli.output import make_folder, refuse_overwrite, save_picture

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from dmbp_jax.data.generated import Sample

SEED = 2  # the network was trained on pictures of seed 0, and is evaluated on seed 1

SUMMARY = "explain generated pictures, with no download"
DESCRIPTION = """\
Explain generated pictures with the built-in network, and compare with plain gradients: how much of
the red lies on the object of the label, and how much of the blue on its rival, the object that is
evidence against the label? Needs no download.
"""
EXAMPLE = """\
example:
  dmbp demo -o dmbp-demo

Writes the pictures alone (scene-1.png, …), one panel for each label and comparison.png.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp demo [-o DIR]`."""
    parser = add_command(subparsers, "demo", run, SUMMARY, DESCRIPTION, EXAMPLE)
    add_output_folder(parser, "dmbp-demo", "DIR")
    add_dmbp(parser)
    parser.add_argument("--force", action="store_true", help="overwrite earlier results")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)


class Pair(NamedTuple):
    """A picture with two rival objects, and which of them is the label."""

    sample: "Sample"
    label: int
    rival: int


class Inside(NamedTuple):
    """Shares of a map's attribution inside the right mask; means over the pairs."""

    positive_on_label: float
    negative_on_rival: float


def run(args: argparse.Namespace) -> int:
    """Explain both objects of five pictures, draw the maps and measure them."""
    from dmbp_jax.data.generated import CLASSES

    numbers = [label // 2 + 1 for label in range(len(CLASSES))]
    scenes = [args.output / f"scene-{number}.png" for number in numbers]
    panels = [
        scene.with_suffix(f".{name.replace(' ', '-')}.png")
        for scene, name in zip(scenes, CLASSES, strict=True)
    ]
    comparison = args.output / "comparison.png"
    refuse_overwrite([*scenes, *panels, comparison], force=args.force)
    compilation.use_cache(args)
    import numpy as np

    from dmbp_jax import attribute, load, pictures
    from dmbp_jax.methods import METHODS

    config = make_config(args)
    net = load("builtin")
    make_folder(args.output)
    pairs = generate_pairs(len(CLASSES))
    crops = [net.crop(picture_of(pair)) for pair in pairs]
    x = np.stack([net.preprocessing.normalise(crop) for crop in crops])
    labels = np.array([pair.label for pair in pairs])
    att = attribute(net, x, labels, config=config, progress=not args.quiet)
    maps, gradients = np.asarray(att.map), np.asarray(METHODS["gradient"](net, x, labels))

    for i, pair in enumerate(pairs):
        save_picture(crops[i], scenes[i])
        title = f"{CLASSES[pair.label]}, beside a {CLASSES[pair.rival]}"
        parts = (att.positive[i], att.negative[i], maps[i])
        save_picture(pictures.panel(crops[i], *parts, title=title), panels[i])
    save_picture(compare(pairs, crops, maps, gradients), comparison)

    measured = {
        "DMBP": measure(pairs, maps.sum(axis=-1)),
        "gradient x input": measure(pairs, gradients.sum(axis=-1)),
        "area of the object": areas(pairs),
    }
    print(report(measured))
    print(f"{len(set(scenes))} pictures, {len(panels)} panels, and side by side: {comparison}")
    return 0


def generate_pairs(classes: int) -> list[Pair]:
    """One picture for each two rivals, once with each of them as the label."""
    from dmbp_jax.data.generated import generate, rival

    pairs = []
    for label in range(classes):
        shown = sorted((label, rival(label)))
        pairs.append(Pair(generate(SEED, label // 2, shown), label, rival(label)))
    return pairs


def picture_of(pair: Pair) -> "Image.Image":
    """The generated picture."""
    from PIL import Image

    return Image.fromarray(pair.sample.image)


def measure(pairs: list[Pair], heatmaps: "np.ndarray") -> Inside:
    """Share of the positive attribution on the label's object, of the negative one on its rival.

    A map that is the same everywhere scores the area of the object.
    """
    import numpy as np

    from dmbp_jax.metrics import attribution_inside

    labels = np.stack([pair.sample.masks[pair.label] for pair in pairs])
    rivals = np.stack([pair.sample.masks[pair.rival] for pair in pairs])
    return Inside(
        float(attribution_inside(heatmaps, labels).mean()),
        float(attribution_inside(heatmaps, rivals, sign="negative").mean()),
    )


def areas(pairs: list[Pair]) -> Inside:
    """What a map that is the same everywhere would score."""
    labels = [pair.sample.masks[pair.label].mean() for pair in pairs]
    rivals = [pair.sample.masks[pair.rival].mean() for pair in pairs]
    return Inside(sum(labels) / len(labels), sum(rivals) / len(rivals))


def report(measured: dict[str, Inside]) -> str:
    """Two lines of numbers, the methods side by side."""
    lines = {
        "positive attribution on the object of the label": "positive_on_label",
        "negative attribution on the rival object": "negative_on_rival",
    }
    return "\n".join(
        f"share of the {line}: "
        + ", ".join(f"{name} {getattr(inside, field):.0%}" for name, inside in measured.items())
        for line, field in lines.items()
    )


def compare(
    pairs: list[Pair],
    crops: "list[Image.Image]",
    maps: "np.ndarray",
    gradients: "np.ndarray",
) -> "Image.Image":
    """One row for each pair: picture, masks, DMBP, gradient x input, each on its own scale."""
    from dmbp_jax import pictures
    from dmbp_jax.data.generated import CLASSES

    rows = [
        [crop, draw_masks(pair), pictures.diverging(dmbp), pictures.diverging(gradient)]
        for pair, crop, dmbp, gradient in zip(pairs, crops, maps, gradients, strict=True)
    ]
    return pictures.grid(
        rows,
        captions=["picture", "red: object, blue: rival", "DMBP", "gradient x input"],
        row_titles=[f"{CLASSES[pair.label]}, beside a {CLASSES[pair.rival]}" for pair in pairs],
        scale=2,
    )


def draw_masks(pair: Pair) -> "Image.Image":
    """Where evidence is known to be: the label's object in red, its rival in blue."""
    import numpy as np

    from dmbp_jax import pictures

    masks = pair.sample.masks[[pair.label, pair.rival]].astype(np.float64)
    return pictures.diverging(masks[0] - masks[1], vmax=2.0)
