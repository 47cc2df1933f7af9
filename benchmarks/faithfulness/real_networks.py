"""Real networks written as a user would write them: SqueezeNet and a ResNet-20 for CIFAR-10.

Weights and pictures lie outside the repository (`DMBP_REAL`, else `../shared/real`); what needs
them skips when they are absent. Ordinary Flax modules: nothing here knows about attribution.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

REAL = Path(os.environ.get("DMBP_REAL", Path(__file__).parents[2] / ".." / "shared" / "real"))
HAVE_REAL = (REAL / "squeezenet_v1.npz").exists()

Picture = str | os.PathLike[str] | Image.Image
Preprocess = Callable[[Picture], np.ndarray]
ApplyFn = Callable[[Any, jax.Array], jax.Array]


class Fire(nn.Module):
    """Squeeze to few channels, expand with 1x1 and 3x3 filters side by side."""

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.squeeze, (1, 1), name="squeeze")(x))
        small = nn.relu(nn.Conv(self.expand, (1, 1), name="expand1x1")(x))
        large = nn.relu(nn.Conv(self.expand, (3, 3), padding=1, name="expand3x3")(x))
        return jnp.concatenate([small, large], axis=-1)


def _pool(x: jax.Array) -> jax.Array:
    """Max over 3x3, stride 2, the last window allowed to hang over the edge (ceil mode)."""
    pads = [(0, (size - 3) % 2) for size in x.shape[1:3]]
    return nn.max_pool(x, (3, 3), (2, 2), padding=pads)


class SqueezeNet(nn.Module):
    """SqueezeNet v1.0 (Iandola et al. 2016): logits of 1000 classes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(96, (7, 7), strides=2, padding="VALID", name="conv1")(x))
        x = _pool(x)
        for i, (squeeze, expand) in enumerate([(16, 64), (16, 64), (32, 128)], start=2):
            x = Fire(squeeze, expand, name=f"fire{i}")(x)
        x = _pool(x)
        for i, (squeeze, expand) in enumerate([(32, 128), (48, 192), (48, 192), (64, 256)], 5):
            x = Fire(squeeze, expand, name=f"fire{i}")(x)
        x = _pool(x)
        x = Fire(64, 256, name="fire9")(x)
        x = nn.relu(nn.Conv(1000, (1, 1), name="conv10")(x))
        return x.mean((1, 2))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut without weights (subsample, pad channels: option A)."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(self.features, (3, 3), self.stride, padding=1, use_bias=False, name="conv1")(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn1")(y))
        y = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, name="conv2")(y)
        y = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn2")(y)
        if self.stride != 1:
            added = (self.features - x.shape[-1]) // 2
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (added, added)))
        return nn.relu(x + y)


class ResNet20(nn.Module):
    """ResNet-20 of He et al. 2016 for CIFAR-10: logits of 10 classes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(16, (3, 3), padding=1, use_bias=False, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn1")(x))
        for stage, features in enumerate([16, 32, 64], start=1):
            for i in range(3):
                stride = 2 if stage > 1 and i == 0 else 1
                x = BasicBlock(features, stride, name=f"layer{stage}_{i}")(x)
        return nn.Dense(10, name="linear")(x.mean((1, 2)))


def apply_squeezenet(params: Any, x: jax.Array) -> jax.Array:
    """Logits (N, 1000) of BGR images (N, 227, 227, 3)."""
    return SqueezeNet().apply({"params": params}, x)


def apply_resnet20(variables: Any, x: jax.Array) -> jax.Array:
    """Logits (N, 10) of RGB images (N, 32, 32, 3)."""
    return ResNet20().apply(variables, x)


def preprocess_squeezenet(picture: Picture) -> np.ndarray:
    """(227, 227, 3) float32: BGR, 0 to 255 minus the mean colour."""
    rgb = _open_rgb(picture)
    shorter = min(rgb.size)
    size = tuple(int(256 * side / shorter) for side in rgb.size)
    left, top = (round((side - 227) / 2) for side in size)
    crop = rgb.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 227, top + 227))
    return np.asarray(crop, np.float32)[..., ::-1] - np.array([104, 117, 123], np.float32)


def preprocess_resnet20(picture: Picture) -> np.ndarray:
    """(32, 32, 3) float32: RGB / 255, ImageNet mean and standard deviation."""
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    return (np.asarray(_open_rgb(picture).resize((32, 32)), np.float32) / 255 - mean) / std


def _open_rgb(picture: Picture) -> Image.Image:
    return (picture if isinstance(picture, Image.Image) else Image.open(picture)).convert("RGB")


def squeezenet(real_dir: Path = REAL) -> tuple[dict[str, Any], ApplyFn, Preprocess]:
    """SqueezeNet v1.0 with its ImageNet weights: (params, apply_fn, preprocess)."""
    params: dict[str, Any] = {}
    with np.load(real_dir / "squeezenet_v1.npz") as weights:
        for key, value in weights.items():
            *path, leaf = key.split(".")
            _put(params, path, *_conv_leaf(leaf, value))
    return params, apply_squeezenet, preprocess_squeezenet


def resnet20(real_dir: Path = REAL) -> tuple[dict[str, Any], ApplyFn, Preprocess]:
    """ResNet-20 with its CIFAR-10 weights: (variables, apply_fn, preprocess)."""
    from dmbp_jax.convert import read_checkpoint

    return (
        resnet20_variables(read_checkpoint(real_dir / "resnet20-12fca82f.th")),
        apply_resnet20,
        preprocess_resnet20,
    )


def resnet20_variables(state: Mapping[str, Any]) -> dict[str, Any]:
    """Flax variables from the flat PyTorch state (`module.layer1.0.conv1.weight`, ...)."""
    variables: dict[str, Any] = {}
    batch_norm = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    for key, tensor in state.items():
        value = np.asarray(tensor, np.float32)
        parts = key.removeprefix("module.").split(".")
        if parts[0].startswith("layer"):
            parts[:2] = [f"{parts[0]}_{parts[1]}"]
        *path, leaf = parts
        if leaf == "num_batches_tracked":
            continue
        if path[-1].startswith("bn"):
            collection = "batch_stats" if leaf.startswith("running") else "params"
            _put(variables, [collection, *path], batch_norm[leaf], value)
        elif path[-1] == "linear":
            kernel = leaf == "weight"
            _put(variables, ["params", *path], *(("kernel", value.T) if kernel else (leaf, value)))
        else:
            _put(variables, ["params", *path], *_conv_leaf(leaf, value))
    return variables


def _conv_leaf(leaf: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """OIHW weights become an HWIO kernel."""
    return ("kernel", value.transpose(2, 3, 1, 0)) if leaf == "weight" else (leaf, value)


def _put(tree: dict[str, Any], path: list[str], leaf: str, value: np.ndarray) -> None:
    for part in path:
        tree = tree.setdefault(part, {})
    tree[leaf] = jnp.asarray(value)


def photos(real_dir: Path = REAL) -> tuple[list[Path], np.ndarray]:
    """The 24 ImageNet photos and their class indices, in order of file name."""
    labels = json.loads((real_dir / "photos" / "labels.json").read_text())
    names = sorted(labels)
    return [real_dir / "photos" / name for name in names], np.array([labels[n] for n in names])


def cifar(real_dir: Path = REAL) -> tuple[list[Path], np.ndarray]:
    """The 150 CIFAR-10 test pictures and their classes, in order of file name."""
    paths = sorted((real_dir / "cifar").glob("*.jpg"))
    return paths, np.array([int(path.name.split("_")[0]) for path in paths])
