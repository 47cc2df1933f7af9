"""What `faithfulness.py` compares: networks with their pictures, and the rows by name.

A network's pictures are in two halves: even ones choose, odd ones are reported. Of CIFAR-10 the
first seven of a class choose.
"""

import argparse
import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import real_networks
from flax.traverse_util import unflatten_dict

import dmbp_jax
from dmbp_jax.catalogue import BIASES
from dmbp_jax.data.generated import CLASSES, generate, rival
from dmbp_jax.models.builtin import MEAN, STD, BuiltinNet

NETWORKS = {
    "squeezenet": "SqueezeNet, photos",
    "resnet20": "ResNet-20, CIFAR-10 pictures",
    "builtin": "built-in network, generated pictures with a rival",
    "builtin-one": "built-in network, generated pictures of one object",
    "deep": "deeper built-in network (51 ReLUs), generated pictures with a rival",
}
# How many of a network's pictures there are in both halves together.
PICTURES = {"builtin": 40, "builtin-one": 40, "deep": 40}
# Forward and backward passes of one picture, counted alike, with the methods' defaults: IG and
# SmoothGrad 50 points, Blur IG 100, RISE 4000 masks. A step of LPR (of 20) differentiates a forward
# and a backward pass and one more forward pass.
PASSES = {
    "gradient": 2,
    "integrated_gradients": 100,
    "smoothgrad": 100,
    "deeplift": 3,
    "guided_backprop": 2,
    "fullgrad": 2,
    "gradcam": 2,
    "guided_gradcam": 4,
    "blur_ig": 200,
    "lpr": 1 + 20 * 6 + 2,
    "rise": 4000,
}
ROWS = (
    *(row for row in PASSES if row != "rise"),
    "paper",
    "fast",
    "quick",
    "quick:spread",
    "quick:carry",
)
_DMBP = {"paper": dmbp_jax.DMBP.paper, "fast": dmbp_jax.DMBP.fast, "quick": dmbp_jax.DMBP.quick}
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


def make_case(network: str, half: str, limit: int | None, deep: Path | None) -> Case | None:
    """The network with the first `limit` pictures of a half; None where its files are absent."""
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

    "quick:alternate=0,spread" is `DMBP.quick(alternate=0)` with `biases="spread"`.

    Raises:
      argparse.ArgumentTypeError: no such row, or an option that DMBP does not have.
    """
    base, _, rest = name.partition(":")
    if base in PASSES and not rest:
        return None
    if base not in _DMBP:
        raise argparse.ArgumentTypeError(f"{name}: Expected one of {ROWS}, or quick:option=value.")
    options: dict[str, Any] = {}
    biases = "drop"
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if part in BIASES:
            biases = part
            continue
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    try:
        return _DMBP[base](**options), biases
    except (TypeError, dmbp_jax.errors.DmbpError) as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from error


def check_row(name: str) -> str:
    """The name of a row, for `type=` of an argument.

    Raises:
      argparse.ArgumentTypeError: as `parse_row`.
    """
    parse_row(name)
    return name


def count_passes(name: str) -> int:
    """Forward and backward passes of one picture, maps included.

    DMBP: one to freeze, three a step, two gated values, and a forward with two backward passes for
    the maps. Carrying the biases back takes a forward and a backward pass more for each sign.
    """
    row = parse_row(name)
    if row is None:
        return PASSES[name]
    config, biases = row
    return 1 + 3 * config.steps + 5 + (4 if biases == "carry" else 0)


def _half(items: Sequence[Any], half: str, limit: int | None) -> Sequence[Any]:
    start, step = {"choose": (0, 2), "report": (1, 2), "all": (0, 1)}[half]
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
