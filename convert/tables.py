"""Which PyTorch layer becomes which Flax layer: a table for each family of networks.

Names are torchvision's. timm and TorchRay call some layers otherwise, and so do older files of
torchvision; `RENAMES` translates.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from dmbp_jax.models.alexnet import AlexNet
from dmbp_jax.models.convnext import ConvNeXt
from dmbp_jax.models.densenet import DenseNet
from dmbp_jax.models.efficientnet import EfficientNet
from dmbp_jax.models.mobilenet import MobileNetV2, MobileNetV3
from dmbp_jax.models.resnet import ResNet
from dmbp_jax.models.squeezenet import SqueezeNet
from dmbp_jax.models.vgg import VGG
from dmbp_jax.models.vit import VisionTransformer
from dmbp_jax.networks.registry import Checkpoint

Shape = tuple[int, ...]


class Transform(NamedTuple):
    """From a PyTorch weight to a Flax kernel or scale."""

    # Weight shapes that give a kernel of this shape; the first is torchvision's.
    shapes: Callable[[Shape], tuple[Shape, ...]]
    apply: Callable[[np.ndarray, Shape], np.ndarray]  # weight and kernel shape -> kernel


class Layer(NamedTuple):
    """A row of the table, names as regular expressions and their replacements."""

    path: str  # of the layer in the Flax parameters
    source: str | None  # of its weight (and bias) in the state dict; None of a lone BatchNorm
    norm: str | None  # of the BatchNorm to fold into it
    transform: Transform  # of the weight
    bias: bool = True  # the source has one
    epsilon: float = 1e-5  # of the BatchNorm

    @property
    def name(self) -> str:
        """Its name in the state dict."""
        return self.source or self.norm or self.path


# (O, I, H, W) -> (H, W, I, O)
CONV = Transform(
    lambda kernel: ((kernel[3], kernel[2], kernel[0], kernel[1]),),
    lambda weight, kernel: weight.transpose(2, 3, 1, 0),
)
# The same for a first layer that expects blue, green, red.
CONV_BGR = Transform(CONV.shapes, lambda weight, kernel: weight.transpose(2, 3, 1, 0)[:, :, ::-1])
# (O, I) -> (I, O); timm and Caffe keep dense layers as 1×1 convolutions.
DENSE = Transform(
    lambda kernel: (kernel[::-1], (*kernel[::-1], 1, 1)),
    lambda weight, kernel: weight.reshape(kernel[::-1]).T,
)
# A number for each channel, in whatever shape; and parameters that stay as they are.
SCALE = Transform(
    lambda scale: (scale, (*scale, 1, 1)),
    lambda weight, scale: weight.reshape(scale),
)


def dense_behind(side: int) -> Transform:
    """The dense layer behind side × side positions: PyTorch flattens C, H, W and Flax H, W, C."""

    def shapes(kernel: Shape) -> tuple[Shape, ...]:
        return kernel[::-1], (kernel[1], kernel[0] // side**2, side, side)

    def apply(weight: np.ndarray, kernel: Shape) -> np.ndarray:
        channels_first = weight.reshape(kernel[1], -1, side, side)
        return channels_first.transpose(2, 3, 1, 0).reshape(kernel)

    return Transform(shapes, apply)


def find_layer(path: str, rows: tuple[Layer, ...]) -> Layer:
    """The row of a Flax layer, with its names filled in."""
    for row in rows:
        match = re.fullmatch(row.path, path)
        if match:
            source, norm = (
                None if name is None else match.expand(name) for name in (row.source, row.norm)
            )
            return row._replace(path=path, source=source, norm=norm)
    raise LookupError(f"No row of the table fits the layer {path}.")


# (pattern, replacement), tried in turn on every name of a state dict.
RENAMES: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ResNet: (
        # TorchRay: Caffe's BatchNorm and Scale layers, numbered 0 and 1.
        (r"\bbn(\d)\.[01]\.(?=\w)", r"bn\1."),
        (r"\bdownsample\.([01])\.[01]\.(?=\w)", r"downsample.\1."),
    ),
    VGG: (
        # timm: dense layers under other names.
        (r"^pre_logits\.fc1\.", "classifier.0."),
        (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."),
        # TorchRay: numbered without the dropout layers between them.
        (r"^classifier\.2\.", "classifier.3."),
        (r"^classifier\.4\.", "classifier.6."),
    ),
    # The published file is older than torchvision's rule that names have no dots.
    DenseNet: ((r"\b(norm|conv)\.([12])\.", r"\1\2."),),
    # Parameters without a layer of their own, and older names of the two dense layers.
    ConvNeXt: ((r"\blayer_scale$", "layer_scale.weight"),),
    VisionTransformer: (
        (r"^(class_token|encoder\.pos_embedding)$", r"\1.weight"),
        (r"\bin_proj_(weight|bias)$", r"in_proj.\1"),
        (r"\bmlp\.linear_1\.", "mlp.0."),
        (r"\bmlp\.linear_2\.", "mlp.3."),
    ),
}


def table(module: nn.Module, checkpoint: Checkpoint) -> tuple[Layer, ...]:
    """The rows of a network; of a checkpoint it matters if it has BatchNorm, or is Caffe's."""
    if isinstance(module, ResNet):
        return tuple(_resnet(checkpoint))
    if isinstance(module, VGG):
        return tuple(_vgg(module, checkpoint))
    return tuple(_FAMILIES[type(module)](module))


def _first(checkpoint: Checkpoint) -> Transform:
    """How the first convolution is turned; Caffe's expects blue first."""
    return CONV_BGR if checkpoint.bgr else CONV


def _resnet(checkpoint: Checkpoint) -> Iterable[Layer]:
    block, source = r"layer(\d+)_(\d+)", r"layer\1.\2"
    # Caffe's first convolution has a bias in front of its BatchNorm.
    yield Layer("conv1", "conv1", "bn1", _first(checkpoint), checkpoint.bgr)
    yield Layer(rf"{block}/conv(\d)", rf"{source}.conv\3", rf"{source}.bn\3", CONV, False)
    between = rf"{source}.downsample"
    yield Layer(rf"{block}/downsample", rf"{between}.0", rf"{between}.1", CONV, False)
    yield Layer("fc", "fc", None, DENSE)


def _vgg(module: VGG, checkpoint: Checkpoint) -> Iterable[Layer]:
    # torchvision numbers all layers in a row: convolution, (BatchNorm,) ReLU, …, max-pool.
    number = 0
    for i, size in enumerate(module.stage_sizes, 1):
        for j in range(1, size + 1):
            norm = f"features.{number + 1}" if checkpoint.batch_norm else None
            transform = _first(checkpoint) if number == 0 else CONV
            yield Layer(f"conv{i}_{j}", f"features.{number}", norm, transform)
            number += 3 if checkpoint.batch_norm else 2
        number += 1
    yield Layer("fc6", "classifier.0", None, dense_behind(7))
    yield Layer("fc7", "classifier.3", None, DENSE)
    yield Layer("fc8", "classifier.6", None, DENSE)


def _alexnet(module: AlexNet) -> Iterable[Layer]:
    for i, number in enumerate((0, 3, 6, 8, 10), 1):
        yield Layer(f"conv{i}", f"features.{number}", None, CONV)
    yield Layer("fc6", "classifier.1", None, dense_behind(6))
    yield Layer("fc7", "classifier.4", None, DENSE)
    yield Layer("fc8", "classifier.6", None, DENSE)


def _squeezenet(module: SqueezeNet) -> Iterable[Layer]:
    yield Layer("conv1", "features.0", None, CONV)
    number, fire = 2, 2  # of the first max-pool and of the first fire module
    for stage in module.stages:
        for _ in stage:
            number += 1
            yield Layer(rf"fire{fire}/(\w+)", rf"features.{number}.\1", None, CONV)
            fire += 1
        number += 1
    yield Layer("conv10", "classifier.1", None, CONV)


def _densenet(module: DenseNet) -> Iterable[Layer]:
    block, source = r"block(\d+)_(\d+)", r"features.denseblock\1.denselayer\2"
    yield Layer("conv0", "features.conv0", "features.norm0", CONV, False)
    yield Layer(rf"{block}/norm1", None, rf"{source}.norm1", SCALE, False)
    yield Layer(rf"{block}/conv1", rf"{source}.conv1", rf"{source}.norm2", CONV, False)
    yield Layer(rf"{block}/conv2", rf"{source}.conv2", None, CONV, False)
    yield Layer(r"(transition\d)/norm", None, r"features.\1.norm", SCALE, False)
    yield Layer(r"(transition\d)/conv", r"features.\1.conv", None, CONV, False)
    yield Layer("norm5", None, "features.norm5", SCALE, False)
    yield Layer("classifier", "classifier", None, DENSE)


def _mobilenet_v2(module: MobileNetV2) -> Iterable[Layer]:
    yield Layer("stem", "features.0.0", "features.0.1", CONV, False)
    number = 1
    for i, (expansion, _, size, _, _) in enumerate(module.stages, 1):
        for j in range(size):
            block, source = f"layer{i}_{j}", f"features.{number}.conv"
            inside = ("expand", "filter") if expansion != 1 else ("filter",)
            yield from _block(block, source, inside)
            last = len(inside)  # without an activation, torchvision numbers in one row
            yield Layer(f"{block}/project", f"{source}.{last}", f"{source}.{last + 1}", CONV, False)
            number += 1
    yield Layer("last", f"features.{number}.0", f"features.{number}.1", CONV, False)
    yield Layer("classifier", "classifier.1", None, DENSE)


def _block(block: str, source: str, names: Sequence[str], epsilon: float = 1e-5) -> Iterable[Layer]:
    """Rows of an inverted residual block: its parts in torchvision's order."""
    for i, name in enumerate(names):
        path, part = f"{block}/{name}", f"{source}.{i}"
        if name == "excite":
            yield Layer(f"{path}/squeeze", f"{part}.fc1", None, CONV)
            yield Layer(f"{path}/expand", f"{part}.fc2", None, CONV)
        else:
            yield Layer(path, f"{part}.0", f"{part}.1", CONV, False, epsilon)


def _mobilenet_v3(module: MobileNetV3) -> Iterable[Layer]:
    epsilon, inputs = 1e-3, module.stem
    yield Layer("stem", "features.0.0", "features.0.1", CONV, False, epsilon)
    for i, (_, expanded, features, squeezed, _, _) in enumerate(module.blocks, 1):
        names = (
            *(("expand",) if expanded != inputs else ()),
            "filter",
            *(("excite",) if squeezed else ()),
            "project",
        )
        yield from _block(f"block{i}", f"features.{i}.block", names, epsilon)
        inputs = features
    number = len(module.blocks) + 1
    yield Layer("last", f"features.{number}.0", f"features.{number}.1", CONV, False, epsilon)
    yield Layer("fc1", "classifier.0", None, DENSE)
    yield Layer("fc2", "classifier.3", None, DENSE)


def _convnext(module: ConvNeXt) -> Iterable[Layer]:
    yield Layer("stem", "features.0.0", None, CONV)
    yield Layer("stem_norm", "features.0.1", None, SCALE)
    for i in range(1, len(module.stage_sizes) + 1):
        between, stage = f"features.{2 * i - 2}", f"features.{2 * i - 1}"
        yield Layer(f"norm{i}", f"{between}.0", None, SCALE)
        yield Layer(f"downsample{i}", f"{between}.1", None, CONV)
        block, source = rf"layer{i}_(\d+)", rf"{stage}.\1"
        yield Layer(rf"{block}/filter", rf"{source}.block.0", None, CONV)
        yield Layer(rf"{block}/norm", rf"{source}.block.2", None, SCALE)
        yield Layer(rf"{block}/dense1", rf"{source}.block.3", None, DENSE)
        yield Layer(rf"{block}/dense2", rf"{source}.block.5", None, DENSE)
        yield Layer(rf"{block}/scale", rf"{source}.layer_scale", None, SCALE, False)
    yield Layer("norm", "classifier.0", None, SCALE)
    yield Layer("classifier", "classifier.2", None, DENSE)


def _vit(module: VisionTransformer) -> Iterable[Layer]:
    block, source = r"layer(\d+)", r"encoder.layers.encoder_layer_\1"
    yield Layer("patches", "conv_proj", None, CONV)
    yield Layer("class", "class_token", None, SCALE, False)
    yield Layer("position", "encoder.pos_embedding", None, SCALE, False)
    yield Layer(rf"{block}/norm(\d)", rf"{source}.ln_\2", None, SCALE)
    yield Layer(rf"{block}/attention/qkv", rf"{source}.self_attention.in_proj", None, DENSE)
    yield Layer(rf"{block}/attention/out", rf"{source}.self_attention.out_proj", None, DENSE)
    yield Layer(rf"{block}/dense1", rf"{source}.mlp.0", None, DENSE)
    yield Layer(rf"{block}/dense2", rf"{source}.mlp.3", None, DENSE)
    yield Layer("norm", "encoder.ln", None, SCALE)
    yield Layer("head", "heads.head", None, DENSE)


def _efficientnet(module: EfficientNet) -> Iterable[Layer]:
    return _efficientnet_b(module) if module.excite else _efficientnet_lite(module)


def _efficientnet_lite(module: EfficientNet) -> Iterable[Layer]:
    """Names of `efficientnet_lite_pytorch`, which numbers all blocks in a row."""
    row = Layer("stem", "_conv_stem", "_bn0", CONV, False, epsilon=1e-3)
    yield row
    number = 0
    for i, (_, _, size, _, _) in enumerate(module.stages, 1):
        for j in range(size):
            block, source = f"layer{i}_{j}", f"_blocks.{number}"
            for name, conv, norm in (
                ("expand", "_expand_conv", "_bn0"),
                ("filter", "_depthwise_conv", "_bn1"),
                ("project", "_project_conv", "_bn2"),
            ):
                yield row._replace(
                    path=f"{block}/{name}", source=f"{source}.{conv}", norm=f"{source}.{norm}"
                )
            number += 1
    yield row._replace(path="last", source="_conv_head", norm="_bn1")
    yield Layer("classifier", "_fc", None, DENSE)


def _efficientnet_b(module: EfficientNet) -> Iterable[Layer]:
    yield Layer("stem", "features.0.0", "features.0.1", CONV, False)
    for i, (expansion, *_) in enumerate(module.stages, 1):
        inside = ("expand", "filter") if expansion != 1 else ("filter",)
        block, source = rf"layer{i}_(\d+)", rf"features.{i}.\1.block"
        yield from _block(block, source, (*inside, "excite", "project"))
    number = len(module.stages) + 1
    yield Layer("last", f"features.{number}.0", f"features.{number}.1", CONV, False)
    yield Layer("classifier", "classifier.1", None, DENSE)


_FAMILIES: dict[type[nn.Module], Callable[[Any], Iterable[Layer]]] = {
    AlexNet: _alexnet,
    ConvNeXt: _convnext,
    DenseNet: _densenet,
    EfficientNet: _efficientnet,
    MobileNetV2: _mobilenet_v2,
    MobileNetV3: _mobilenet_v3,
    SqueezeNet: _squeezenet,
    VisionTransformer: _vit,
}
