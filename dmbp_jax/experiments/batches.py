"""From targets to arrays: each picture is decoded once, for the network and for the gallery."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dmbp_jax.data.samples import Target
from dmbp_jax.engine.batches import collect_rows
from dmbp_jax.errors import InputError
from dmbp_jax.experiments.gallery import TargetName, shrink
from dmbp_jax.experiments.plan import Plan
from dmbp_jax.methods.keys import image_key

Transform = Callable[[Image.Image], Any]


class Transforms(NamedTuple):
    """From an RGB picture to x, and to the part of it that x shows; the second may be unknown."""

    preprocess: Transform
    crop: Transform | None


class Decoded(NamedTuple):
    """A picture as the network takes it, and its small crop for the gallery if there is one."""

    x: np.ndarray
    crop: Image.Image | None


class Batch(NamedTuple):
    """Targets whose pictures could be read, filled up to the size that is compiled.

    Attributes:
      targets: the n targets.
      crops: target -> its small crop; empty without a gallery.
      x: (N, H, W, C) with N >= n; the rows beyond n repeat the first.
      labels: (N,) int32.
      others: (N, K) int32, the other labels of each picture, filled up with -1.
      masks: (N, H, W) bool, where the target is, or None where no picture says so.
      keys: (N,) random keys.
    """

    targets: Sequence[Target]
    crops: Mapping[TargetName, Image.Image]
    x: jax.Array
    labels: jax.Array
    others: np.ndarray
    masks: np.ndarray | None
    keys: jax.Array


def decode(transforms: Transforms, with_crop: bool, picture: Image.Image) -> Any:
    """A picture as `Decoded`; called in the threads that read."""
    crop = transforms.crop if with_crop else None
    return Decoded(
        np.asarray(transforms.preprocess(picture)), None if crop is None else shrink(crop(picture))
    )


def make_batch(
    targets: Sequence[Target],
    decoded: Mapping[str, Decoded],
    plan: Plan,
    seed: int,
    crop: Transform | None,
) -> Batch | None:
    """The targets whose pictures could be read; None if there are none.

    Args:
      targets: at most `plan.size`.
      decoded: name of a picture -> the picture.
      plan: for the size of the batch and of `others`.
      seed: of the noise.
      crop: of the masks.

    Raises:
      InputError: `preprocess` made arrays of different shapes, or `crop` pictures of another size.
    """
    good = [target for target in targets if target.picture.name in decoded]
    if not good:
        return None
    for target in good:
        x, first = (decoded[one.picture.name].x for one in (target, good[0]))
        if x.shape != first.shape:
            raise InputError(
                f"preprocess: Expected arrays of one shape, got {first.shape} and {x.shape} "
                f"for {target.picture.name}."
            )
    inputs = ((t, (decoded[t.picture.name].x, np.int32(i))) for i, t in enumerate(good))
    (batch,) = collect_rows(inputs, plan.size)
    x, places = batch.rows
    rows = [good[place] for place in places]
    crops = {(t.picture.name, t.label): decoded[t.picture.name].crop for t in good}
    filled = [[*target.others, *[-1] * (plan.others - len(target.others))] for target in rows]
    return Batch(
        good,
        {target: small for target, small in crops.items() if small is not None},
        jnp.asarray(x),
        jnp.asarray([target.label for target in rows], jnp.int32),
        np.array(filled, np.int32).reshape(len(rows), plan.others),
        _masks(rows, x.shape[1:3], crop),
        jnp.stack([image_key(seed, f"{target.picture.name}/{target.label}") for target in rows]),
    )


def _masks(
    rows: Sequence[Target], shape: tuple[int, ...], crop: Transform | None
) -> np.ndarray | None:
    """Where each target is, in the pixels of x; None where no picture says so."""
    if crop is None:
        return None
    pictures = [target.picture.mask(target.label) for target in rows]
    if all(picture is None for picture in pictures):
        return None
    masks = np.zeros((len(rows), *shape), bool)
    for i, picture in enumerate(pictures):
        if picture is not None:
            mask = np.asarray(crop(picture.convert("RGB")))[..., 0]
            if mask.shape != shape:
                raise InputError(
                    f"crop: Expected pictures of x's {shape} pixels, got {mask.shape}."
                )
            masks[i] = mask > 127
    return masks
