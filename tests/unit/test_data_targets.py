"""The generated dataset as a list of pictures, and the choice of (picture, label) targets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmbp_jax.data import FilePicture, choose_targets, generate, list_generated
from dmbp_jax.errors import InputError


def test_generated_pictures_are_those_of_the_dataset() -> None:
    dataset = list_generated(seed=3, size=4)
    for index, picture in enumerate(dataset):
        sample = generate(3, index)
        assert picture.labels == tuple(np.flatnonzero(sample.labels))
        np.testing.assert_array_equal(np.asarray(picture.open()), sample.image)
        for k in range(10):
            mask = picture.mask(k)
            assert (mask is None) == (k not in picture.labels)
            if mask is not None:
                np.testing.assert_array_equal(np.asarray(mask) == 255, sample.masks[k])


def test_the_readers_do_without_jax(tmp_path: Path) -> None:
    """Pictures and labels are NumPy and Pillow: listing them must not wait for JAX."""
    script = (
        "import sys\n"
        "import dmbp_jax.data\n"
        "dmbp_jax.data.list_generated(size=1).pictures[0].open()\n"
        "heavy = {'jax', 'flax', 'optax', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


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
