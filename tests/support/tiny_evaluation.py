"""A tiny network on small generated pictures, and `run`: an evaluation that takes seconds."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from dmbp_jax.data import list_generated
from dmbp_jax.experiments import Evaluation, Settings, evaluate
from dmbp_jax.experiments.results import OWN, RECORDS

SIDE = 24
SETTINGS = Settings(
    tables=(1, 3),
    methods=("gradient", "smoothgrad", "dmbp"),
    options={"smoothgrad": {"n_samples": 2}, "dmbp": {"steps": 2}},
    redraws=2,
    points=5,
    limit=7,
    batch_size=3,
)

LONG = dataclasses.replace(
    SETTINGS, methods=("gradient", "smoothgrad"), limit=None, batch_size=2
)  # ten batches

SHORT = Settings(tables=(1,), methods=["gradient"], points=3, limit=2)


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Two convolutions and a dense layer: logits (N, 10) of (N, 24, 24, 3)."""
    for name in ("first", "second"):
        x = jax.lax.conv_general_dilated(
            x, params[name], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ params["last"]


def make_params(seed: int = 0) -> dict[str, jax.Array]:
    """Random weights of `network`."""
    shapes = {"first": (3, 3, 3, 6), "second": (3, 3, 6, 8), "last": (8, 10)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def log_of(folder: Path) -> bytes:
    """The records of an evaluation, all parts in order."""
    return b"".join(path.read_bytes() for path in sorted((folder / OWN / RECORDS).glob("*.jsonl")))


def crop(picture: Image.Image) -> Image.Image:
    """The picture as the tiny network sees it."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)


def preprocess(picture: Image.Image) -> np.ndarray:
    """(24, 24, 3) float32 in [-1, 1]."""
    return np.asarray(crop(picture), np.float32) / 127.5 - 1


def run(out: Path, settings: Settings = SETTINGS, **changes: Any) -> Evaluation:
    """An evaluation of the tiny network on eight generated pictures."""
    arguments: dict[str, Any] = {
        "params": make_params(),
        "dataset": list_generated(size=8),
        "apply_fn": network,
        "preprocess": preprocess,
        "crop": crop,
    }
    arguments |= changes
    return evaluate(arguments.pop("params"), arguments.pop("dataset"), out, settings, **arguments)


@dataclasses.dataclass(frozen=True)
class Watched:
    """A picture that calls `opened` before it opens."""

    picture: Any
    opened: Any

    @property
    def name(self) -> str:
        """As the picture."""
        return self.picture.name

    @property
    def labels(self) -> tuple[int, ...]:
        """As the picture."""
        return self.picture.labels

    def open(self) -> Image.Image:
        """Tell, then open."""
        self.opened(self.name)
        return self.picture.open()

    def mask(self, label: int) -> Image.Image | None:
        """As the picture."""
        return self.picture.mask(label)


def watched(opened: Any, size: int = 8) -> Any:
    """The generated dataset, whose pictures call `opened(name)` before they open."""
    dataset = list_generated(size=size)
    pictures = tuple(Watched(picture, opened) for picture in dataset)
    return dataclasses.replace(dataset, pictures=pictures)
