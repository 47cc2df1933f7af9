"""`dmbp demo`: the method against plain gradients, where the right answer is known.

The package generates pictures with two rival objects, so it is known where evidence for and against
each label is.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dmbp_jax import attribute, load, pictures
from dmbp_jax.cli.output import make_folder, refuse_overwrite
from dmbp_jax.cli.settings import make_config, use_compilation_cache
from dmbp_jax.data.generated import CLASSES, generate, rival
from dmbp_jax.files import replacing
from dmbp_jax.methods import METHODS
from dmbp_jax.metrics import attribution_inside

SEED = 2  # the network was trained on pictures of seed 0, and is evaluated on seed 1


class Pair(NamedTuple):
    """A generated picture with two rival objects, of which one is the label; (H, W) masks."""

    picture: Image.Image
    label: int
    rival: int
    label_mask: np.ndarray
    rival_mask: np.ndarray

    @property
    def title(self) -> str:
        """Both in words."""
        return f"{CLASSES[self.label]}, beside a {CLASSES[self.rival]}"


def generate_pair(label: int) -> Pair:
    """A picture for a label; with its rival as the label it is the same one."""
    other = rival(label)
    sample = generate(SEED, label // 2, sorted((label, other)))
    picture = Image.fromarray(sample.image)
    return Pair(picture, label, other, sample.masks[label], sample.masks[other])


def run(args: argparse.Namespace) -> int:
    """Explain both objects of five pictures, draw the maps and measure them."""
    numbers = [label // 2 + 1 for label in range(len(CLASSES))]
    scenes = [args.output / f"scene-{number}.png" for number in numbers]
    panels = [
        scene.with_suffix(f".{name.replace(' ', '-')}.png")
        for scene, name in zip(scenes, CLASSES, strict=True)
    ]
    comparison = args.output / "comparison.png"
    refuse_overwrite([*scenes, *panels, comparison], force=args.force)
    use_compilation_cache(args)
    config = make_config(args)
    net = load("builtin")
    make_folder(args.output)
    pairs = [generate_pair(label) for label in range(len(CLASSES))]
    crops = [net.crop(pair.picture) for pair in pairs]
    x = np.stack([net.preprocessing.normalise(crop) for crop in crops])
    labels = np.array([pair.label for pair in pairs])
    att = attribute(net, x, labels, config=config, progress=not args.quiet)
    maps, gradients = np.asarray(att.map), np.asarray(METHODS["gradient"](net, x, labels))

    drawn = dict(zip(scenes, crops, strict=True))
    for i, pair in enumerate(pairs):
        parts = (att.positive[i], att.negative[i], maps[i])
        drawn[panels[i]] = pictures.panel(crops[i], *parts, title=pair.title)
    drawn[comparison] = compare(pairs, crops, maps, gradients)
    for path, picture in drawn.items():
        with replacing(path) as part:
            picture.save(part)
    print(measure(pairs, {"DMBP": maps.sum(-1), "gradient x input": gradients.sum(-1)}))
    print(f"{len(set(scenes))} pictures, {len(panels)} panels, and side by side: {comparison}")
    return 0


def measure(pairs: Sequence[Pair], heatmaps: Mapping[str, np.ndarray]) -> str:
    """Shares of the positive attribution on the label's object, of the negative one on its rival.

    Args:
      pairs: the N pictures.
      heatmaps: name -> (N, H, W).

    Returns:
      Two lines, means over the pictures. A map that is the same everywhere scores the area.
    """
    lines = []
    for sign, place, masks in (
        ("positive", "object of the label", np.stack([pair.label_mask for pair in pairs])),
        ("negative", "rival object", np.stack([pair.rival_mask for pair in pairs])),
    ):
        shares = {
            name: float(attribution_inside(heatmap, masks, sign=sign).mean())
            for name, heatmap in heatmaps.items()
        }
        shares["area of the object"] = float(masks.mean())
        numbers = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        lines.append(f"share of the {sign} attribution on the {place}: {numbers}")
    return "\n".join(lines)


def compare(
    pairs: Sequence[Pair],
    crops: Sequence[Image.Image],
    maps: np.ndarray,
    gradients: np.ndarray,
) -> Image.Image:
    """One row for each pair: picture, masks, DMBP, gradient x input, each on its own scale."""
    return pictures.grid(
        [
            [crop, draw_masks(pair), pictures.diverging(dmbp), pictures.diverging(gradient)]
            for pair, crop, dmbp, gradient in zip(pairs, crops, maps, gradients, strict=True)
        ],
        captions=["picture", "red: object, blue: rival", "DMBP", "gradient x input"],
        row_titles=[pair.title for pair in pairs],
        scale=2,
    )


def draw_masks(pair: Pair) -> Image.Image:
    """Where evidence is known to be: the label's object in red, its rival in blue."""
    masks = pair.label_mask.astype(np.float64) - pair.rival_mask
    return pictures.diverging(masks, vmax=2.0)
