"""The networks whose logits are stored, and their random weights; needs NumPy only.

Weights come from a seed and a name, by a generator whose stream NumPy has frozen, so a full-size
state dict is the same here and where PyTorch computed its logits.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A network: registry row it stands for, and what differs from that row's full size."""

    network: str
    sizes: dict[str, Any] = field(default_factory=dict)  # arguments of module and twin alike
    side: int = 64  # of the input picture


SMALL_RESNET = {"stage_sizes": (1, 2, 1, 1), "width": 4, "classes": 7}
SMALL_VGG = {"stage_sizes": (1, 2, 1, 2, 1), "widths": (3, 4, 5, 6, 4), "hidden": 8, "classes": 7}

# Small networks have their checkpoints stored, written by PyTorch.
SMALL = {
    "resnet18": Case("resnet18", SMALL_RESNET, side=75),
    "resnet50": Case("resnet50", SMALL_RESNET),
    "resnet50_voc": Case("resnet50_voc", SMALL_RESNET, side=75),
    "vgg16": Case("vgg16", SMALL_VGG, side=224),  # 7×7 positions: nothing to average
    "vgg16_bn": Case("vgg16_bn", SMALL_VGG, side=70),
    "vgg16_voc": Case("vgg16_voc", SMALL_VGG, side=75),
}
# Of full-size networks, names, shapes and logits are stored.
FULL = {"resnet50": Case("resnet50", side=96), "vgg16": Case("vgg16", side=64)}


def picture(side: int) -> np.ndarray:
    """Two random inputs (2, side, side, 3), float32."""
    return np.random.RandomState(side).standard_normal((2, side, side, 3)).astype(np.float32)


def random_state(shapes: Iterable[tuple[str, Iterable[int]]]) -> dict[str, np.ndarray]:
    """A state dict of random weights and random BatchNorm statistics."""
    state = {}
    for name, sizes in shapes:
        shape = tuple(sizes)
        random = np.random.RandomState(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(random.randint(1000))
            continue
        # Sixteen bits a number: fast enough for the 138 million of VGG16.
        uniform = random.randint(-(2**15), 2**15, shape, np.int16).astype(np.float32) / 2**15
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = 1 + uniform / 2  # variances and scales
        elif name.endswith("weight"):
            state[name] = uniform * np.float32(math.sqrt(6 / math.prod(shape[1:])))  # He et al.
        else:
            state[name] = uniform / 4  # biases, shifts and means
    return state
