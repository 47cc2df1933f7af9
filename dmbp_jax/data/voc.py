"""PASCAL VOC: the development kit's layout, several labels a picture from the XML annotations."""

import os
from pathlib import Path
from xml.etree import ElementTree

from dmbp_jax.data.folders import check_root
from dmbp_jax.data.samples import Box, Dataset, FilePicture, Skipped
from dmbp_jax.errors import DataError
from dmbp_jax.files import read_text
from dmbp_jax.networks.class_names import dataset_labels

_EXPECTED = "VOCdevkit/VOC2012 with Annotations, JPEGImages and ImageSets/Main"
_PARTS = ("Annotations", "JPEGImages", "ImageSets/Main")
_MAX_ANNOTATION = 1 << 20  # bytes; the largest of VOC 2012 has 20 thousand


def list_voc(
    root: str | os.PathLike[str],
    *,
    split: str = "val",
    year: int | str = 2012,
    difficult: bool = False,
) -> Dataset:
    """List the pictures of a split with the classes and boxes of their annotated objects.

    A picture's labels are the classes of its objects. Objects that the annotators marked
    "difficult" do not count as labels unless `difficult=True`; the paper does not say. Their boxes
    are kept and marked either way.

    Args:
      root: the folder that holds `VOCdevkit`, `VOCdevkit` itself, or `VOC2012`.
      split: a list in `ImageSets/Main`: "val", "train", "trainval", ...
      year: of the folder `VOC<year>`.
      difficult: whether difficult objects give labels.

    Returns:
      `Dataset` with the 20 classes in alphabetical order. Pictures without a usable annotation or
      without a label are in `skipped`, each with its reason.

    Raises:
      DataError: another layout, or an unknown split.
    """
    folder = _find(check_root(root, _EXPECTED), f"VOC{year}")
    list_file = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not list_file.is_file() or Path(split).name != split:
        splits = sorted(p.stem for p in list_file.parent.glob("*.txt") if "_" not in p.stem)
        raise DataError(
            f"split: Expected one of {', '.join(splits) or 'none found'}, got {split!r}."
        )
    classes = dataset_labels("voc")
    known = {name: label for label, name in enumerate(classes)}
    pictures, skipped = [], []
    for line in sorted(set(read_text(list_file, "image names").split("\n"))):
        if not line.strip():
            continue
        name = line.split()[0]  # lists of one class have a second column
        try:
            pictures.append(_read(folder, name, known, difficult))
        except DataError as error:
            skipped.append(Skipped(f"{name}.jpg", str(error)))
    if not pictures:
        raise DataError(f"{list_file}: Expected names of annotated pictures, found none.")
    return Dataset("voc", tuple(pictures), tuple(skipped), classes)


def _find(root: Path, year: str) -> Path:
    for folder in (root, root / year, root / "VOCdevkit" / year):
        if all((folder / part).is_dir() for part in _PARTS):
            return folder
    raise DataError(f"root: Expected {_EXPECTED.replace('VOC2012', year)}, got {root}.")


def _read(folder: Path, name: str, known: dict[str, int], difficult: bool) -> FilePicture:
    if Path(name).name != name:
        raise DataError("its name leads out of the folder")
    annotation = parse_annotation(folder / "Annotations" / f"{name}.xml")
    boxes = tuple(_box(element, known) for element in annotation.findall("object"))
    labels = {box.label for box in boxes if difficult or not box.difficult}
    if not labels:
        raise DataError("only difficult objects" if boxes else "no annotated object")
    size = _number(annotation, "size/width"), _number(annotation, "size/height")
    path = folder / "JPEGImages" / f"{name}.jpg"
    return FilePicture(f"{name}.jpg", path, tuple(sorted(labels)), size, boxes)


class _NoDocumentType(ElementTree.TreeBuilder):
    """Stops at a document type, where entities are declared that could multiply a small file."""

    def doctype(self, *_: object) -> None:
        raise DataError("has a document type, which is refused")


def parse_annotation(path: Path) -> ElementTree.Element:
    """The root element of an annotation; a document type, and with it any entity, is refused."""
    try:
        if path.stat().st_size > _MAX_ANNOTATION:
            raise DataError(f"more than {_MAX_ANNOTATION} bytes")
        parser = ElementTree.XMLParser(target=_NoDocumentType())
        return ElementTree.fromstring(path.read_bytes(), parser)
    except OSError as error:
        raise DataError(f"annotation {path.name}: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"annotation {path.name}: {error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"annotation {path.name}: not XML: {error}") from error


def _box(element: ElementTree.Element, known: dict[str, int]) -> Box:
    name = (element.findtext("name") or "").strip()
    if name not in known:
        raise DataError(f"annotation: Expected one of the 20 classes, got {name!r}")
    # corners are pixels counted from 1, both inside the box
    left, top = _number(element, "bndbox/xmin") - 1, _number(element, "bndbox/ymin") - 1
    right, bottom = _number(element, "bndbox/xmax"), _number(element, "bndbox/ymax")
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return Box(known[name], left, top, right, bottom, difficult)


def _number(element: ElementTree.Element, tag: str) -> int:
    text = element.findtext(tag) or ""
    try:
        return min(max(round(float(text)), 0), 1 << 16)  # some corners of VOC have decimals
    except (ValueError, OverflowError) as error:
        raise DataError(f"annotation: Expected a number in {tag}, got {text!r}") from error
