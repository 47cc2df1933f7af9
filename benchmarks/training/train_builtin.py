r"""Trains the built-in network on generated pictures, and measures it on held-out ones.

python -m benchmarks train_builtin --out builtin.safetensors     # train, measure, write
python -m benchmarks train_builtin --evaluate                    # measure the shipped weights
python -m benchmarks train_builtin --out deep.safetensors --stage-sizes 12 13 --features 16 \
    --pictures 4000 --steps 650 --rate 3e-3                      # 51 ReLUs instead of 7
python -m benchmarks train_builtin --out variants/gelu.safetensors --activation gelu
python -m benchmarks train_builtin --out variants/vit.safetensors --network vit

The others differ in what is not affine: the built-in network with another activation, or a small
ViT. `python -m benchmarks activations` measures their maps.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from numpy.typing import NDArray
from safetensors.flax import save_file
from tqdm import tqdm

from dmbp_jax import load
from dmbp_jax.data.generated import CLASSES, generate
from dmbp_jax.files import replacing
from dmbp_jax.models.builtin import INPUT_SHAPE, MEAN, STD, BuiltinNet

TRAINING_SEED, HELD_OUT_SEED = 0, 1

WEIGHT_DECAY = 1e-3
CELL_WEIGHT = 10.0
CELLS = 12  # the last stage has 12 × 12 positions, the ViT as many patches

Variables = Mapping[str, Any]
_OF_BUILTIN = ("stage_sizes", "features", "activation")  # options that the ViT does not have
ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu", "tanh")  # names in `flax.linen`
EXACT = ("relu", "leaky_relu")  # their slope is no choice
VARIANTS = (*ACTIVATIONS, "vit")


class Pictures(NamedTuple):
    """A dataset in memory; `covers` says which part of each cell each class covers, times 255."""

    images: NDArray[np.uint8]  # (N, 96, 96, 3)
    labels: NDArray[np.bool_]  # (N, 10)
    covers: NDArray[np.uint8]  # (N, 12, 12, 10)


class Scores(NamedTuple):
    """How right the network is on held-out pictures, each in [0, 1]."""

    label_accuracy: float  # of all (picture, class) decisions at probability 0.5
    exact_match: float  # pictures with all ten decisions right
    mean_average_precision: float  # area under precision-recall, mean over classes


def draw(seed: int, size: int) -> Pictures:
    """Draw a dataset into memory."""
    images = np.empty((size, *INPUT_SHAPE), np.uint8)
    labels = np.empty((size, len(CLASSES)), np.bool_)
    covers = np.empty((size, CELLS, CELLS, len(CLASSES)), np.uint8)
    for k in tqdm(range(size), "drawing", disable=None):
        sample = generate(seed, k)
        images[k], labels[k] = sample.image, sample.labels
        covers[k] = cell_covers(sample.masks)
    return Pictures(images, labels, covers)


def cell_covers(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks (10, 96, 96) -> part of each cell that each class covers, times 255, (12, 12, 10)."""
    cell = INPUT_SHAPE[0] // CELLS
    share = masks.reshape(-1, CELLS, cell, CELLS, cell).mean(axis=(2, 4))
    return np.round(255 * share.transpose(1, 2, 0)).astype(np.uint8)


def preprocess(images: jax.Array) -> jax.Array:
    """uint8 pixels -> network input."""
    return (images.astype(jnp.float32) / 255 - MEAN) / STD


def turn(
    images: NDArray[np.uint8], covers: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One of the 48 flips, quarter turns and channel orders: all leave the labels alone."""
    turns, channels = int(rng.integers(4)), rng.permutation(3)
    flip = slice(None, None, 1 - 2 * rng.integers(2))
    images = np.rot90(images, turns, axes=(1, 2))[:, :, flip, channels]
    covers = np.rot90(covers, turns, axes=(1, 2))[:, :, flip]
    return np.ascontiguousarray(images), np.ascontiguousarray(covers)


def train(
    pictures: Pictures,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    net: nn.Module = BuiltinNet(),  # noqa: B008 (frozen)
) -> Variables:
    """AdamW on the cross-entropy of the labels, helped by that of the cells of the last stage.

    The helper is a dense layer on every cell. It is trained on what covers the cell, and it is not
    part of the network. Without it the network learns far more slowly.
    """
    variables = jax.jit(net.init)(jax.random.key(seed), jnp.zeros((1, *INPUT_SHAPE)))
    last_stage = max(name for name in variables["params"] if name.startswith("layer"))
    features = variables["params"]["dense"]["kernel"].shape[0]
    helper = {"kernel": jnp.zeros((features, len(CLASSES))), "bias": jnp.full(len(CLASSES), -4.0)}
    schedule = optax.warmup_cosine_decay_schedule(0, rate, max(1, steps // 20), max(2, steps))
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)

    def loss_fn(trained: Any, batch_stats: Any, images: Any, labels: Any, covers: Any) -> Any:
        params, helper = trained
        logits, captured = net.apply(
            {"params": params, "batch_stats": batch_stats},
            preprocess(images),
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name == last_stage,
        )
        cells = captured["intermediates"][last_stage]["__call__"][0]
        cells = cells.reshape(*covers.shape[:3], features)  # tokens of the ViT are cells in order
        cells = cells @ helper["kernel"] + helper["bias"]
        whole = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32)).mean()
        local = optax.sigmoid_binary_cross_entropy(cells, covers.astype(jnp.float32) / 255).mean()
        batch_stats = captured.get("batch_stats", {})
        return whole + CELL_WEIGHT * local, (batch_stats, whole, local)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(trained: Any, batch_stats: Any, state: Any, *data: Any) -> Any:
        gradient, (batch_stats, *losses) = jax.grad(loss_fn, has_aux=True)(
            trained, batch_stats, *data
        )
        update, state = optimizer.update(gradient, state, trained)
        return optax.apply_updates(trained, update), batch_stats, state, losses

    rng = np.random.default_rng(seed)
    trained, batch_stats = (variables["params"], helper), variables.get("batch_stats", {})
    state = optimizer.init(trained)
    smooth = None
    bar = tqdm(range(steps), "training", mininterval=10)
    for _ in bar:
        chosen = rng.integers(len(pictures.images), size=batch)
        images, covers = turn(pictures.images[chosen], pictures.covers[chosen], rng)
        trained, batch_stats, state, losses = step(
            trained, batch_stats, state, images, pictures.labels[chosen], covers
        )
        losses = np.asarray(losses)
        smooth = losses if smooth is None else 0.97 * smooth + 0.03 * losses
        bar.set_postfix(labels=f"{smooth[0]:.4f}", cells=f"{smooth[1]:.4f}", refresh=False)
    return {"params": trained[0]} | ({"batch_stats": batch_stats} if batch_stats else {})


def evaluate(
    variables: Variables,
    pictures: Pictures,
    net: nn.Module = BuiltinNet(),  # noqa: B008 (frozen)
) -> Scores:
    """Score a network on pictures that it was not trained on."""
    forward = jax.jit(lambda images: net.apply(variables, preprocess(images)))
    parts = [
        np.asarray(forward(pictures.images[k : k + 100]))
        for k in range(0, len(pictures.images), 100)
    ]
    logits = np.concatenate(parts)
    right = (logits > 0) == pictures.labels
    precisions = [
        average_precision(scores, found)
        for scores, found in zip(logits.T, pictures.labels.T, strict=True)
    ]
    return Scores(float(right.mean()), float(right.all(axis=1).mean()), float(np.mean(precisions)))


def average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Mean, over the positives, of the precision among everything scored at least as high."""
    ranked = positive[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean())


def save_weights(path: Path, variables: Variables, metadata: dict[str, str]) -> None:
    """Write flat keys such as `params/conv1/kernel`, all of them or none."""
    with replacing(path) as part:
        save_file(flatten_dict(variables, sep="/"), part, metadata)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="train, and write the weights to this file")
    parser.add_argument("--evaluate", action="store_true", help="only measure --weights")
    parser.add_argument("--weights", type=Path, help="default: the shipped file")
    parser.add_argument("--held-out", type=int, default=2000, help="held-out pictures")
    parser.add_argument("--pictures", type=int, default=10000, help="training pictures")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches")
    parser.add_argument("--network", choices=("builtin", "vit"), default="builtin")
    parser.add_argument("--stage-sizes", type=int, nargs=2, default=[2, 1], help="blocks")
    parser.add_argument("--features", type=int, default=32, help="channels of the first stage")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    options = parser.parse_args(arguments)
    if options.evaluate == (options.out is not None):
        parser.error("Expected either --out FILE or --evaluate")
    if options.network == "vit" and any(
        getattr(options, name) != parser.get_default(name) for name in _OF_BUILTIN
    ):
        parser.error("--stage-sizes, --features, --activation: Expected only with builtin")
    return options


def make_network(options: argparse.Namespace) -> nn.Module:
    """The network of these options, before it is trained."""
    if options.network == "vit":
        return SmallViT()
    return BuiltinNet(
        stage_sizes=tuple(options.stage_sizes),
        features=options.features,
        activation=getattr(nn, options.activation),
    )


def main(arguments: list[str] | None = None) -> None:
    """Train or measure, and print the held-out scores."""
    options = parse(arguments)
    net = make_network(options)
    if options.evaluate:
        variables = load("builtin", options.weights).variables
    else:
        pictures = draw(TRAINING_SEED, options.pictures)
        variables = train(pictures, options.steps, options.batch, options.rate, options.seed, net)
    scores = evaluate(variables, draw(HELD_OUT_SEED, options.held_out), net)
    for name, value in scores._asdict().items():
        print(f"{name:24s} {value:.4f}")
    if options.out is not None:
        sizes = {k: getattr(options, k) for k in ("pictures", "steps", "batch", "rate", "seed")}
        if options.network == "builtin":
            sizes["stage-sizes"] = " ".join(map(str, options.stage_sizes))
            sizes["features"] = options.features
            sizes["activation"] = options.activation
        else:
            sizes["network"] = options.network
        command = " ".join(
            [f"--out {options.out.name}", *(f"--{name} {value}" for name, value in sizes.items())]
        )
        metadata = {
            "classes": json.dumps(CLASSES),
            "command": f"python -m benchmarks train_builtin {command}",
            "held_out": json.dumps({**scores._asdict(), "pictures": options.held_out}),
        }
        save_weights(options.out, variables, metadata)


class Block(nn.Module):
    """Attention between tokens, then two dense layers for each; both added to what comes in."""

    heads: int
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, tokens, features) -> (N, tokens, features)."""
        x = x + nn.MultiHeadDotProductAttention(self.heads, name="attention")(
            nn.LayerNorm(name="norm1")(x)
        )
        y = self.activation(nn.Dense(2 * x.shape[-1], name="wide")(nn.LayerNorm(name="norm2")(x)))
        return x + nn.Dense(x.shape[-1], name="narrow")(y)


class SmallViT(nn.Module):
    """Vision transformer for 96×96 pictures: 12 × 12 tokens, blocks of attention, mean, dense.

    logits = dense(mean over tokens of norm(last block))

    A token is what three convolutions of stride 2 make of its surroundings, instead of one large
    convolution (Xiao et al. 2021, *Early convolutions help transformers see better*).
    """

    classes: int = 10
    stem: tuple[int, ...] = (24, 32)
    features: int = 64
    depth: int = 3
    heads: int = 4
    activation: Callable[[jax.Array], jax.Array] = nn.gelu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Preprocessed pictures (N, 96, 96, 3) -> logits (N, classes); `train` changes nothing."""
        for i, features in enumerate(self.stem):
            x = nn.Conv(features, (3, 3), 2, padding=1, name=f"conv{i}")(x)
            x = self.activation(nn.LayerNorm(name=f"norm{i}")(x))
        x = nn.Conv(self.features, (3, 3), 2, padding=1, name="patches")(x)
        x = x.reshape(len(x), -1, self.features)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for i in range(self.depth):
            x = Block(self.heads, self.activation, name=f"layer{i}")(x)
        x = nn.LayerNorm(name="norm")(x).mean(1)
        return nn.Dense(self.classes, name="dense")(x)


class Variant(NamedTuple):
    """A network before it is trained, and what `attribute` is asked for it."""

    module: nn.Module
    nonaffine: str


def make_variant(name: str) -> Variant:
    """The variant of this name, of `VARIANTS`."""
    if name == "vit":
        return Variant(SmallViT(), "freeze")
    return Variant(BuiltinNet(activation=getattr(nn, name)), "refuse")
