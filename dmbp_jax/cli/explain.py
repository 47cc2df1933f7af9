"""`dmbp explain`: photos in, pictures of their attribution maps out."""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmbp_jax.cli import compilation
from dmbp_jax.cli.output import keep, make_folder, replacing
from dmbp_jax.cli.reporting import BAD_INPUT, one_line
from dmbp_jax.errors import DmbpError, DownloadError, InputError

if TYPE_CHECKING:
    import jax
    import numpy as np
    from PIL import Image

    from dmbp_jax import DMBP, Network

    Explainer = Callable[[Network, np.ndarray, int | None], Iterator["Explanation"]]

METHODS = (
    "dmbp",
    "gradient",
    "integrated_gradients",
    "smoothgrad",
    "blur_ig",
    "deeplift",
    "guided_backprop",
    "guided_gradcam",
    "gradcam",
    "fullgrad",
    "rise",
    "lpr",
)  # spelled out, because the parser does not import JAX; a test holds it equal to the registry
WITHOUT_ZERO = ("rise",)  # averages of scores: only differences between pixels mean something
LOSSES = ("all", "positive-negative", "positive")
FORMATS = ("panel", "overlay", "map")

DESCRIPTION = """\
Write one picture for each image: red pixels speak for the label, blue ones against it. Images are
cropped as the network needs it, and done in batches.
"""
EXAMPLE = """\
examples:
  dmbp explain dog.jpg cat.jpg --network resnet50 --label "golden retriever" -o maps --npz
  dmbp demo && dmbp explain dmbp-demo/scene-4.png --network builtin --label star

The weights of resnet50 are downloaded once; --weights reads a file instead, and builtin needs
neither. Each picture goes to OUT/<name of the image>.<method>.png. If an image cannot be read the
others are still done, its reason goes to stderr, and the exit code is 2.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp explain IMAGE… [--network NAME] [--weights FILE] [--label N|NAME] [--method M] …`."""
    parser = subparsers.add_parser(
        "explain",
        help="explain what a network sees in photos",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="picture file")
    parser.add_argument(
        "--network", metavar="NAME", default="resnet50", help="default resnet50; see dmbp networks"
    )
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help="read the weights from FILE, no download"
    )
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="class names of a fine-tuned network, by line"
    )
    parser.add_argument(
        "--label",
        metavar="N|NAME",
        help="class to explain, by number or name; default: what the network says of each image",
    )
    parser.add_argument(
        "--method", choices=METHODS, default="dmbp", metavar="M", help=", ".join(METHODS)
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        default=Path("dmbp-explain"),
        help="folder, made if missing; default dmbp-explain",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="panel",
        help="panel: image, positive part, negative part and map side by side (default); overlay: "
        "both parts over the image, as the authors draw them; map: the map on white",
    )
    parser.add_argument(
        "--npz", action="store_true", help="also write the arrays, beside each picture"
    )
    parser.add_argument("--force", action="store_true", help="overwrite earlier results")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="images at once; default 8"
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, help="optimisation steps of dmbp; default 200"
    )
    parser.add_argument(
        "--loss", choices=LOSSES, help="variant of dmbp in the paper's Table 1; default all"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)
    parser.set_defaults(run=run)


class Photo(NamedTuple):
    """One image that could be read: its file, the picture to write, and the network's input."""

    path: Path
    target: Path
    crop: "Image.Image"
    x: "np.ndarray"  # (H, W, C)


class Explanation(NamedTuple):
    """Maps of one photo, as they are drawn; a method other than dmbp has no parts."""

    label: int
    numbers: str
    map: "np.ndarray"
    parts: "tuple[np.ndarray, np.ndarray] | None"
    save: Callable[[Path], object]


def run(args: argparse.Namespace) -> int:
    """Explain every image that can be read; the exit code is 2 if one could not be."""
    check_options(args)
    targets = name_results(args.images, args.output, args.method)
    arrays = [target.with_suffix(".npz") for target in targets] if args.npz else []
    keep([*targets, *arrays], force=args.force)
    compilation.use_cache(args)
    from dmbp_jax import load

    explain = explainer(args)
    try:
        net = load(args.network, args.weights, args.labels)
    except DownloadError as error:
        raise DownloadError(f"{error} dmbp demo needs no download.") from error
    label = None if args.label is None else net.label_index(number_or_name(args.label))
    make_folder(args.output)
    failures = 0

    def failed(path: Path, error: Exception) -> None:
        nonlocal failures
        failures += 1
        print(f"dmbp: {reason(path, error)}", file=sys.stderr)

    photos = read(net, zip(args.images, targets, strict=True), failed)
    for group, x in batches(photos, len(args.images), args.batch_size):
        for photo, explanation in zip(group, explain(net, x, label), strict=False):
            name = net.labels[explanation.label]
            try:
                picture = draw(args.format, photo.crop, explanation, name)
            except DmbpError as error:  # numbers that overflowed
                failed(photo.path, error)
                continue
            with replacing(photo.target) as part:
                picture.save(part)
            if args.npz:
                with replacing(photo.target.with_suffix(".npz")) as part:
                    explanation.save(part)
            numbers = f"{name} ({explanation.label})  {explanation.numbers}"
            print(f"{photo.path}: {numbers}  -> {photo.target}", flush=True)
    return BAD_INPUT if failures else 0


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that would be ignored, before anything is loaded.

    Raises:
      InputError: a batch size below 1, or an option of dmbp with another method.
    """
    if args.batch_size < 1:
        raise InputError(f"--batch-size: Expected at least 1, got {args.batch_size}.")
    if args.method != "dmbp" and (args.steps is not None or args.loss is not None):
        raise InputError(f"--steps, --loss: Expected only with --method dmbp, got {args.method}.")


def number_or_name(label: str) -> int | str:
    """A class as typed: a number is an index, anything else a name."""
    try:
        return int(label)
    except ValueError:
        return label


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
    """The photos that can be read; `failed` hears of the others."""
    for path, target in files:
        try:
            yield Photo(path, target, net.crop(path), net.preprocess(path))
        except (DmbpError, OSError) as error:
            failed(path, error)


def reason(path: Path, error: Exception) -> str:
    """Why an image failed, with its name said once."""
    message = one_line(error)
    return message if message.startswith(str(path)) else f"{path}: {message}"


def batches(
    photos: Iterator[Photo], count: int, batch_size: int
) -> "Iterator[tuple[list[Photo], np.ndarray]]":
    """Photos in groups of nearly equal size, with their inputs stacked.

    A later group that is smaller is filled up with repeats of its last image, so that one
    compiled program serves all of them; an image's result does not depend on its batch mates.
    """
    import numpy as np

    size = math.ceil(count / math.ceil(count / batch_size))
    first = True
    while group := list(itertools.islice(photos, size)):
        inputs = [photo.x for photo in group]
        if not first:
            inputs += inputs[-1:] * (size - len(inputs))
        first = False
        yield group, np.stack(inputs)


def explainer(args: argparse.Namespace) -> "Explainer":
    """The method that was chosen, with its settings.

    Raises:
      InputError: a setting out of range.
    """
    import jax

    from dmbp_jax import DMBP

    if args.method == "dmbp":
        settings = {"steps": args.steps, "loss": args.loss}
        config = DMBP(**{name: value for name, value in settings.items() if value is not None})
        return partial(explain_by_dmbp, config, not args.quiet)
    forward = jax.jit(lambda net, x: net(x))
    return partial(explain_by_method, args.method, forward)


def explain_by_dmbp(
    config: "DMBP", progress: bool, net: "Network", x: "np.ndarray", label: int | None
) -> Iterator[Explanation]:
    """Attributions of a batch, with y, y+, y- and the nuisance y~ (paper Eq. 9)."""
    import numpy as np

    from dmbp_jax import attribute

    batch = attribute(net, x, label, config=config, progress=progress)
    for i in range(len(batch)):
        one = batch[i]
        numbers = (
            f"y {one.y:.3f}  y+ {one.y_positive:.3f}  y- {one.y_negative:.3f}  "
            f"y~ {one.y_nuisance:.3f}"
        )
        parts = (np.asarray(one.positive), np.asarray(one.negative))
        yield Explanation(int(one.label), numbers, np.asarray(one.map), parts, one.save)


def explain_by_method(
    method: str,
    forward: "Callable[[Network, np.ndarray], jax.Array]",
    net: "Network",
    x: "np.ndarray",
    label: int | None,
) -> Iterator[Explanation]:
    """Maps of a batch by one of the compared methods, with the logit of the label."""
    import numpy as np

    from dmbp_jax.methods import METHODS

    logits = np.asarray(forward(net, x))
    labels = logits.argmax(axis=-1) if label is None else np.full(len(x), label)
    maps = np.asarray(METHODS[method](net, x, labels))
    for one, explained, scores in zip(maps, labels, logits, strict=True):
        logit = scores[explained]
        save = partial(np.savez_compressed, map=one, label=explained, logit=logit)
        drawn = one - one.mean() if method in WITHOUT_ZERO else one
        yield Explanation(int(explained), f"logit {logit:.3f}", drawn, None, save)


def draw(format: str, crop: "Image.Image", explanation: Explanation, name: str) -> "Image.Image":
    """The picture of one explanation."""
    from dmbp_jax import pictures

    parts = explanation.parts
    if format == "map":
        return pictures.diverging(explanation.map)
    if format == "overlay":
        if parts is None:
            return pictures.overlay(crop, heatmap=explanation.map)
        return pictures.overlay(crop, *parts)
    title = f"{name}: {explanation.numbers}"
    return pictures.panel(crop, *(parts or (None, None)), explanation.map, title=title)
