"""Class names of the data sets, one text file each, and finding a class by its name.

A name file has one class per line, in the order of the logits.
"""

import difflib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from dmbp_jax.errors import InputError, InputTypeError

_SHOWN = 10  # candidates listed in a message


def dataset_labels(dataset: str) -> tuple[str, ...]:
    """Class names of "imagenet" (1000), "voc" (20) or "coco" (80).

    Sources: ILSVRC 2012, PASCAL VOC and COCO 2014 in the order of their official class ids.
    The two cranes and the two maillots of ImageNet share a name.
    """
    return tuple(
        files("dmbp_jax.networks").joinpath(f"{dataset}.txt").read_text("utf-8").splitlines()
    )


def read_labels(labels: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names from a list, or from a text file with one name per line.

    Raises:
      InputError: the file cannot be read, or there is no name.
      InputTypeError: not a list of strings.
    """
    if isinstance(labels, (str, os.PathLike)):
        try:
            labels = Path(labels).read_text("utf-8").strip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"labels: Expected a text file, got {labels}: {error}.") from error
    names = tuple(labels)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputTypeError(f"labels: Expected names, got {type(wrong[0]).__name__} {wrong[0]!r}.")
    if not names:
        raise InputError("labels: Expected at least one class name, got none.")
    return tuple(name.strip() for name in names)


def find_label(labels: Sequence[str], wanted: str) -> int:
    """Index of the class called `wanted`, or of the only one whose name contains it.

    Upper and lower case are the same. An exact name wins over longer names that contain it.

    Raises:
      InputError: no class or several classes fit; the message lists candidates.

    Example:
      >>> find_label(("tabby", "tiger", "tiger cat"), "Tiger")
      1
    """
    text = wanted.strip().casefold()
    names = [name.casefold() for name in labels]
    exact = [i for i, name in enumerate(names) if name == text]
    found = exact or [i for i, name in enumerate(names) if text and text in name]
    if len(found) == 1:
        return found[0]
    if not labels:
        raise InputError(f"label: Expected an index, got {wanted!r}; the classes have no names.")
    if not found:
        close = difflib.get_close_matches(text, names, n=_SHOWN, cutoff=0.6)
        near = [i for i, name in enumerate(names) if name in close]
        hint = f" Close: {_listing(labels, near)}." if near else ""
        raise InputError(f"label: Expected a class name, got {wanted!r}.{hint}")
    raise InputError(
        f"label: Expected one class, got {wanted!r}, which fits {_listing(labels, found)}. "
        "Give the index."
    )


def _listing(labels: Sequence[str], indices: Sequence[int]) -> str:
    listed = ", ".join(f"{labels[i]} ({i})" for i in indices[:_SHOWN])
    return listed + (", …" if len(indices) > _SHOWN else "")
