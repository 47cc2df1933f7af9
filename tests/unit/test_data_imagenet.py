"""The ImageNet reader on small copies of the layouts it knows, wrong files included."""

from pathlib import Path

import numpy as np
import pytest
from dataset_folders import labels, paint
from scipy.io import savemat

from dmbp_jax.data import Skipped, list_imagenet
from dmbp_jax.errors import DataError, ImageError, InputTypeError

IDS = [f"n{10_000_000 + 7 * i:08d}" for i in range(1000)]


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


def test_a_table_as_of_any_other_command(tmp_path: Path) -> None:
    root = flat(tmp_path, "mine.csv", f"File; Label\n{NAMES[0]}.JPEG; tench\n{NAMES[1]}; 65\n")
    dataset = list_imagenet(root, ground_truth=root / "mine.csv")
    assert labels(dataset) == {f"{NAMES[0]}.JPEG": (0,), f"{NAMES[1]}.JPEG": (65,)}
    (root / "mine.csv").write_text(f"file,label\n{NAMES[0]},1;2\n")
    with pytest.raises(DataError, match="line 2: Expected one label for every image"):
        list_imagenet(root, ground_truth=root / "mine.csv")


def test_links_and_files_beside_the_class_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for wordnet_id in IDS[1:]:
        (root / wordnet_id).mkdir(parents=True)
    paint(tmp_path / "elsewhere" / "a.JPEG")
    paint(root / "b.JPEG")
    (root / IDS[0]).symlink_to(tmp_path / "elsewhere")
    dataset = list_imagenet(root)
    assert labels(dataset) == {f"{IDS[0]}/a.JPEG": (0,)}
    assert dataset.skipped == (Skipped("b.JPEG", "in no class folder"),)


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
        ("x/a.JPEG 1\ny/a.JPEG 2\n", "Expected one label for every image, got 2 for a"),
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
