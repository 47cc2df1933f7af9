"""The VOC reader on small copies of the development kit, broken annotations included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_folders import labels, paint

from dmbp_jax.data import Skipped, list_voc
from dmbp_jax.errors import DataError
from dmbp_jax.networks.class_names import dataset_labels

OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def annotate(*objects: tuple[Any, ...]) -> str:
    body = "".join(OBJECT.format(*o) for o in objects)
    return f"<annotation><size><width>12</width><height>10</height></size>{body}</annotation>"


def devkit(tmp_path: Path, annotations: dict[str, str]) -> Path:
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / part).mkdir(parents=True)
    for name, xml in annotations.items():
        (base / "Annotations" / f"{name}.xml").write_text(xml)
        paint(base / "JPEGImages" / f"{name}.jpg")
    (base / "ImageSets/Main/val.txt").write_text("\n".join([*annotations, ""]))
    (base / "ImageSets/Main/train.txt").write_text("")
    return base


def test_voc_labels_come_from_the_annotations(tmp_path: Path) -> None:
    base = devkit(
        tmp_path,
        {
            "2": annotate(
                ("dog", 0, 1, 1, 3, 4), ("person", 0, 2, 2, 5, 5), ("dog", 0, 1, 1, 2, 2)
            ),
            "1": annotate(("cat", 0, 3, 2, 6, 4), ("tvmonitor", 1, 1, 1, 2, 2)),
            "3": annotate(("bird", 1, 1, 1, 2, 2)),
            "4": annotate(),
        },
    )
    for root in (tmp_path, tmp_path / "VOCdevkit", base):
        dataset = list_voc(root)
        assert labels(dataset) == {"1.jpg": (7,), "2.jpg": (11, 14)}
        assert dataset.skipped == (
            Skipped("3.jpg", "only difficult objects"),
            Skipped("4.jpg", "no annotated object"),
        )
    assert dataset.classes[7] == "cat" and dataset.classes[14] == "person"
    assert labels(list_voc(tmp_path, difficult=True)) == {
        "1.jpg": (7, 19),
        "2.jpg": (11, 14),
        "3.jpg": (2,),
    }


def test_voc_masks_are_the_boxes(tmp_path: Path) -> None:
    devkit(tmp_path, {"1": annotate(("cat", 0, 3, 2, 6, 4), ("cat", 1, 12, 10, 12, 10.2))})
    picture = list_voc(tmp_path).pictures[0]
    expected = np.zeros((10, 12), np.uint8)
    expected[1:4, 2:6] = 255  # corners counted from 1, both inside
    expected[9, 11] = 255
    mask = picture.mask(7)
    assert mask is not None and mask.size == (12, 10)
    np.testing.assert_array_equal(np.asarray(mask), expected)
    assert picture.mask(3) is None


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    "xml, reason",
    [
        ("<annotation><object>", "annotation a.xml: not XML"),
        ("", "annotation a.xml: not XML"),
        (BOMB, "annotation a.xml: has a document type, which is refused"),
        (annotate(("unicorn", 0, 1, 1, 2, 2)), "Expected one of the 20 classes, got 'unicorn'"),
        (annotate(("dog", 0, "x", 1, 2, 2)), "Expected a number in bndbox/xmin, got 'x'"),
        (annotate(("dog", 0, "1e999", 1, 2, 2)), "Expected a number in bndbox/xmin"),
        ("<annotation>" + " " * (1 << 20), "annotation a.xml: more than 1048576 bytes"),
    ],
)
def test_bad_annotations_are_skipped_by_name(tmp_path: Path, xml: str, reason: str) -> None:
    devkit(tmp_path, {"a": xml, "good": annotate(("dog", 0, 1, 1, 2, 2))})
    dataset = list_voc(tmp_path)
    assert labels(dataset) == {"good.jpg": (11,)}
    (skipped,) = dataset.skipped
    assert skipped.name == "a.jpg" and reason in skipped.reason


def test_a_document_type_is_refused_in_any_encoding(tmp_path: Path) -> None:
    base = devkit(tmp_path, {"a": "", "good": annotate(("dog", 0, 1, 1, 2, 2))})
    (base / "Annotations" / "a.xml").write_bytes(BOMB.encode("utf-16"))
    assert "document type" in list_voc(tmp_path).skipped[0].reason


def test_the_class_names_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once per picture."""
    devkit(tmp_path, {str(i): annotate(("dog", 0, 1, 1, 2, 2)) for i in range(5)})
    reads: list[str] = []

    def counted(dataset: str) -> tuple[str, ...]:
        reads.append(dataset)
        return dataset_labels(dataset)

    monkeypatch.setattr("dmbp_jax.data.voc.dataset_labels", counted)
    assert len(list_voc(tmp_path)) == 5
    assert reads == ["voc"]


def test_missing_annotation_and_wrong_layouts(tmp_path: Path) -> None:
    base = devkit(tmp_path, {"a": annotate(("dog", 0, 1, 1, 2, 2))})
    (base / "ImageSets/Main/val.txt").write_text("a\nb\n../../../../etc/passwd\n")
    skipped = list_voc(tmp_path).skipped
    assert [s.name for s in skipped] == ["../../../../etc/passwd.jpg", "b.jpg"]
    assert "leads out of the folder" in skipped[0].reason
    assert skipped[1].reason == "annotation b.xml: No such file or directory"
    with pytest.raises(DataError, match="split: Expected one of train, val, got 'test'"):
        list_voc(tmp_path, split="test")
    with pytest.raises(DataError, match="split: Expected one of"):
        list_voc(tmp_path, split="../Main/val")
    with pytest.raises(DataError, match="Expected names of annotated pictures"):
        list_voc(tmp_path, split="train")
    with pytest.raises(DataError, match=r"root: Expected VOCdevkit/VOC2007 with Annotations"):
        list_voc(tmp_path, year=2007)
