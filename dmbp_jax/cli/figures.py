"""`dmbp figures`: the paper's Figures 1 to 5 for any network and pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import dmbp_jax
from dmbp_jax import Network
from dmbp_jax.cli.demo import generate_pair
from dmbp_jax.cli.output import make_folder, refuse_overwrite
from dmbp_jax.cli.settings import make_config, use_compilation_cache
from dmbp_jax.data.generated import CLASSES, rival
from dmbp_jax.errors import InputError
from dmbp_jax.experiments.figures import Question, check_matplotlib, draw_figures

SHOWN = ("star", "striped disc", "checked square")  # labels of the generated pictures


def run(args: argparse.Namespace) -> int:
    """Draw the figures."""
    check_matplotlib()
    if not args.images and args.label:
        raise InputError("--label: Expected only with IMAGE; the generated pictures have labels.")
    chosen = args.label or ()
    if len(chosen) > 2:
        raise InputError(f"--label: Expected at most two classes, got {len(chosen)}.")
    targets = [args.output / f"figure{number}.{args.format}" for number in args.figures]
    refuse_overwrite(targets, force=args.force)
    use_compilation_cache(args)
    config = make_config(args)
    name = args.network or ("resnet50" if args.images else "builtin")
    net = dmbp_jax.load(name, args.weights, args.class_names)
    questions = photos(net, args.images, chosen) if args.images else generated(net)
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


def generated(net: Network) -> list[Question]:
    """Pictures with two rival objects; the label is one of them, the other class its rival."""
    if net.labels != CLASSES:
        raise InputError(f"IMAGE: Expected pictures for the network {net.name}, got none.")
    questions = []
    for label in map(CLASSES.index, SHOWN):
        crop = net.crop(Image.fromarray(generate_pair(label).image))
        names = CLASSES[label], CLASSES[rival(label)]
        x = net.preprocessing.normalise(crop)
        questions.append(Question(crop, x, (label, rival(label)), names))
    return questions


def photos(net: Network, paths: Sequence[Path], chosen: Sequence[str]) -> list[Question]:
    """Photos with the classes that were asked for, else the network's first two choices."""
    given = [net.label_index(label) for label in chosen]
    questions = []
    for path in paths:
        crop = net.crop(path)
        x = net.preprocessing.normalise(crop)
        ranked = [int(label) for label in np.argsort(-np.asarray(net(x)))]
        classes = [*given, *(label for label in ranked if label not in given)]
        if len(classes) < 2:
            raise InputError(f"--network: Expected one of two classes at least, got {net.name}.")
        first, second = classes[:2]
        names = net.labels[first], net.labels[second]
        questions.append(Question(crop, x, (first, second), names))
    return questions
