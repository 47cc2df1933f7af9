"""`Network` as a pytree, preprocessing against torchvision's arithmetic, class names, `load`."""

import copy
import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dmbp_jax
from dmbp_jax import Network
from dmbp_jax.convert import save_variables
from dmbp_jax.errors import DmbpError, InputError, InputTypeError, KeyMismatchError, WeightsError
from dmbp_jax.models import ResNet18
from dmbp_jax.networks.class_names import dataset_labels, find_label, read_labels
from dmbp_jax.networks.preprocessing import Preprocessing
from dmbp_jax.networks.registry import NETWORKS, find_entry


@pytest.fixture(scope="module")
def net() -> Network:
    module = ResNet18(stage_sizes=(1, 1), width=4, classes=3)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    random = np.random.RandomState(0)
    draw = lambda leaf: jnp.asarray(random.standard_normal(leaf.shape) / 4, jnp.float32)  # noqa: E731
    return Network(
        module=module,
        variables=jax.tree.map(draw, shapes),
        preprocessing=Preprocessing(40, 32),
        labels=("cat", "dog", "catfish"),
        name="small",
    )


@pytest.fixture
def x() -> np.ndarray:
    return np.random.RandomState(1).standard_normal((4, 32, 32, 3)).astype(np.float32)


@pytest.mark.slow
def test_batches_and_single_images(net, x):
    logits = net(x)
    assert logits.shape == (4, 3)
    single = net(x[2])
    assert single.shape == (3,)
    np.testing.assert_allclose(single, logits[2], rtol=1e-5, atol=1e-5)


def test_jit_with_the_network_as_argument(net, x):
    call = jax.jit(lambda net, x: net(x))
    np.testing.assert_allclose(call(net, x), net(x), rtol=1e-4, atol=1e-5)
    copied = replace(net, module=net.module.clone(), labels=("cat", "dog", "catfish"))
    call(copied, x)
    assert call._cache_size() == 1


@pytest.mark.slow
def test_vmap_and_grad_with_the_network_as_argument(net, x):
    mapped = jax.jit(jax.vmap(lambda net, x: net(x), in_axes=(None, 0)))(net, x)
    np.testing.assert_allclose(mapped, net(x), rtol=1e-4, atol=1e-5)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), net)
    assert jax.eval_shape(jax.vmap(lambda net: net(x)), two).shape == (2, 4, 3)
    gradient = jax.jit(jax.grad(lambda net: net(x).sum()))(net)
    assert isinstance(gradient, Network)
    assert gradient.variables["params"]["fc"]["bias"].tolist() == [4.0, 4.0, 4.0]


def test_static_parts_are_hashable(net):
    leaves, structure = jax.tree.flatten(net)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert hash(structure) == hash(jax.tree.structure(replace(net)))
    assert repr(net) == "Network('small', 3 classes, 1,835 parameters)"


def test_inputs_that_do_not_fit(net, x):
    for wrong in (x[0, 0], x[None], x[..., :2]):
        with pytest.raises(InputError, match="Expected shape"):
            net(wrong)
    with pytest.raises(InputTypeError, match="preprocess"):
        net(np.zeros((32, 32, 3), np.uint8))


def test_attribute_takes_a_network(net, x):
    att = dmbp_jax.attribute(net, x[0], label=1, config=dmbp_jax.DMBP(steps=2))
    assert att.map.shape == (32, 32, 3)
    assert float(att.y) == pytest.approx(
        float(net(x[0])[1] - net.variables["params"]["fc"]["bias"][1]), abs=1e-4
    )


def test_label_index(net):
    assert [net.label_index(label) for label in (0, 2, "dog", "DOG", "fish", " cat ")] == [
        0, 2, 1, 1, 2, 0,
    ]  # fmt: skip
    assert net.label_index(np.int64(1)) == 1
    for wrong in (-1, 3, "at", "do g", ""):
        with pytest.raises(InputError, match="label: Expected"):
            net.label_index(wrong)
    with pytest.raises(InputError, match=r"cat \(0\), catfish \(2\)"):
        net.label_index("ca")
    for wrong in (1.0, None, True):
        with pytest.raises(InputTypeError):
            net.label_index(wrong)


def test_names_of_the_data_sets():
    assert [len(dataset_labels(name)) for name in ("imagenet", "voc", "coco")] == [1000, 20, 80]
    imagenet = dataset_labels("imagenet")
    assert [imagenet[i] for i in (0, 207, 281, 999)] == [
        "tench", "golden retriever", "tabby", "toilet tissue",
    ]  # fmt: skip
    assert find_label(imagenet, "Tabby") == 281
    assert dataset_labels("voc")[14] == "person" == dataset_labels("coco")[0]
    with pytest.raises(InputError, match=r"crane \(134\), crane \(517\)"):
        find_label(imagenet, "crane")
    with pytest.raises(InputError, match=r"Close: .*golden retriever"):
        find_label(imagenet, "goldn retriever")


def test_reading_labels(tmp_path):
    (tmp_path / "names.txt").write_text("cat\r\ndog\n", "utf-8")
    assert read_labels(tmp_path / "names.txt") == read_labels(["cat", "dog"]) == ("cat", "dog")
    (tmp_path / "empty.txt").touch()
    for wrong in (tmp_path / "missing.txt", tmp_path, tmp_path / "empty.txt", []):
        with pytest.raises(InputError, match="labels"):
            read_labels(wrong)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="text file"):
        read_labels(tmp_path / "binary.txt")
    with pytest.raises(InputTypeError, match="Expected names"):
        read_labels([1, 2])  # pyrefly: ignore[bad-argument-type]


def bilinear(pixels: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Triangle filter as wide as the reduction, along one axis, rounded to bytes."""
    length = pixels.shape[axis]
    scale = length / size
    support = max(scale, 1.0)
    positions = np.arange(length) + 0.5
    weights = []
    for i in range(size):
        row = np.maximum(0, 1 - np.abs(positions - (i + 0.5) * scale) / support)
        weights.append(row / row.sum())
    resized = np.moveaxis(np.tensordot(np.array(weights), pixels, (1, axis)), 0, axis)
    return np.floor(resized + 0.5)


@pytest.mark.parametrize("size", [(60, 45), (33, 90), (40, 40)])
def test_preprocessing_written_out(size):
    width, height = size
    pixels = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    recipe = Preprocessing(40, 32)
    new_width, new_height = (
        (40, int(40 * height / width)) if width <= height else (int(40 * width / height), 40)
    )
    resized = bilinear(bilinear(pixels.astype(float), new_width, 1), new_height, 0)
    top, left = round((new_height - 32) / 2), round((new_width - 32) / 2)
    expected = resized[top : top + 32, left : left + 32]
    crop = np.asarray(recipe.crop(picture))
    assert crop.shape == (32, 32, 3)
    assert np.abs(crop - expected).max() <= 1  # Pillow works in fixed point

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    array = recipe.normalise(recipe.crop(picture))
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, (crop / 255 - mean) / std, atol=1e-5)
    np.testing.assert_array_equal(recipe.normalise(recipe.crop(picture)), array)


def test_caffe_preprocessing():
    recipe = find_entry("resnet50_voc").preprocessing
    pixel = recipe.normalise(recipe.crop(Image.new("RGB", (300, 250), (200, 100, 50))))[100, 100]
    np.testing.assert_allclose(pixel, (200 - 123.68, 100 - 116.779, 50 - 103.939), rtol=1e-5)


def test_preprocessing_of_the_published_networks():
    """Resize, crop and filter as torchvision's weights say; all else is the default."""
    told = {
        name: (recipe.resize, recipe.size, recipe.interpolation)
        for name, entry in NETWORKS.items()
        if len(entry.labels) == 1000
        and (recipe := entry.preprocessing) != Preprocessing(256, 224, interpolation="bilinear")
    }
    assert told == {
        "efficientnet_b0": (256, 224, "bicubic"),
        "convnext_tiny": (236, 224, "bilinear"),
        "efficientnet_lite1": (272, 240, "bicubic"),
    }
    pixels = np.random.RandomState(0).randint(0, 256, (300, 280, 3)).astype(np.uint8)
    lite = find_entry("efficientnet_lite1").preprocessing
    crop = np.asarray(lite.crop(Image.fromarray(pixels)), np.float64)
    resized = Image.fromarray(pixels).resize((272, 291), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(crop, np.asarray(resized)[26:266, 16:256])
    np.testing.assert_allclose(
        lite.normalise(lite.crop(Image.fromarray(pixels))), (crop - 127) / 128, atol=1e-6
    )
    with pytest.raises(InputError, match="interpolation: Expected one of 'bilinear', 'bicubic'"):
        Preprocessing(interpolation="nearest")  # pyrefly: ignore[bad-argument-type]


def test_very_long_pictures():
    for size in ((1, 20_000), (20_000, 1), (1, 1)):
        assert Preprocessing().crop(Image.new("RGB", size)).size == (224, 224)
    with pytest.raises(InputError, match="size"):
        Preprocessing(resize=100, size=200)


def test_preprocessing_of_files(net, tmp_path):
    Image.new("L", (50, 60), 128).save(tmp_path / "grey.png")
    assert net.preprocess(tmp_path / "grey.png").shape == (32, 32, 3)
    assert net.crop(str(tmp_path / "grey.png")).size == (32, 32)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(DmbpError, match=r"text\.png"):
        net.preprocess(tmp_path / "text.png")


def test_the_list_of_networks():
    names = dmbp_jax.list_networks()
    assert set(names) == {
        "builtin", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
        "resnet50_voc", "vgg16_voc", "resnet50_coco", "vgg16_coco",
        "wide_resnet50_2", "resnext50_32x4d", "alexnet", "squeezenet1_0", "squeezenet1_1",
        "densenet121", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny",
        "vit_b_16", "efficientnet_lite1",
    }  # fmt: skip
    other_files = {
        "alexnet": "alexnet-owt",
        "efficientnet_b0": "efficientnet_b0_rwightman",
        "efficientnet_lite1": "efficientnet-lite1",
    }
    for name, entry in NETWORKS.items():
        assert hash(entry.preprocessing)
        assert entry.activation == ("softmax" if len(entry.labels) == 1000 else "sigmoid")
        if entry.checkpoint is None:
            continue
        # The file's name holds the first eight digits of its hash.
        digits = entry.checkpoint.file.rsplit("-", 1)[1].split(".")[0]
        assert len(digits) == 8
        assert entry.checkpoint.sha256.startswith(digits)
        assert len(entry.checkpoint.sha256) in (8, 64)
        assert entry.checkpoint.file == f"{other_files.get(name, name)}-{digits}.pth" + (
            ".tar" if entry.activation == "sigmoid" else ""
        )


def test_the_built_in_network():
    net = dmbp_jax.load("builtin")
    assert net.activation == "sigmoid"
    assert len(net.labels) == 10
    x = net.preprocess(Image.new("RGB", (200, 100), "white"))
    assert x.shape == (96, 96, 3)
    assert net(x).shape == (10,)
    assert bool(jnp.isfinite(net(x)).all())


def test_names_that_are_not_known():
    for wrong, near in (("resnet_50", "resnet50"), ("VGG16", "vgg16"), ("resnet50-voc", "_voc")):
        with pytest.raises(InputError, match=near):
            dmbp_jax.load(wrong)
    with pytest.raises(InputError, match="Known: builtin"):
        dmbp_jax.load("zzz")
    with pytest.raises(InputTypeError):
        dmbp_jax.load(50)  # pyrefly: ignore[bad-argument-type]


def test_weights_that_do_not_fit(net, tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        dmbp_jax.load("resnet18", weights=tmp_path / "missing.pth")
    save_variables(tmp_path / "small.safetensors", net.variables, {})
    with pytest.raises(KeyMismatchError, match=r"resnet18: .* missing"):
        dmbp_jax.load("resnet18", weights=tmp_path / "small.safetensors")


def test_it_is_pickled_and_copied(net):
    for same in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), copy.copy(net)):
        assert jax.tree.structure(same) == jax.tree.structure(net)  # compiled programs are shared
        jax.tree.map(np.testing.assert_array_equal, same.variables, net.variables)


def test_networks_of_the_registry_are_pickled():
    for entry in {id(entry): entry for entry in NETWORKS.values()}.values():
        assert pickle.loads(pickle.dumps(entry.module)) == entry.module
