"""The Flax modules: sizes, pooling against loops, names of the ReLUs, hashing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_methods import slow_beside

from dmbp_jax import models, sites
from dmbp_jax.errors import InputError
from dmbp_jax.models.layers import adaptive_average_pool, max_pool


def shapes_of(module, side: int):
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


def logits_shape(module, side: int) -> tuple[int, ...]:
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(module.apply, shapes_of(module, side), image).shape


# Parameters of torchvision's network, minus two for each channel of BatchNorm (scale and shift),
# plus the one (a bias) that folding gives the convolution. In DenseNet one BatchNorm of two stays.
@pytest.mark.parametrize(
    ("module", "published", "channels"),
    [
        (models.ResNet18(), 11_689_512, 4_800),
        (models.ResNet34(), 21_797_672, 8_512),
        (models.ResNet50(), 25_557_032, 26_560),
        (models.ResNet101(), 44_549_160, 52_672),
        pytest.param(models.ResNet152(), 60_192_808, 75_712, marks=pytest.mark.slow),
        (models.WideResNet50(), 68_883_240, 34_112),
        (models.ResNeXt50(), 25_028_904, 34_112),
        (models.AlexNet(), 61_100_840, 0),
        (models.SqueezeNet10(), 1_248_424, 0),
        (models.SqueezeNet11(), 1_235_496, 0),
        pytest.param(models.DenseNet121(), 7_978_856, 64 + 58 * 128, marks=pytest.mark.slow),
        (models.MobileNetV2(), 3_504_872, 17_056),
        pytest.param(models.MobileNetV3Large(), 5_483_032, 12_200, marks=pytest.mark.slow),
        pytest.param(models.EfficientNetB0(), 5_288_548, 21_008, marks=pytest.mark.slow),
        pytest.param(models.ConvNeXtTiny(), 28_589_128, 0, marks=pytest.mark.slow),
        (models.ViTB16(image_size=64), 86_567_656 - (196 - 16) * 768, 0),
        (models.VGG11(), 132_863_336, 0),
        (models.VGG13(), 133_047_848, 0),
        (models.VGG16(), 138_357_544, 0),
        (models.VGG19(), 143_667_240, 0),
    ],
)
def test_published_parameter_counts(module, published, channels):
    leaves = jax.tree.leaves(shapes_of(module, 64))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == published - channels


@pytest.mark.parametrize("side", slow_beside([32, 64, 224, 225], 32, 64, 224))
@pytest.mark.parametrize(
    "module",
    [models.ResNet18(), models.CaffeResNet50(), models.VGG11(), models.CaffeVGG16(classes=20)],
)
def test_any_input_size(module, side):
    assert logits_shape(module, side) == (2, module.classes)


def test_too_small_for_vgg():
    with pytest.raises(InputError, match="larger images"):
        logits_shape(models.VGG11(), 16)


def test_modules_are_hashable_values():
    assert models.ResNet50() == models.ResNet50()
    assert hash(models.ResNet50()) == hash(models.ResNet50())
    assert models.ResNet50() != models.CaffeResNet50()
    assert models.VGG16() != models.CaffeVGG16()


@pytest.mark.slow
def test_every_relu_has_its_name():
    net = models.ResNet50(stage_sizes=(1, 2), width=4, classes=3)
    x = jnp.zeros((1, 32, 32, 3))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes_of(net, 32))
    names = [site.name for site in sites(variables, x, apply_fn=net.apply) if site.kind == "relu"]
    assert [name.split("ResNet/")[1] for name in names] == [
        "relu1",
        *(f"layer1_0/relu{i}" for i in (1, 2, 3)),
        *(f"layer2_{j}/relu{i}" for j in (0, 1) for i in (1, 2, 3)),
    ]
    net = models.VGG16(widths=(2, 2, 2, 2, 2), hidden=4, classes=3)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes_of(net, 32))
    found = sites(variables, x, apply_fn=net.apply)
    names = [site.name.rsplit("/", 1)[1] for site in found if site.kind == "relu"]
    assert names[:3] == ["relu1_1", "relu1_2", "relu2_1"]
    assert names[-3:] == ["relu5_3", "relu6", "relu7"]
    assert len(names) == len(set(names)) == 15
    assert sum(site.kind == "max_pool" for site in found) == 5


def max_pool_loop(x, window, stride, padding, ceil_mode):
    """PyTorch's rule, one window at a time."""

    def starts(size):
        first = -padding
        while first < size:
            inside = first + window <= size + padding
            # A window that hangs over the edge counts while there is something left to cover.
            if inside or (ceil_mode and first - stride + window < size + padding):
                yield first
            first += stride

    def clip(first, size):
        return slice(max(first, 0), min(first + window, size))

    rows = [
        [x[:, clip(r, x.shape[1]), clip(c, x.shape[2])].max((1, 2)) for c in starts(x.shape[2])]
        for r in starts(x.shape[1])
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "ceil_mode"),
    [(3, 2, 1, False), (3, 2, 0, True), (2, 2, 0, False), (2, 2, 0, True), (2, 3, 1, True)],
)
def test_max_pool_against_a_loop(window, stride, padding, ceil_mode):
    for height, width in ((5, 6), (7, 8), (9, 11), (112, 13)):
        x = np.random.RandomState(height).standard_normal((2, height, width, 3)) - 5
        expected = max_pool_loop(x.astype(np.float32), window, stride, padding, ceil_mode)
        np.testing.assert_array_equal(max_pool(x, window, stride, padding, ceil_mode), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (8, 9), (14, 21), (6, 13)])
def test_adaptive_average_pool_against_a_loop(size):
    x = np.random.RandomState(0).standard_normal((2, *size, 3)).astype(np.float32)
    expected = np.zeros((2, 7, 7, 3))
    for i in range(7):
        for j in range(7):
            rows = slice(i * size[0] // 7, math.ceil((i + 1) * size[0] / 7))
            columns = slice(j * size[1] // 7, math.ceil((j + 1) * size[1] / 7))
            expected[:, i, j] = x[:, rows, columns].astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(adaptive_average_pool(jnp.asarray(x), 7), expected, atol=1e-6)


def test_the_caffe_bottleneck_strides_in_its_first_convolution():
    side = 64
    torchvision = models.ResNet50(stage_sizes=(1, 1), width=4)
    caffe = models.CaffeResNet50(stage_sizes=(1, 1), width=4)
    x = jnp.zeros((1, side, side, 3))
    for net, expected in ((torchvision, 16), (caffe, 8)):
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes_of(net, side))
        found = {site.name: site.shape for site in sites(variables, x, apply_fn=net.apply)}
        first = next(shape for name, shape in found.items() if name.endswith("layer2_0/relu1"))
        assert first[1] == expected
