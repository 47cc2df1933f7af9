"""The paper's two architectures with real weights, photos of 100 kinds of objects, and mosaics.

Weights and photos lie outside the repository (`DMBP_REAL`, see real_networks.py); what needs them
skips when they are absent. Plain JAX functions, as a user would write them. A mosaic is two photos
of different kinds, each squeezed to half its width, side by side: it has two labels with known
places, and is kept where both are among the network's first three.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.faithfulness.real_networks import REAL

SIDE = 224
_MEAN = np.array([104.0, 117.0, 123.0], np.float32)  # BGR
_SEED = 0  # of the pairs

Params = dict[str, jax.Array]


def thin_resnet50(params: Params, x: jax.Array) -> jax.Array:
    """ResNet-50 of half width, Caffe style: a stage's stride is in its first 1 × 1 convolution."""
    x = jax.nn.relu(_convolve(params, "stem", x, 2, [(3, 3), (3, 3)]))
    hanging = ((0, 0), (0, 1), (0, 1), (0, 0))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), hanging)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            name, stride = f"stage{stage}.block{block}", 2 if stage and not block else 1
            h = jax.nn.relu(_convolve(params, f"{name}.reduce", x, stride, "VALID"))
            h = jax.nn.relu(_convolve(params, f"{name}.middle", h))
            h = _convolve(params, f"{name}.expand", h)
            x = x if block else _convolve(params, f"{name}.shortcut", x, stride, "VALID")
            x = jax.nn.relu(h + x)
    return x.mean((1, 2)) @ params["head.kernel"] + params["head.bias"]


def vgg16(params: Params, x: jax.Array) -> jax.Array:
    """The thirteen convolutions of VGG16, average pooling and a linear head."""
    for stage, layers in enumerate((2, 2, 3, 3, 3)):
        for layer in range(layers):
            x = jax.nn.relu(_convolve(params, f"stage{stage}.conv{layer}", x))
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    return x.mean((1, 2)) @ params["head.kernel"] + params["head.bias"]


def _convolve(
    params: Params, name: str, x: jax.Array, stride: int = 1, padding: Any = "SAME"
) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = params[f"{name}.kernel"]
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=numbers
    )
    return y + params[f"{name}.bias"]


NETWORKS: dict[str, tuple[str, Callable[[Params, jax.Array], jax.Array]]] = {
    "resnet50": ("thin_resnet50.npz", thin_resnet50),
    "vgg16": ("vgg16_trunk.npz", vgg16),
}


class Pictures(NamedTuple):
    """A network and pictures of one or two kinds each.

    Attributes:
      others: the kind of the other half of a mosaic, (N,), or None.
      own: where a mosaic shows its label, bool (N, H, W), or None.
    """

    params: Params
    apply_fn: Callable[[Params, jax.Array], jax.Array]
    names: tuple[str, ...]
    x: np.ndarray
    labels: np.ndarray
    others: np.ndarray | None = None
    own: np.ndarray | None = None


def have(network: str, real_dir: Path = REAL) -> bool:
    """Whether the weights and the photos are here."""
    return (real_dir / NETWORKS[network][0]).exists() and (real_dir / "caltech").exists()


def load(
    network: str, real_dir: Path = REAL
) -> tuple[Params, Callable[[Params, jax.Array], jax.Array], list[str]]:
    """(params, apply_fn, names of the kinds in the order of the logits)."""
    file, apply_fn = NETWORKS[network]
    with np.load(real_dir / file) as stored:
        params = {
            name: jnp.asarray(stored[name], jnp.float32)
            for name in stored.files
            if name != "classes"
        }
        return params, apply_fn, [str(name) for name in stored["classes"]]


def preprocess(path: Path) -> np.ndarray:
    """(224, 224, 3) float32: shorter side 224, centre crop, BGR, less the mean colour."""
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    width, height = (max(SIDE, round(side * scale)) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    crop = image.resize((width, height), Image.Resampling.BICUBIC)
    crop = crop.crop((left, top, left + SIDE, top + SIDE))
    return np.asarray(crop, np.float32)[..., ::-1] - _MEAN


def picture(x: np.ndarray) -> Image.Image:
    """What `preprocess` was given, cropped."""
    return Image.fromarray(np.uint8((x + _MEAN)[..., ::-1].round().clip(0, 255)))


def photos(
    network: str, start: int, step: int, limit: int | None, real_dir: Path = REAL
) -> Pictures:
    """Every `step`-th photo from `start` on; fewer than all are taken evenly from these."""
    params, apply_fn, kinds = load(network, real_dir)
    paths = _paths(start, step, real_dir)
    if limit is not None and limit < len(paths):
        paths = [paths[i] for i in spread(len(paths), limit)]
    labels = np.array([kinds.index(_kind(path)) for path in paths])
    x = np.stack([preprocess(path) for path in paths])
    return Pictures(params, apply_fn, tuple(path.stem for path in paths), x, labels)


def spread(count: int, limit: int) -> list[int]:
    """The first `limit` of 0 … count − 1 in an order in which every start is spread evenly."""
    bits = max(1, (count - 1).bit_length())
    order = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(2**bits))
    return [i for i in order if i < count][:limit]


def mosaics(network: str, start: int, step: int, limit: int, real_dir: Path = REAL) -> Pictures:
    """`limit` mosaics of these photos, each asked for the label of either half."""
    params, apply_fn, kinds = load(network, real_dir)
    classify = jax.jit(apply_fn)
    names, x, labels, others, own = [], [], [], [], []
    left = np.arange(SIDE)[None].repeat(SIDE, 0) < SIDE // 2
    for first, second in _pairs(_paths(start, step, real_dir)):
        if len(names) >= 2 * limit:
            break
        picture = np.concatenate([_squeeze(preprocess(path)) for path in (first, second)], 1)
        two = [kinds.index(_kind(path)) for path in (first, second)]
        if not set(two) <= set(np.argsort(-classify(params, picture[None])[0])[:3].tolist()):
            continue
        names += [f"{first.stem} {second.stem} {side}" for side in ("left", "right")]
        x += [picture, picture]
        labels += two
        others += two[::-1]
        own += [left, ~left]
    found = (np.stack(x), np.array(labels), np.array(others), np.stack(own))
    return Pictures(params, apply_fn, tuple(names), *found)


def _pairs(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Pairs of photos of different kinds, in a fixed random order."""
    rng = np.random.default_rng(_SEED)
    while True:
        first, second = (paths[i] for i in rng.integers(len(paths), size=2))
        if _kind(first) != _kind(second):
            yield first, second


def _paths(start: int, step: int, real_dir: Path) -> list[Path]:
    return sorted((real_dir / "caltech").glob("*.jpg"))[start::step]


def _kind(path: Path) -> str:
    return path.name.split("_image")[0]


def _squeeze(picture: np.ndarray) -> np.ndarray:
    """Half the width, by averaging two columns."""
    height, width, channels = picture.shape
    return picture.reshape(height, width // 2, 2, channels).mean(2)
