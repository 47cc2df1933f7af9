"""What `faithfulness.py` compares: networks with their pictures, and the rows by name.

A network's pictures are in two halves: even ones choose, odd ones are reported. Of CIFAR-10 the
first seven of a class choose.
"""

import argparse
import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

import dmbp_jax
from benchmarks.faithfulness import caltech, real_networks
from dmbp_jax.catalogue import BIASES
from dmbp_jax.data.generated import CLASSES, generate, rival
from dmbp_jax.methods import METHODS
from dmbp_jax.models.builtin import MEAN, STD, BuiltinNet

NETWORKS = {
    "resnet50": "ResNet-50, photos",
    "resnet50-mosaics": "ResNet-50, mosaics of two photos",
    "vgg16": "VGG16, photos",
    "vgg16-mosaics": "VGG16, mosaics of two photos",
    "squeezenet": "SqueezeNet, photos",
    "resnet20": "ResNet-20, CIFAR-10 pictures",
    "builtin": "built-in network, generated pictures with a rival",
    "builtin-one": "built-in network, generated pictures of one object",
    "deep": "deeper built-in network (51 ReLUs), generated pictures with a rival",
}
# How many of a network's pictures there are in both halves together.
PICTURES = {"builtin": 40, "builtin-one": 40, "deep": 40}
# Forward and backward passes of one picture, counted alike: (number, how often it is taken, and the
# option that says so). A step of LPR differentiates a forward and a backward pass and one more
# forward pass.
PASSES: dict[str, tuple[int, int, str | None]] = {
    "gradient": (2, 0, None),
    "integrated_gradients": (0, 2, "n_steps"),
    "smoothgrad": (0, 2, "n_samples"),
    "deeplift": (3, 0, None),
    "guided_backprop": (2, 0, None),
    "fullgrad": (2, 0, None),
    "gradcam": (2, 0, None),
    "guided_gradcam": (4, 0, None),
    "blur_ig": (0, 2, "n_steps"),
    "lpr": (3, 6, "steps"),
    "rise": (0, 1, "n_masks"),
}
ROWS = (
    *(row for row in PASSES if row != "rise"),
    "paper",
    "quick",
    "quick:spread",
    "quick:carry",
    "quick:refine",
)
_DMBP = {"paper": dmbp_jax.DMBP.paper, "quick": dmbp_jax.DMBP.quick}
_MOSAICS = 30
_GENERATED_SEED = 5  # neither the training pictures (0) nor the held-out ones (1)
_DEEP = BuiltinNet(stage_sizes=(12, 13), features=16)


@dataclass(frozen=True)
class Case:
    """A network and the pictures that it is asked about.

    Attributes:
      names: of the pictures.
      others: the label whose object is also in the picture, (N,), or None.
      objects, rivals: masks (N, H, W) of what is asked for and of the other object, or None.
      activation: what turns logits into the scores of the insertion metric.
      nonaffine: what DMBP is told of products, as in `dmbp_jax.attribute`.
    """

    params: Any
    apply_fn: Callable[[Any, jax.Array], jax.Array] | None
    names: tuple[str, ...]
    x: jax.Array
    labels: np.ndarray
    activation: str
    others: np.ndarray | None = None
    objects: np.ndarray | None = None
    rivals: np.ndarray | None = None
    nonaffine: str = "refuse"

    def take(self, rows: list[int]) -> "Case":
        """The same network with these pictures."""
        names = ("x", "labels", "others", "objects", "rivals")
        arrays = {name: getattr(self, name) for name in names}
        chosen = {name: a if a is None else a[np.array(rows)] for name, a in arrays.items()}
        return replace(self, names=tuple(self.names[i] for i in rows), **chosen)


def make_case(network: str, half: str, limit: int | None, deep: Path | None) -> Case | None:
    """The network with the first `limit` pictures of a half; None where its files are absent."""
    name, _, mosaics = network.partition("-")
    if name in ("resnet50", "vgg16"):
        return _caltech(name, bool(mosaics), half, limit) if caltech.have(name) else None
    if network in ("squeezenet", "resnet20"):
        return _real(network, half, limit) if real_networks.HAVE_REAL else None
    chosen = _half(range(PICTURES[network]), half, limit)
    if network == "deep":
        if deep is None or not deep.exists():
            return None
        from safetensors.flax import load_file

        variables = unflatten_dict(load_file(deep), sep="/")
        return generated_case(variables, _apply_deep, chosen, with_rival=True)
    return generated_case(dmbp_jax.load("builtin"), None, chosen, with_rival=network == "builtin")


def parse_row(name: str) -> tuple[dmbp_jax.DMBP, str] | None:
    """Config and `biases` of a DMBP row, None for another method.

    "quick:steps=4,spread" is `DMBP.quick(steps=4)` with `biases="spread"`.

    Raises:
      argparse.ArgumentTypeError: no such row, or an option that it does not have.
    """
    base, options, biases = _split(name)
    if base in PASSES:
        method_options(name)
        return None
    if base not in _DMBP:
        raise argparse.ArgumentTypeError(f"{name}: Expected one of {ROWS}, or quick:option=value.")
    try:
        return _DMBP[base](**options), biases or "drop"
    except (TypeError, dmbp_jax.errors.DmbpError) as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from error


def method_options(name: str) -> dict[str, Any]:
    """The options of a compared method's row: of "rise:n_masks=256" masks.

    Raises:
      argparse.ArgumentTypeError: the method has no such option.
    """
    base, options, biases = _split(name)
    known = inspect.signature(METHODS[base]).parameters
    if biases is not None or not set(options) <= set(known):
        raise argparse.ArgumentTypeError(f"{name}: Expected options of {base}.")
    return options


def _split(name: str) -> tuple[str, dict[str, Any], str | None]:
    """Base, options and, where one is named, `biases` of a row."""
    base, _, rest = name.partition(":")
    options: dict[str, Any] = {}
    biases = None
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if part in BIASES:
            biases = part
            continue
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return base, options, biases


def check_row(name: str) -> str:
    """The name of a row, for `type=` of an argument.

    Raises:
      argparse.ArgumentTypeError: as `parse_row`.
    """
    parse_row(name)
    return name


def count_passes(name: str) -> int:
    """Forward and backward passes of one picture, maps included.

    DMBP: one to freeze, three a step, and a forward with two backward passes for the maps. Where no
    part of the biases is drawn, two gated values; carrying them back takes two forward passes more,
    and a backward pass for each sign; refining one gradient.
    """
    row = parse_row(name)
    if row is None:
        base, _, _ = name.partition(":")
        once, each, option = PASSES[base]
        if option is None:
            return once
        default = inspect.signature(METHODS[base]).parameters[option].default
        return once + each * method_options(name).get(option, default)
    config, biases = row
    return 1 + 3 * config.steps + 3 + {"drop": 2, "spread": 0, "refine": 2, "carry": 4}[biases]


_HALVES = {"choose": (0, 2), "report": (1, 2), "all": (0, 1)}  # first picture, step


def _half(items: Sequence[Any], half: str, limit: int | None) -> Sequence[Any]:
    start, step = _HALVES[half]
    return items[start::step][:limit]


def _real(network: str, half: str, limit: int | None) -> Case:
    if network == "squeezenet":
        params, apply_fn, preprocess = real_networks.squeezenet()
        paths, labels = real_networks.photos()
        chosen = np.array(_half(range(len(paths)), half, limit))
    else:
        params, apply_fn, preprocess = real_networks.resnet20()
        paths, labels = real_networks.cifar()
        # Fifteen pictures of each class: by their number within it, so that both halves, and the
        # first few of each, have every class.
        numbers = np.array([int(path.stem.split("_")[-1]) for path in paths])
        early = numbers < np.median(numbers)
        wanted = {"choose": early, "report": ~early, "all": early | ~early}[half]
        order = np.argsort(numbers, kind="stable")
        chosen = order[wanted[order]][:limit]
    paths, labels = [paths[i] for i in chosen], labels[chosen]
    x = jnp.stack([jnp.asarray(preprocess(path)) for path in paths])
    return Case(params, apply_fn, tuple(path.name for path in paths), x, labels, "softmax")


def _caltech(network: str, mosaics: bool, half: str, limit: int | None) -> Case:
    """Photos of 100 kinds, or mosaics of two of them."""
    start, step = _HALVES[half]
    if mosaics:
        found = caltech.mosaics(network, start, step, _MOSAICS if limit is None else limit)
    else:
        found = caltech.photos(network, start, step, limit)
    own, rival = found.own, None if found.own is None else ~found.own
    x, labels, others = jnp.asarray(found.x), found.labels, found.others
    case = (found.params, found.apply_fn, found.names, x, labels, "softmax", others, own, rival)
    return Case(*case)


def _apply_deep(variables: Any, x: jax.Array) -> jax.Array:
    return _DEEP.apply(variables, x)


def generated_case(
    params: Any,
    apply_fn: Any,
    chosen: Sequence[int],
    with_rival: bool,
    nonaffine: str = "refuse",
) -> Case:
    """A network of the generated pictures, and those of these numbers."""
    labels = np.array([k // 2 % len(CLASSES) for k in chosen])  # every class in both halves
    others = np.array([rival(int(label)) for label in labels])
    shown = [
        [int(label), int(other)] if with_rival else [int(label)]
        for label, other in zip(labels, others, strict=True)
    ]
    samples = [generate(_GENERATED_SEED, k, one) for k, one in zip(chosen, shown, strict=True)]
    x = np.stack([sample.image for sample in samples]).astype(np.float32) / 255
    masks = np.stack([sample.masks for sample in samples])
    rows = np.arange(len(samples))
    return Case(
        params,
        apply_fn,
        tuple(f"generated {k}" for k in chosen),
        jnp.asarray((x - MEAN) / STD),
        labels,
        "sigmoid",
        others if with_rival else None,
        masks[rows, labels],
        masks[rows, others] if with_rival else None,
        nonaffine,
    )
