"""The generated dataset: every picture stands alone, and masks tell the truth about pixels.

Masks are checked by drawing the same scene again without the object.
"""

from dataclasses import replace

import numpy as np
import pytest

from dmbp_jax.data import list_generated
from dmbp_jax.data.generated import CLASSES, compose, generate, rival
from dmbp_jax.data.generated.drawing import render
from dmbp_jax.data.generated.scenes import MAX_OBJECTS, SIZE
from dmbp_jax.errors import InputError, InputTypeError

PICTURES = 300

# Of the first pictures of seed 1, the held-out set.
STORED_LABELS = [[0, 2, 5, 9], [1, 2, 9], [2, 8], [0, 5, 9], [0, 5, 8]]
STORED_AREAS = [2984, 2737, 1091, 2463, 1780, 1674, 2278, 2384, 2240, 2018]
STORED_MEANS = [144.82, 102.85, 107.23, 122.34, 101.71, 107.24, 116.01, 105.47, 168.73, 147.29]


@pytest.fixture(scope="module")
def dataset():
    return [generate(11, index) for index in range(PICTURES)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_shapes_and_dtypes(dataset):
    image, labels, masks = dataset[0]
    assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((10,), np.bool_)
    assert (masks.shape, masks.dtype) == ((10, SIZE, SIZE), np.bool_)


def test_a_picture_depends_on_seed_and_index_alone(dataset):
    np.random.seed(5)  # noqa: NPY002 - the global state must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for index in (7, 0, 200, 7):
        assert_same(generate(11, index), dataset[index])
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_pictures_differ():
    pictures = [generate(seed, index).image for seed in range(3) for index in range(10)]
    assert len({picture.tobytes() for picture in pictures}) == 30


def test_the_stream_is_the_one_that_was_trained_on():
    """A change of the generator, or of NumPy's streams, makes the held-out numbers stale."""
    samples = [generate(1, index) for index in range(10)]
    assert [np.flatnonzero(s.labels).tolist() for s in samples[:5]] == STORED_LABELS
    areas = np.array([s.masks.sum() for s in samples])
    np.testing.assert_allclose(areas, STORED_AREAS, atol=3)
    means = np.array([s.image.mean() for s in samples])
    np.testing.assert_allclose(means, STORED_MEANS, atol=0.01)


def test_labels_agree_with_masks(dataset):
    for sample in dataset:
        area = sample.masks.sum(axis=(1, 2))
        np.testing.assert_array_equal(area > 0, sample.labels)
        assert area[sample.labels].min() >= 120
        assert sample.masks.sum(axis=0).max() == 1, "masks overlap"


def test_masks_are_the_pixels_the_object_changes():
    """Draw with and without: all changed pixels lie in the mask or its antialiased outline."""
    for index in range(40):
        scene = compose(12, index)
        full = render(scene)
        for thing in scene.things:
            if thing.label is None:
                continue
            others = tuple(other for other in scene.things if other is not thing)
            without = render(replace(scene, things=others))
            assert not without.labels[thing.label]
            changed = (full.image != without.image).any(axis=-1)
            mask = full.masks[thing.label]
            assert (changed & ~grown(mask)).sum() <= 2  # a sharp corner fades a little further
            assert (mask & ~changed).sum() <= 0.03 * mask.sum()  # paint may equal the ground


def grown(mask):
    padded = np.pad(mask, 1)
    return np.any([padded[i : i + SIZE, j : j + SIZE] for i in range(3) for j in range(3)], axis=0)


def test_objects_are_hardly_covered():
    for index in range(60):
        scene = compose(13, index)
        visible = render(scene).masks
        for thing in scene.things:
            if thing.label is not None:
                alone = render(replace(scene, things=(thing,))).masks[thing.label]
                assert visible[thing.label].sum() >= 0.9 * alone.sum()


def test_classes_and_counts_are_balanced(dataset):
    labels = np.stack([sample.labels for sample in dataset])
    counts = np.bincount(labels.sum(axis=1), minlength=MAX_OBJECTS + 1)
    assert counts[0] == 0 and len(counts) == MAX_OBJECTS + 1
    np.testing.assert_allclose(counts[1:] / PICTURES, 1 / MAX_OBJECTS, atol=0.1)
    np.testing.assert_allclose(labels.mean(axis=0), 0.25, atol=0.1)


def test_rivals_never_share_a_random_picture(dataset):
    labels = np.stack([sample.labels for sample in dataset])
    for k in range(len(CLASSES)):
        assert rival(rival(k)) == k != rival(k)
        assert not (labels[:, k] & labels[:, rival(k)]).any()


def test_colour_says_nothing_about_the_class(dataset):
    """The mean colour of an object is the same for all classes, within what 75 objects allow."""
    for k in range(len(CLASSES)):
        colours = [s.image[s.masks[k]].mean(axis=0) for s in dataset if s.labels[k]]
        np.testing.assert_allclose(np.mean(colours, axis=0), 127.5, atol=35)


@pytest.mark.parametrize("classes", [("star", "cross"), [9], (0, 1, "star", 8)])
def test_given_classes_are_shown(classes):
    wanted = {CLASSES.index(c) if isinstance(c, str) else c for c in classes}
    for index in range(5):
        sample = generate(3, index, classes=classes)
        assert set(np.flatnonzero(sample.labels)) == wanted
        assert_same(sample, generate(3, index, classes=classes))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"seed": -1, "index": 0}, InputError, "seed: Expected at least 0"),
        ({"seed": 0, "index": -1}, InputError, "index: Expected at least 0"),
        ({"seed": 0.5, "index": 0}, InputTypeError, "seed: Expected an int"),
        ({"seed": 0, "index": 0, "classes": "star"}, InputTypeError, "classes: Expected a seq"),
        ({"seed": 0, "index": 0, "classes": 3}, InputTypeError, "classes: Expected a seq"),
        (
            {"seed": 0, "index": 0, "classes": [1.5]},
            InputTypeError,
            "label: Expected an int or a name",
        ),
        ({"seed": 0, "index": 0, "classes": ["cat"]}, InputError, "got 'cat'"),
        ({"seed": 0, "index": 0, "classes": [10]}, InputError, "label < 10, got 10"),
        ({"seed": 0, "index": 0, "classes": []}, InputError, "one to 4 different"),
        ({"seed": 0, "index": 0, "classes": [1, 1]}, InputError, "one to 4 different"),
        ({"seed": 0, "index": 0, "classes": range(5)}, InputError, "one to 4 different"),
    ],
)
def test_mistakes_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        generate(**arguments)


def test_mistakes_of_a_list_are_named():
    with pytest.raises(InputError, match="size: Expected at least 1"):
        list_generated(seed=2, size=0)
    with pytest.raises(InputError, match="seed: Expected at least 0"):
        list_generated(seed=-2, size=1)
