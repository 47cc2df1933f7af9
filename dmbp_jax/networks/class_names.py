"""Class names: of the data sets and of any file, and finding a class by its name or number.

Names stand in the order of the logits.
"""

import difflib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from dmbp_jax.errors import DataError, InputError, InputTypeError
from dmbp_jax.files import read_json, read_text

_SHOWN = 10  # candidates listed in a message
_EXPECTED = "a text file with a class name on each line, or JSON"


def dataset_labels(dataset: str) -> tuple[str, ...]:
    """Class names of "imagenet" (1000), "voc" (20) or "coco" (80).

    Sources: ILSVRC 2012, PASCAL VOC and COCO 2014 in the order of their official class ids.
    The two cranes and the two maillots of ImageNet share a name.
    """
    return tuple(
        files("dmbp_jax.networks").joinpath(f"{dataset}.txt").read_text("utf-8").splitlines()
    )


def read_labels(labels: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names from a list, or from a file.

    A text file has one name on each line; blank lines do not count. A JSON file has a list of
    names, or an object from number to name (`{"0": "cat"}`, also `{"0": ["n02123045", "cat"]}`) or
    from name to number, with the numbers 0, 1, 2, … in any order.
    """
    where = "labels"
    if isinstance(labels, (str, os.PathLike)):
        where = f"labels: {labels}"
        try:
            text = read_text(Path(labels), _EXPECTED)
        except DataError as error:
            raise InputError(f"labels: {error}") from error
        labels = _parse(text, where)
    names = tuple(labels)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputTypeError(
            f"{where}: Expected names, got {type(wrong[0]).__name__} {wrong[0]!r}."
        )
    if not names or not all(name.strip() for name in names):
        got = f"a blank one, of class {[*map(str.strip, names)].index('')}" if names else "none"
        raise InputError(f"{where}: Expected at least one class name and no blank one, got {got}.")
    return tuple(name.strip() for name in names)


def _parse(text: str, where: str) -> Sequence[Any]:
    """The names in the text of a file."""
    if text.lstrip()[:1] not in ("[", "{"):
        return [line for line in text.split("\n") if line.strip()]
    try:
        names = read_json(text, object_pairs_hook=list)  # keeps keys that appear twice
    except ValueError as error:
        raise InputError(f"{where}: Expected {_EXPECTED}: {error}") from error
    if text.lstrip()[0] == "[":
        return names
    numbered = {}
    for key, value in names:
        number, name = (value, key) if type(value) is int else (key, value)
        numbered[str(number)] = name[1] if isinstance(name, list) and len(name) == 2 else name
    if len(numbered) != len(names) or set(numbered) != {str(i) for i in range(len(names))}:
        raise InputError(f"{where}: Expected each of the numbers 0 to {len(names) - 1} once.")
    return [numbered[str(i)] for i in range(len(names))]


def find_label(labels: Sequence[str], wanted: int | str, *, exact: bool = False) -> int:
    """Index of a class by its number, or by its name, or by a part that no other name contains.

    Upper and lower case are the same, unless only one of them fits. An exact name wins over longer
    names that contain it. Digits are a number, unless a class is called so; without names, any
    number is taken. In tables of labels only the whole name counts (`exact`). The message of an
    error lists candidates.

    Example:
      >>> find_label(("tabby", "tiger", "tiger cat"), "Tiger"), find_label(("a", "b"), "1")
      (1, 1)
    """
    if isinstance(wanted, bool) or not isinstance(wanted, (int, np.integer, str)):
        raise InputTypeError(f"label: Expected an int or a name, got {type(wanted).__name__}.")
    text = wanted.strip().casefold() if isinstance(wanted, str) else str(wanted)
    is_number = not isinstance(wanted, str) or (text.isdecimal() and len(text) < 19)
    names = [name.strip().casefold() for name in labels] if isinstance(wanted, str) else []
    found = [i for i, name in enumerate(names) if name == text]
    same_case = [i for i in found if labels[i].strip() == str(wanted).strip()]
    found = same_case or found  # ImageNet has a Cardigan, which barks, and a cardigan
    if is_number and int(text) >= 0 and (int(text) < len(labels) or not labels):
        found = list(dict.fromkeys([int(text), *found]))
    if not found and not is_number and not exact:
        found = [i for i, name in enumerate(names) if text and text in name]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"label: Expected one class, got {wanted!r}, which fits {_listing(labels, found)}."
            + ("" if is_number else " Give the index.")
        )
    if not labels:
        raise InputError(f"label: Expected an index, got {wanted!r}; the classes have no names.")
    if is_number:
        raise InputError(f"label: Expected 0 <= label < {len(labels)}, got {wanted}.")
    close = difflib.get_close_matches(text, names, n=_SHOWN, cutoff=0.6)
    near = [i for i, name in enumerate(names) if name in close]
    hint = f" Close: {_listing(labels, near)}." if near else ""
    raise InputError(f"label: Expected a class name or an index, got {wanted!r}.{hint}")


def _listing(labels: Sequence[str], indices: Sequence[int]) -> str:
    listed = ", ".join(f"{labels[i]} ({i})" for i in indices[:_SHOWN])
    return listed + (", …" if len(indices) > _SHOWN else "")
