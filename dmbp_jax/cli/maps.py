"""Maps for `dmbp explain`: by DMBP or by a compared method, and the picture of one map."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmbp_jax.catalogue import find_method
from dmbp_jax.cli.photos import Photo

if TYPE_CHECKING:
    import jax
    import numpy as np
    from PIL import Image

    from dmbp_jax import DMBP, Network

FORMATS = ("panel", "overlay", "authors", "map")


class PhotoMap(NamedTuple):
    """The map of one photo.

    Attributes:
      label: the class it is for.
      numbers: what is printed beside it.
      map: (H, W) or (H, W, C), as it is drawn.
      parts: positive and negative part; None for methods other than dmbp.
      save: writes the arrays to a path.
      note: what a reader of the map should know, or nothing.
    """

    label: int
    numbers: str
    map: "np.ndarray"
    parts: "tuple[np.ndarray, np.ndarray] | None"
    save: Callable[[Path], object]
    note: str = ""


# (net, photos, their inputs with repeats to fill the batch) -> one map for each photo
Mapper = Callable[["Network", Sequence[Photo], "np.ndarray"], Iterator[PhotoMap]]


def map_by_dmbp(
    net: "Network",
    photos: Sequence[Photo],
    x: "np.ndarray",
    *,
    config: "DMBP",
    biases: str,
    nonaffine: str,
    progress: bool,
) -> Iterator[PhotoMap]:
    """Attributions of a batch, with y, y+, y- and the nuisance y~ (paper Eq. 9)."""
    import numpy as np

    from dmbp_jax import attribute

    options = {"config": config, "biases": biases, "nonaffine": nonaffine}
    given = any(photo.label is not None for photo in photos)
    labels = fill_labels(photos, np.asarray(net(x))) if given else None
    batch = attribute(net, x, labels, progress=progress, **options)
    for i in range(len(photos)):
        one = batch[i]
        numbers = (
            f"y {one.y:.3f}  y+ {one.y_positive:.3f}  y- {one.y_negative:.3f}  "
            f"y~ {one.y_nuisance:.3f}  carried {one.carried[0]:.2f} {one.carried[1]:.2f}"
        )
        parts = (np.asarray(one.positive), np.asarray(one.negative))
        note = carried_note(np.asarray(one.carried), biases)
        yield PhotoMap(int(one.label), numbers, np.asarray(one.map), parts, one.save, note)


def fill_labels(photos: Sequence[Photo], logits: "np.ndarray") -> "np.ndarray":
    """The labels of a batch: as asked for, else the first choice; of repeats, the latter too."""
    labels = logits.argmax(axis=-1)
    for i, photo in enumerate(photos):
        if photo.label is not None:
            labels[i] = photo.label
    return labels


def carried_note(carried: "np.ndarray", biases: str) -> str:
    """One sentence where the pixels carry less than half of the evidence of a sign."""
    signs = [sign for sign, share in zip(("for", "against"), carried, strict=True) if share < 0.5]
    if not signs or biases != "drop":
        return ""
    return (
        f"the pixels carry less than half of the evidence {' and '.join(signs)} the label; "
        "the rest comes from biases and is not in the map (--biases carry draws it)"
    )


def frozen_note(net: "Network", x: "np.ndarray", method: str, nonaffine: str) -> str:
    """One sentence where the method takes factors of the network as constants."""
    from dmbp_jax import sites

    if "nonaffine" not in find_method(method).options:
        return ""
    count = sum(site.kind == "frozen" for site in sites(net, x, nonaffine=nonaffine))
    if not count:
        return ""
    return (
        f"gates taken as constants at each image: {count} "
        "(normalisation statistics, attention weights and the like; dmbp_jax.sites lists them)"
    )


def map_by_method(
    net: "Network",
    photos: Sequence[Photo],
    x: "np.ndarray",
    *,
    name: str,
    nonaffine: str,
    forward: "Callable[[Network, np.ndarray], jax.Array]",
) -> Iterator[PhotoMap]:
    """Maps of a batch by one of the compared methods, with the logit of the label."""
    import jax.numpy as jnp
    import numpy as np

    from dmbp_jax.methods import METHODS
    from dmbp_jax.methods.keys import image_key

    method, function = find_method(name), METHODS[name]
    logits = np.asarray(forward(net, x))
    labels = fill_labels(photos, logits)
    keys = [image_key(0, photo.digest) for photo in photos]
    keys += keys[:1] * (len(x) - len(keys))  # for the repeats that fill the batch
    options = {"nonaffine": nonaffine} if "nonaffine" in method.options else {}
    key = jnp.stack(keys) if method.random else None
    maps = np.asarray(function(net, x, labels, key=key, **options))
    for _, one, explained, scores in zip(photos, maps, labels, logits, strict=False):
        logit = scores[explained]
        save = partial(np.savez_compressed, map=one, label=explained, logit=logit)
        drawn = one if method.has_zero else one - one.mean()
        yield PhotoMap(int(explained), f"logit {logit:.3f}", drawn, None, save)


def draw(format: str, crop: "Image.Image", one: PhotoMap, name: str) -> "Image.Image":
    """The picture of one map."""
    from dmbp_jax import pictures

    parts = one.parts
    if format == "map":
        return pictures.diverging(one.map)
    if format == "overlay":
        if parts is None:
            return pictures.overlay(crop, heatmap=one.map)
        return pictures.overlay(crop, *parts)
    if format == "authors" and parts is not None:
        return pictures.authors_overlay(crop, *parts)
    title = f"{name} ({one.label}): {one.numbers}"
    return pictures.panel(crop, *(parts or (None, None)), one.map, title=title)
