"""`dmbp demo`: the method against plain gradients, where the right answer is known.

The package generates pictures with two rival objects, so it is known where evidence for and against
each label is.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dmbp_jax import attribute, load, pictures
from dmbp_jax.cli.output import make_folder, refuse_overwrite
from dmbp_jax.cli.settings import make_config, use_compilation_cache
from dmbp_jax.data.generated import CLASSES, Sample, generate, rival
from dmbp_jax.files import replacing
from dmbp_jax.methods import METHODS
from dmbp_jax.metrics import attribution_inside

SEED = 2  # the network was trained on pictures of seed 0, and is evaluated on seed 1


def generate_pair(label: int) -> Sample:
    """The picture of a label and its rival; with the rival as the label it is the same one."""
    return generate(SEED, label // 2, sorted((label, rival(label))))


def run(args: argparse.Namespace) -> int:
    """Explain both objects of five pictures, draw the maps and measure them."""
    labels = range(len(CLASSES))
    scenes = [args.output / f"scene-{label // 2 + 1}.png" for label in labels]
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
    samples = [generate_pair(label) for label in labels]
    crops = [net.crop(Image.fromarray(sample.image)) for sample in samples]
    x = np.stack([net.preprocessing.normalise(crop) for crop in crops])
    att = attribute(net, x, np.array(labels), config=config, progress=not args.quiet)
    maps = np.asarray(att.map)
    gradients = np.asarray(METHODS["gradient"](net, x, np.array(labels)))

    drawn = dict(zip(scenes, crops, strict=True))
    for i in labels:
        parts = (att.positive[i], att.negative[i], maps[i])
        drawn[panels[i]] = pictures.panel(crops[i], *parts, title=title(i))
    drawn[comparison] = compare(labels, samples, crops, [maps, gradients])
    for path, picture in drawn.items():
        with replacing(path) as part:
            picture.save(part)
    heatmaps = {"DMBP": maps.sum(-1), "gradient x input": gradients.sum(-1)}
    print(measure(labels, samples, heatmaps))
    print(f"{len(set(scenes))} pictures, {len(panels)} panels, and side by side: {comparison}")
    return 0


def title(label: int) -> str:
    """Both objects of a picture in words."""
    return f"{CLASSES[label]}, beside a {CLASSES[rival(label)]}"


def measure(
    labels: Sequence[int], samples: Sequence[Sample], heatmaps: Mapping[str, np.ndarray]
) -> str:
    """Shares of the positive attribution on the label's object, of the negative one on its rival.

    Two lines, means over the pictures, of heatmaps (N, H, W) by name. One that is the same
    everywhere scores the area.
    """
    lines = []
    for sign, place, objects in (
        ("positive", "object of the label", labels),
        ("negative", "rival object", map(rival, labels)),
    ):
        masks = np.stack([one.masks[label] for one, label in zip(samples, objects, strict=True)])
        shares = {
            name: float(attribution_inside(heatmap, masks, sign=sign).mean())
            for name, heatmap in heatmaps.items()
        }
        shares["area of the object"] = float(masks.mean())
        numbers = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        lines.append(f"share of the {sign} attribution on the {place}: {numbers}")
    return "\n".join(lines)


def compare(
    labels: Sequence[int],
    samples: Sequence[Sample],
    crops: Sequence[Image.Image],
    maps: Sequence[np.ndarray],
) -> Image.Image:
    """One row for each picture: itself, masks, DMBP, gradient x input, each on its own scale."""
    return pictures.grid(
        [
            [crop, draw_masks(label, sample), *map(pictures.diverging, of_picture)]
            for label, sample, crop, *of_picture in zip(labels, samples, crops, *maps, strict=True)
        ],
        captions=["picture", "red: object, blue: rival", "DMBP", "gradient x input"],
        row_titles=[title(label) for label in labels],
        scale=2,
    )


def draw_masks(label: int, sample: Sample) -> Image.Image:
    """Where evidence is known to be: the label's object in red, its rival in blue."""
    masks = sample.masks[label].astype(np.float64) - sample.masks[rival(label)]
    return pictures.diverging(masks, vmax=2.0)
