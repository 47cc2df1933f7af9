"""ImageNet validation (ILSVRC 2012): a folder per class, or a flat folder and a ground-truth file.

Labels are positions in the sorted list of the 1000 WordNet ids, as in all published networks.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from dmbp_jax.data.folders import check_root, list_folder
from dmbp_jax.data.samples import Dataset, FilePicture, Skipped
from dmbp_jax.data.tables import is_table, read_table
from dmbp_jax.errors import DataError
from dmbp_jax.files import read_text
from dmbp_jax.networks.class_names import dataset_labels, find_label

CLASSES = 1000
_WORDNET_ID = re.compile(r"n\d{8}")
_NUMBER = re.compile(r"_(\d+)\.[^.]*$")  # ILSVRC2012_val_00000001.JPEG
_EXPECTED = (
    "the ImageNet validation images: one folder per class (n01440764, ...), "
    "or the images in one folder with a ground-truth file"
)
_GROUND_TRUTH = (
    "val.txt",
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)
_WORDNET_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt")
_TEXTS = (*_GROUND_TRUTH, *_WORDNET_LISTS)


def list_imagenet(
    root: str | os.PathLike[str],
    *,
    ground_truth: str | os.PathLike[str] | None = None,
    wordnet_ids: str | os.PathLike[str] | None = None,
) -> Dataset:
    """List the ImageNet validation images with their labels.

    Two layouts are understood, in `root` or in `root/val`:

    * a folder per class, named by WordNet id. With all 1000 folders their sorted order gives the
      labels; with fewer, a list of all ids is needed.
    * all images in one folder, and one of these files (`ground_truth`, or found in `root`): a table
      with the columns `file,label` (`ground_truth` only);
      `val.txt` (lines "name index", index from 0, or "name n01440764"); `LOC_val_solution.csv`;
      one WordNet id a line, in order of the image numbers; or the development kit's
      `ILSVRC2012_validation_ground_truth.txt` with `meta.mat` beside it (its numbers 1 to 1000
      are in an order of their own, which `meta.mat` translates).

    Args:
      root: the folder.
      ground_truth: the ground-truth file of a flat folder.
      wordnet_ids: text file whose first word on line k is the WordNet id of class k
        (`LOC_synset_mapping.txt`, `synset_words.txt`); looked for in `root` as well.

    Returns:
      `Dataset`: every file is listed, pictures or not, and found out when decoded; files that the
      ground truth does not name are in `skipped`. Hidden files are ignored.

    Raises:
      DataError: another layout, an unreadable file, or ids and numbers that do not fit.
    """
    folder = check_root(root, _EXPECTED)
    images = folder / "val" if (folder / "val").is_dir() else folder
    id_file = _given_or_found(wordnet_ids, "wordnet_ids", folder, _WORDNET_LISTS)
    ids = _read_ids(id_file) if id_file else None
    classes = sorted(p.name for p in images.iterdir() if p.is_dir() and _is_id(p.name))
    truth, labels = None, {}
    if classes and ground_truth is None:
        ids = ids or _all_ids(classes, f"root: Expected {CLASSES} class folders in {images}")
        if unknown := [name for name in classes if name not in ids]:
            raise DataError(f"{images / unknown[0]}: Expected the WordNet id of a class.")
        label_of, reason = partial(_by_folder, ids), "in no class folder"
    else:
        truth = _given_or_found(ground_truth, "ground_truth", folder, _GROUND_TRUTH)
        if truth is None:
            raise DataError(f"root: Expected {_EXPECTED} ({', '.join(_GROUND_TRUTH)}), got {root}.")
        labels = _read_truth(truth, ids)
        label_of, reason = partial(_by_name, labels), f"no label in {truth.name}"
    listing = list_folder(images)
    pictures, skipped = [], listing.skipped
    for path in listing.files:
        if path == truth or path.name in _TEXTS:
            continue
        name = path.relative_to(images).as_posix()
        label = label_of(name)
        if label is None:
            skipped.append(Skipped(name, reason))
        else:
            pictures.append(FilePicture(name, path, (label,)))
    found = {picture.path.stem for picture in pictures}
    missing = [key for key in labels if isinstance(key, str) and key not in found]
    skipped += [Skipped(f"{key}.JPEG", "no such file") for key in missing]
    if not pictures:
        raise DataError(f"root: Expected {_EXPECTED}, got {root}, where no image has a label.")
    return Dataset("imagenet", tuple(pictures), tuple(skipped), dataset_labels("imagenet"))


def _is_id(name: str) -> bool:
    return _WORDNET_ID.fullmatch(name) is not None


def _given_or_found(
    given: str | os.PathLike[str] | None, name: str, folder: Path, candidates: tuple[str, ...]
) -> Path | None:
    if given is not None:
        if not Path(given).is_file():
            raise DataError(f"{name}: Expected a file, got {given}: no such file.")
        return Path(given)
    return next((folder / c for c in candidates if (folder / c).is_file()), None)


def _read_ids(path: Path) -> dict[str, int]:
    """WordNet id -> label, from the first word of every line."""
    words = [
        line.split()[0] for line in read_text(path, "WordNet ids").splitlines() if line.strip()
    ]
    if len(words) != CLASSES or len(set(words)) != CLASSES or not all(map(_is_id, words)):
        raise DataError(
            f"{path}: Expected {CLASSES} different WordNet ids, one a line, got {len(words)} lines."
        )
    return {word: label for label, word in enumerate(words)}


def _all_ids(names: Iterable[str], where: str) -> dict[str, int]:
    """WordNet id -> label: the sorted names of all classes are in the order of the labels."""
    ids = sorted(set(names))
    if len(ids) != CLASSES:
        raise DataError(
            f"{where}, got {len(ids)}. For a part of the classes give wordnet_ids= a list of all "
            f"{CLASSES} ({', '.join(_WORDNET_LISTS)})."
        )
    return {name: label for label, name in enumerate(ids)}


def _by_folder(ids: dict[str, int], name: str) -> int | None:
    """The label of a picture from the folder below the root that it lies in."""
    return ids.get(name.rpartition("/")[0].partition("/")[0])


def _by_name(labels: dict[str | int, int], name: str) -> int | None:
    """The label of a picture from its name, or from the number at the end of its name."""
    path = Path(name)
    number = _NUMBER.search(path.name)
    return labels.get(path.stem, labels.get(int(number[1])) if number else None)


def _read_table(path: Path) -> dict[str | int, int]:
    """Labels by name without ending, of a table like that of any other command."""
    labels: dict[str | int, int] = {}
    for line, file, label in read_table(path, partial(find_label, dataset_labels("imagenet"))).rows:
        if label is None or Path(file).stem in labels:
            raise DataError(f"{path}, line {line}: Expected one label for every image.")
        labels[Path(file).stem] = label
    return labels


def _read_truth(path: Path, ids: dict[str, int] | None) -> dict[str | int, int]:
    """Labels by name without ending, or by the number in the name."""
    lines = [line for line in read_text(path, "a ground truth").splitlines() if line.strip()]
    if lines and is_table(path.name) and not lines[0].startswith("ImageId,"):
        return _read_table(path)
    if lines and lines[0].startswith("ImageId,"):
        rows = [line.replace(",", " ").split()[:2] for line in lines[1:]]
    else:
        rows = [line.split() for line in lines]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not widths <= {1, 2}:
        raise DataError(f"{path}: Expected one label, or a name and a label, on every line.")
    words = [row[-1] for row in rows]
    keys = [Path(row[0]).stem if len(row) == 2 else i for i, row in enumerate(rows, start=1)]
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: Expected one label for every image, got {count} for {key}.")
    if all(map(_is_id, words)):
        known = ids or _all_ids(words, f"{path}: Expected labels of {CLASSES} classes")
    elif widths == {2}:
        known = {str(label): label for label in range(CLASSES)}
    else:
        known = _devkit_numbers(path)
    unknown = next((i for i, word in enumerate(words) if word not in known), None)
    if unknown is not None:
        raise DataError(f"{path}: Expected a class on line {unknown + 1}, got {words[unknown]!r}.")
    return {key: known[word] for key, word in zip(keys, words, strict=True)}


def _devkit_numbers(path: Path) -> dict[str, int]:
    """The development kit's class numbers, translated by its meta.mat."""
    meta = path.parent / "meta.mat"
    if not meta.is_file():
        raise DataError(
            f"{path}: Expected meta.mat of the development kit beside it: its class numbers are "
            "not the order of the logits."
        )
    from scipy.io import loadmat  # comes with JAX

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        numbers = {str(s["WNID"]): int(s["ILSVRC2012_ID"]) for s in synsets}
    except Exception as error:  # whatever a broken MATLAB file leads to
        raise DataError(f"{meta}: Expected the development kit's synsets: {error}") from error
    names = sorted(name for name, number in numbers.items() if number <= CLASSES)
    if len(names) != CLASSES:
        raise DataError(f"{meta}: Expected {CLASSES} classes, got {len(names)}.")
    return {str(numbers[name]): label for label, name in enumerate(names)}
