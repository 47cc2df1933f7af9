"""Readers on tiny copies of the real layouts, bad files included; choosing, loading pictures."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dmbp_jax.data import (
    FilePicture,
    GeneratedDataset,
    Loaded,
    Skipped,
    choose_targets,
    list_csv_folder,
    list_generated,
    list_imagenet,
    list_voc,
    load_pictures,
)
from dmbp_jax.errors import DataError, ImageError, InputError, InputTypeError

IDS = [f"n{10_000_000 + 7 * i:08d}" for i in range(1000)]


def paint(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), colour).save(path, format="JPEG")
    return path


def labels(dataset: Any) -> dict[str, tuple[int, ...]]:
    return {picture.name: picture.labels for picture in dataset}


# --- ImageNet ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sub", [".", "val"])
def test_imagenet_folder_per_class(tmp_path: Path, sub: str) -> None:
    for name in reversed(IDS):
        (tmp_path / sub / name).mkdir(parents=True)
    paint(tmp_path / sub / IDS[3] / "b.JPEG")
    paint(tmp_path / sub / IDS[3] / "a.JPEG")
    paint(tmp_path / sub / IDS[999] / "c.JPEG")
    (tmp_path / sub / IDS[999] / ".DS_Store").write_text("hidden")
    (tmp_path / sub / IDS[999] / "notes.txt").write_text("not a picture")
    dataset = list_imagenet(tmp_path)
    assert labels(dataset) == {
        f"{IDS[3]}/a.JPEG": (3,),
        f"{IDS[3]}/b.JPEG": (3,),
        f"{IDS[999]}/c.JPEG": (999,),
        f"{IDS[999]}/notes.txt": (999,),
    }
    assert dataset.name == "imagenet" and len(dataset.classes) == 1000 and len(dataset) == 4
    assert dataset.pictures[0].open().size == (12, 10)
    with pytest.raises(ImageError, match=r"notes\.txt: not a picture"):
        dataset.pictures[3].open()


def test_some_class_folders_need_the_list_of_all(tmp_path: Path) -> None:
    paint(tmp_path / IDS[42] / "a.JPEG")
    with pytest.raises(DataError, match=r"Expected 1000 class folders .* got 1") as info:
        list_imagenet(tmp_path)
    assert "wordnet_ids=" in str(info.value)
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(f"{i} some, names" for i in IDS))
    assert labels(list_imagenet(tmp_path)) == {f"{IDS[42]}/a.JPEG": (42,)}
    given = tmp_path / "ids.txt"
    given.write_text("\n".join(reversed(IDS)))
    assert labels(list_imagenet(tmp_path, wordnet_ids=given)) == {f"{IDS[42]}/a.JPEG": (957,)}
    given.write_text("\n".join(IDS[:999]))
    with pytest.raises(DataError, match="Expected 1000 different WordNet ids"):
        list_imagenet(tmp_path, wordnet_ids=given)
    paint(tmp_path / "n99999999" / "a.JPEG")
    with pytest.raises(DataError, match="n99999999: Expected the WordNet id of a class"):
        list_imagenet(tmp_path)


NAMES = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 4)]


def flat(tmp_path: Path, truth: str, content: str) -> Path:
    for name in NAMES:
        paint(tmp_path / f"{name}.JPEG")
    (tmp_path / truth).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / truth).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    "truth, content",
    [
        ("val.txt", f"{NAMES[1]}.JPEG 65\n{NAMES[0]}.JPEG 970\n{NAMES[2]}.JPEG 0\n"),
        ("val.txt", f"{NAMES[1]}.JPEG {IDS[65]}\n{NAMES[0]}.JPEG {IDS[970]}\n{NAMES[2]} {IDS[0]}"),
        (
            "LOC_val_solution.csv",
            "ImageId,PredictionString\n"
            f"{NAMES[0]},{IDS[970]} 1 2 3 4 {IDS[970]} 5 6 7 8 \n"
            f"{NAMES[1]},{IDS[65]} 1 2 3 4 \n{NAMES[2]},{IDS[0]} 1 2 3 4 \n",
        ),
        ("imagenet_2012_validation_synset_labels.txt", "\n".join(IDS[k] for k in (970, 65, 0))),
    ],
)
def test_imagenet_flat(tmp_path: Path, truth: str, content: str) -> None:
    root = flat(tmp_path, truth, content)
    (root / "synsets.txt").write_text("\n".join(IDS))
    expected = {f"{name}.JPEG": (k,) for name, k in zip(NAMES, (970, 65, 0), strict=True)}
    assert labels(list_imagenet(root)) == expected


def test_development_kit_numbers_are_translated(tmp_path: Path) -> None:
    root = flat(
        tmp_path,
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
        "490\n361\n171\n",
    )
    with pytest.raises(DataError, match=r"Expected meta\.mat of the development kit"):
        list_imagenet(root)
    order = np.random.default_rng(0).permutation(1000)  # number k + 1 is class order[k]
    synsets = np.zeros(1001, [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for k in range(1000):
        synsets[k] = (k + 1, IDS[order[k]], "words")
    synsets[1000] = (1001, "n00000001", "an inner node of WordNet")
    savemat(root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat", {"synsets": synsets})
    expected = [(int(order[number - 1]),) for number in (490, 361, 171)]
    dataset = list_imagenet(root)
    assert [picture.labels for picture in dataset if picture.name.endswith("JPEG")] == expected
    (root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"meta\.mat: Expected the development kit's synsets"):
        list_imagenet(root)


def test_files_and_names_without_partner_are_reported(tmp_path: Path) -> None:
    root = flat(tmp_path, "val.txt", f"{NAMES[0]}.JPEG 1\n{NAMES[1]}.JPEG 2\nabsent.JPEG 3\n")
    dataset = list_imagenet(root)
    assert labels(dataset) == {f"{NAMES[0]}.JPEG": (1,), f"{NAMES[1]}.JPEG": (2,)}
    assert dataset.skipped == (
        Skipped(f"{NAMES[2]}.JPEG", "no label in val.txt"),
        Skipped("absent.JPEG", "no such file"),
    )


@pytest.mark.parametrize(
    "content, message",
    [
        ("a.JPEG 1000\n", "Expected a class on line 1, got '1000'"),
        ("a.JPEG dog\n", "Expected a class on line 1, got 'dog'"),
        ("a.JPEG 1\nb.JPEG\n", "Expected one label, or a name and a label, on every line"),
        ("", "Expected one label, or a name"),
        (f"a.JPEG {IDS[0]}\n", "Expected labels of 1000 classes, got 1"),
    ],
)
def test_wrong_ground_truth_is_explained(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_imagenet(flat(tmp_path, "val.txt", content))


def test_wrong_imagenet_roots_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one folder per class .*no such folder"):
        list_imagenet(tmp_path / "absent")
    with pytest.raises(DataError, match=r"with a ground-truth file \(val\.txt"):
        list_imagenet(tmp_path)
    with pytest.raises(DataError, match="ground_truth: Expected a file"):
        list_imagenet(tmp_path, ground_truth=tmp_path / "val.txt")
    with pytest.raises(InputTypeError, match="root: Expected a path"):
        list_imagenet(3)  # pyrefly: ignore[bad-argument-type]


# --- VOC -----------------------------------------------------------------------------------------

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


# --- CSV -----------------------------------------------------------------------------------------


def test_csv_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        paint(tmp_path / name)
    table = "\ufefffile,note,labels\nsub/b.jpg,hello,3\na.jpg,,1; 0;1\nabsent.jpg,,2\n"
    (tmp_path / "labels.csv").write_text(table, "utf-8")
    dataset = list_csv_folder(tmp_path)
    assert labels(dataset) == {"a.jpg": (0, 1), "absent.jpg": (2,), "sub/b.jpg": (3,)}
    assert dataset.skipped == (Skipped("c.jpg", "not named in labels.csv"),)


def test_csv_class_names(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg")
    table = tmp_path / "my.csv"
    table.write_text('image,class\na.jpg,"Crane, bird;dog;1"\n')
    classes = ("crane, bird", "cat", "dog", "crane", "crane")
    dataset = list_csv_folder(tmp_path, table, classes=classes)
    assert labels(dataset) == {"a.jpg": (0, 1, 2)}
    table.write_text("image,class\na.jpg,crane\n")
    with pytest.raises(DataError, match=r"my\.csv, line 2: Two classes are called 'crane'"):
        list_csv_folder(tmp_path, table, classes=classes)


def test_csv_cannot_reach_out_of_its_folder(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "labels.csv").write_text(
        "file,labels\na.jpg,0\n../b.jpg,0\n/etc/passwd,0\nsub/../../b.jpg,0\n"
    )
    dataset = list_csv_folder(tmp_path / "in")
    assert [p.name for p in dataset] == ["a.jpg"]
    assert len(dataset.skipped) == 3 and all("outside" in s.reason for s in dataset.skipped)


@pytest.mark.parametrize(
    "table, message",
    [
        (None, r"labels\.csv: Expected a CSV file with the columns file,labels"),
        ("", "Expected a column 'file', got columns"),
        ("a.jpg,3\n", "Expected a column 'file'"),
        ("file,x\na.jpg,3\n", "Expected a column 'labels'"),
        ("file,labels\n", "Expected at least one row"),
        ("file,labels\na.jpg,\n", "line 2: Expected at least one label"),
        ("file,labels\na.jpg\n", "line 2: Expected at least one label"),
        ("file,labels\na.jpg,dog\n", "line 2: Expected a class index, got 'dog'"),
        ("file,labels\na.jpg,-1\n", "line 2: Expected a class index, got '-1'"),
        ("file,labels\na.jpg,1\na.jpg,2\n", "line 3: Expected a file that was not named before"),
        ("file,labels\n,1\n", "line 2: Expected a file that was not named before, got ''"),
    ],
)
def test_wrong_tables_are_explained(tmp_path: Path, table: str | None, message: str) -> None:
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        list_csv_folder(tmp_path)


def test_indices_are_checked_against_the_classes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,labels\na.jpg,2\n")
    with pytest.raises(DataError, match="line 2: Expected an index below 2 or a class name"):
        list_csv_folder(tmp_path, classes=("cat", "dog"))


# --- generated -----------------------------------------------------------------------------------


def test_generated_pictures_are_those_of_the_dataset() -> None:
    dataset = list_generated(seed=3, size=4)
    for picture, sample in zip(dataset, GeneratedDataset(3, 4), strict=True):
        assert picture.labels == tuple(np.flatnonzero(sample.labels))
        np.testing.assert_array_equal(np.asarray(picture.open()), sample.image)
        for k in range(10):
            mask = picture.mask(k)
            assert (mask is None) == (k not in picture.labels)
            if mask is not None:
                np.testing.assert_array_equal(np.asarray(mask) == 255, sample.masks[k])


# --- choosing ------------------------------------------------------------------------------------


def fake(name: str, *own: int) -> FilePicture:
    return FilePicture(name, Path(name), own)


def test_every_label_of_a_picture_is_a_target() -> None:
    targets = choose_targets([fake("a", 1, 4), fake("b", 4)])
    assert [(t.picture.name, t.label, t.others) for t in targets] == [
        ("a", 1, (4,)),
        ("a", 4, (1,)),
        ("b", 4, ()),
    ]


def test_choice_is_balanced_repeatable_and_stable() -> None:
    pictures = [fake(f"{i:03}", i % 3, 3 + i % 2) for i in range(60)] + [fake("rare", 9)]
    chosen = choose_targets(pictures, images_per_class=5, seed=1)
    counts = {k: sum(t.label == k for t in chosen) for k in range(10)}
    assert counts == {0: 5, 1: 5, 2: 5, 3: 5, 4: 5, 5: 0, 6: 0, 7: 0, 8: 0, 9: 1}
    assert chosen == choose_targets(pictures, images_per_class=5, seed=1)
    assert chosen != choose_targets(pictures, images_per_class=5, seed=2)
    assert set(chosen) == set(choose_targets(pictures[::-1], images_per_class=5, seed=1))
    gone = next(p for p in pictures if p not in {t.picture for t in chosen})
    fewer = [p for p in pictures if p != gone]
    assert choose_targets(fewer, images_per_class=5, seed=1) == chosen
    assert set(choose_targets(pictures, 3, 1)) < set(chosen)


def test_the_choice_is_the_documented_one() -> None:
    from hashlib import sha256

    pictures = [fake(f"{i}.jpg", 7) for i in range(20)]
    order = sorted(range(20), key=lambda i: sha256(f"5/7/{i}.jpg".encode()).digest())
    names = [t.picture.name for t in choose_targets(pictures, images_per_class=2, seed=5)]
    assert names == [f"{i}.jpg" for i in sorted(order[:2])]


def test_choice_mistakes() -> None:
    with pytest.raises(InputError, match="images_per_class: Expected at least 1"):
        choose_targets([], images_per_class=0)
    with pytest.raises(InputError, match="seed: Expected at least 0"):
        choose_targets([], seed=-1)


# --- loading -------------------------------------------------------------------------------------


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((4, 4)))


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (4, 16), (8, 2)])
def test_bad_files_come_out_by_name_in_their_place(
    tmp_path: Path, workers: int, prefetch: int
) -> None:
    whole = paint(tmp_path / "00_good.jpg").read_bytes()
    (tmp_path / "01_empty.jpg").write_bytes(b"")
    (tmp_path / "02_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "03_text.jpg").write_text("I am no picture")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "04_huge.png")
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "05_animated.gif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (12, 10), (0, 255, 255, 0)).save(tmp_path / "06_cmyk.jpg")
    names = sorted(p.name for p in tmp_path.iterdir())
    (tmp_path / "labels.csv").write_text(
        "file,labels\n" + "".join(f"{name},1\n" for name in [*names, "07_absent.jpg"])
    )
    items = list(
        load_pictures(list_csv_folder(tmp_path), pixels, workers=workers, prefetch=prefetch)
    )
    found = [i.picture.name if isinstance(i, Loaded) else i.name for i in items]
    assert found == [*names, "07_absent.jpg"]
    good = [i.picture.name[:2] for i in items if isinstance(i, Loaded)]
    assert good == ["00", "05", "06"]
    reasons = {i.name[:2]: i.reason for i in items if isinstance(i, Skipped)}
    for key, reason in {
        "01": "empty",
        "02": "runcated",
        "03": "not a picture",
        "04": "too large",
        "07": "no such file",
    }.items():
        assert reason in reasons[key] and str(tmp_path) not in reasons[key]
    for item in items:
        if isinstance(item, Loaded):
            red, green, blue = item.x[2, 2]
            assert red > 240 and green < 15 and blue < 15


class Slow:
    """Counts how many pictures have been opened."""

    def __init__(self, name: str, opened: list[str]) -> None:
        self.name, self.labels, self.opened = name, (0,), opened

    def open(self) -> Image.Image:
        self.opened.append(self.name)
        return Image.new("RGB", (2, 2))

    def mask(self, label: int) -> None:
        return None


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited five seconds in vain")


def test_no_more_than_prefetch_pictures_are_decoded_ahead() -> None:
    opened: list[str] = []
    pictures = [Slow(str(i), opened) for i in range(50)]
    iterator = load_pictures(pictures, pixels, workers=4, prefetch=3)
    assert opened == []
    for taken in range(1, 11):
        next(iterator)
        assert len(opened) <= taken + 3
    wait_until(lambda: len(opened) == 13)
    iterator.close()  # pyrefly: ignore[missing-attribute]
    assert len(opened) == 13
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_mistakes_of_the_caller_are_not_swallowed() -> None:
    def broken(picture: Image.Image) -> np.ndarray:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(load_pictures([Slow("a", [])], broken))
    with pytest.raises(InputError, match="workers: Expected at least 1"):
        load_pictures([], pixels, workers=0)
    with pytest.raises(InputError, match="prefetch: Expected at least 1"):
        load_pictures([], pixels, prefetch=0)
