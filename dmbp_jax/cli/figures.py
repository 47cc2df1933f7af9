"""`dmbp figures`: the paper's Figures 1 to 5 for any network and pictures."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dmbp_jax.cli import compilation
from dmbp_jax.cli.commands import (
    add_command,
    add_dmbp,
    add_network,
    add_output_folder,
    as_path,
    make_config,
    open_network,
)
from dmbp_jax.cli.output import make_folder, refuse_overwrite
from dmbp_jax.errors import InputError

if TYPE_CHECKING:
    from dmbp_jax import Network
    from dmbp_jax.experiments.figures import Question

SEED = 2  # of the generated pictures; the network was trained on seed 0
SHOWN = ("star", "striped disc", "checked square")  # labels of the generated pictures

SUMMARY = "draw the paper's figures"
DESCRIPTION = """\
Draw the paper's figures: 1, maps for two classes; 2, the mappings F, F+ and F-; 3, the insertion
metric; 4, beside FullGrad and Grad-CAM; 5, beside other gradient-based methods. Without IMAGE,
pictures with two rival objects are generated for the built-in network; no download is needed.
"""
EXAMPLE = """\
examples:
  dmbp figures --quick -o dmbp-figures
  dmbp figures dog.jpg cat.jpg --network resnet50 --label "tiger cat" --label Labrador

Writes figure1.svg to figure5.svg. Needs matplotlib: pip install "dmbp-jax[figures]".
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp figures [IMAGE…] [--network NAME] [--weights FILE] [--label N|NAME] …`."""
    parser = add_command(subparsers, "figures", run, SUMMARY, DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="*", type=as_path, help="picture file")
    add_network(parser, None, "default resnet50, or builtin without IMAGE; see dmbp networks")
    add(
        "--label",
        metavar="N|NAME",
        action="append",
        help="class to explain; twice for both classes of Fig. 1; default: the network's first "
        "and second choice for each image",
    )
    add(
        "--figures",
        metavar="N",
        type=int,
        nargs="+",
        default=[1, 2, 3, 4, 5],
        help="which figures; default all",
    )
    add(
        "--format",
        choices=("svg", "pdf", "png", "webp"),
        default="svg",
        help="svg and pdf keep lines and text as such; default svg",
    )
    add_dmbp(parser)
    add_output_folder(parser, "dmbp-figures", "OUT")
    add("--force", action="store_true", help="overwrite earlier results")
    add("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Draw the figures."""
    from dmbp_jax.experiments.figures_sheet import check_matplotlib

    check_matplotlib()
    if not args.images and args.label:
        raise InputError("--label: Expected only with IMAGE; the generated pictures have labels.")
    if len(args.label or ()) > 2:
        raise InputError(f"--label: Expected at most two classes, got {len(args.label)}.")
    targets = [args.output / f"figure{number}.{args.format}" for number in args.figures]
    refuse_overwrite(targets, force=args.force)
    compilation.use_cache(args)
    from dmbp_jax.experiments.figures import draw_figures

    config = make_config(args)
    net = open_network(args, args.network or ("resnet50" if args.images else "builtin"))
    questions = photos(net, args.images, args.label or ()) if args.images else generated(net)
    make_folder(args.output)
    files = draw_figures(
        net,
        questions,
        args.output,
        format=args.format,
        config=config,
        numbers=args.figures,
        progress=not args.quiet,
        nonaffine="freeze",  # as dmbp explain
    )
    print("\n".join(str(file) for file in files))
    return 0


def generated(net: "Network") -> "list[Question]":
    """Pictures with two rival objects; the label is one of them, the other class its rival.

    Raises:
      InputError: the network has other classes.
    """
    from PIL import Image

    from dmbp_jax.data.generated import CLASSES, generate, rival
    from dmbp_jax.experiments.figures import Question

    if net.labels != CLASSES:
        raise InputError(f"IMAGE: Expected pictures for the network {net.name}, got none.")
    questions = []
    for name in SHOWN:
        labels = CLASSES.index(name), rival(CLASSES.index(name))
        sample = generate(SEED, labels[0] // 2, sorted(labels))
        crop = net.crop(Image.fromarray(sample.image))
        names = name, CLASSES[labels[1]]
        questions.append(Question(crop, net.preprocessing.normalise(crop), labels, names))
    return questions


def photos(
    net: "Network", paths: "list[Path]", chosen: "list[str] | tuple[()]"
) -> "list[Question]":
    """Photos with the classes that were asked for, else the network's first two choices."""
    import numpy as np

    from dmbp_jax.experiments.figures import Question

    given = [net.label_index(label) for label in chosen]
    questions = []
    for path in paths:
        crop = net.crop(path)
        x = net.preprocessing.normalise(crop)
        ranked = [int(label) for label in np.argsort(-np.asarray(net(x)))]
        others = (label for label in ranked if label not in given)
        first, second = (*given, *(next(others) for _ in range(2 - len(given))))
        names = net.labels[first], net.labels[second]
        questions.append(Question(crop, x, (first, second), names))
    return questions
