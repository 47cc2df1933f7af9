"""`dmbp demo`: the method against plain gradients, where the right answer is known.

The package generates pictures with two rival objects, so evidence for and against each label has
a known place.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmbp_jax.cli import compilation
from dmbp_jax.cli.output import keep, make_folder, replacing

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from dmbp_jax.data.generated import Sample

SEED = 2  # the network was trained on pictures of seed 0, and is evaluated on seed 1

DESCRIPTION = """\
Explain generated pictures with the built-in network, and compare with plain gradients: how much of
the red lies on the object that was asked for, and how much of the blue on its rival, the object
that speaks against it? Needs no download.
"""
EXAMPLE = """\
example:
  dmbp demo -o dmbp-demo

Writes the pictures alone (scene-1.png, …), one panel for each question and comparison.png.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp demo [-o DIR]`."""
    parser = subparsers.add_parser(
        "demo",
        help="see it work, with no download",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("dmbp-demo"),
        help="folder, made if missing; default dmbp-demo",
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, default=200, help="optimisation steps; default 200"
    )
    parser.add_argument("--force", action="store_true", help="overwrite earlier results")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)
    parser.set_defaults(run=run)


class Question(NamedTuple):
    """A picture with two rival objects, and the one of them that is asked for."""

    sample: "Sample"
    target: int
    rival: int


class Shares(NamedTuple):
    """How much of a map lies where it belongs; means over the questions."""

    positive_on_target: float
    negative_on_rival: float


def run(args: argparse.Namespace) -> int:
    """Ask for both objects of five pictures, draw the answers and measure them."""
    from dmbp_jax.data.generated import CLASSES

    numbers = [target // 2 + 1 for target in range(len(CLASSES))]
    scenes = [args.output / f"scene-{number}.png" for number in numbers]
    panels = [
        scene.with_suffix(f".{name.replace(' ', '-')}.png")
        for scene, name in zip(scenes, CLASSES, strict=True)
    ]
    comparison = args.output / "comparison.png"
    keep([*scenes, *panels, comparison], force=args.force)
    compilation.use_cache(args)
    import numpy as np

    from dmbp_jax import DMBP, attribute, load, pictures
    from dmbp_jax.methods import METHODS

    config = DMBP(steps=args.steps)
    net = load("builtin")
    make_folder(args.output)
    questions = ask(len(CLASSES))
    crops = [net.crop(picture_of(question)) for question in questions]
    x = np.stack([net.preprocess(picture_of(question)) for question in questions])
    labels = np.array([question.target for question in questions])
    att = attribute(net, x, labels, config=config, progress=not args.quiet)
    maps, gradients = np.asarray(att.map), np.asarray(METHODS["gradient"](net, x, labels))

    for i, question in enumerate(questions):
        save(crops[i], scenes[i])
        title = f"{CLASSES[question.target]}, beside a {CLASSES[question.rival]}"
        parts = (att.positive[i], att.negative[i], maps[i])
        save(pictures.panel(crops[i], *parts, title=title), panels[i])
    save(compare(questions, crops, maps, gradients), comparison)

    measured = {
        "DMBP": measure(questions, maps.sum(axis=-1)),
        "gradient x input": measure(questions, gradients.sum(axis=-1)),
        "area of the object": areas(questions),
    }
    print(report(measured))
    print(f"{len(set(scenes))} pictures, {len(panels)} panels, and side by side: {comparison}")
    return 0


def save(picture: "Image.Image", path: Path) -> None:
    """Write a picture whole or not at all."""
    with replacing(path) as part:
        picture.save(part)


def ask(classes: int) -> list[Question]:
    """One picture for each pair of rivals, and for each picture a question for both of them."""
    from dmbp_jax.data.generated import generate, rival

    questions = []
    for target in range(classes):
        pair = sorted((target, rival(target)))
        questions.append(Question(generate(SEED, target // 2, pair), target, rival(target)))
    return questions


def picture_of(question: Question) -> "Image.Image":
    """The generated picture."""
    from PIL import Image

    return Image.fromarray(question.sample.image)


def measure(questions: list[Question], heatmaps: "np.ndarray") -> Shares:
    """Share of the positive attribution on the target, of the negative one on its rival.

    Σ max(h, 0) over the object's mask / Σ max(h, 0), and the same for −h: an all-zero sign
    counts as 0. A map that is the same everywhere scores the area of the object.
    """
    import numpy as np

    def share(parts: np.ndarray, mask: np.ndarray) -> float:
        total = parts.sum()
        return float(parts[mask].sum() / total) if total > 0 else 0.0

    positive = [
        share(np.maximum(h, 0), q.sample.masks[q.target])
        for q, h in zip(questions, heatmaps, strict=True)
    ]
    negative = [
        share(np.maximum(-h, 0), q.sample.masks[q.rival])
        for q, h in zip(questions, heatmaps, strict=True)
    ]
    return Shares(float(np.mean(positive)), float(np.mean(negative)))


def areas(questions: list[Question]) -> Shares:
    """What a map that is the same everywhere would score."""
    targets = [q.sample.masks[q.target].mean() for q in questions]
    rivals = [q.sample.masks[q.rival].mean() for q in questions]
    return Shares(sum(targets) / len(targets), sum(rivals) / len(rivals))


def report(measured: dict[str, Shares]) -> str:
    """Two lines of numbers, the methods side by side."""
    lines = {
        "positive attribution on the object asked for": "positive_on_target",
        "negative attribution on the rival object": "negative_on_rival",
    }
    return "\n".join(
        f"share of the {line}: "
        + ", ".join(f"{name} {getattr(shares, field):.0%}" for name, shares in measured.items())
        for line, field in lines.items()
    )


def compare(
    questions: list[Question],
    crops: "list[Image.Image]",
    maps: "np.ndarray",
    gradients: "np.ndarray",
) -> "Image.Image":
    """One row for each question: picture, truth, DMBP, gradient x input, each on its own scale."""
    from dmbp_jax import pictures
    from dmbp_jax.data.generated import CLASSES

    rows = [
        [crop, truth(question), pictures.diverging(ours), pictures.diverging(theirs)]
        for question, crop, ours, theirs in zip(questions, crops, maps, gradients, strict=True)
    ]
    return pictures.grid(
        rows,
        captions=["picture", "red: object, blue: rival", "DMBP", "gradient x input"],
        row_titles=[f"{CLASSES[q.target]}, beside a {CLASSES[q.rival]}" for q in questions],
        scale=2,
    )


def truth(question: Question) -> "Image.Image":
    """Where evidence belongs: the object asked for in red, its rival in blue."""
    import numpy as np

    from dmbp_jax import pictures

    masks = question.sample.masks[[question.target, question.rival]].astype(np.float64)
    return pictures.diverging(masks[0] - masks[1], vmax=2.0)
