"""The named networks: module, checkpoint, preprocessing, class names. One row each.

Checkpoints are torchvision's (`IMAGENET1K_V1`) and TorchRay's (VOC, COCO; networks of Zhang et
al., "Top-down Neural Attention by Excitation Backprop").
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
      url: where it is.
      sha256: its SHA-256, 64 hexadecimal digits; or the first 8, which are part of the file's
        name, where no more is known for certain.
      batch_norm: BatchNorm is stored apart from the convolutions.
      bgr: a Caffe network; its first convolution expects blue first.
    """

    url: str
    sha256: str
    batch_norm: bool
    bgr: bool = False

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[1]


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


def _torchvision(module: nn.Module, file: str, sha256: str, batch_norm: bool) -> Entry:
    url = f"https://download.pytorch.org/models/{file}"
    checkpoint = Checkpoint(url, sha256, batch_norm)
    return Entry(module, checkpoint, Preprocessing(), dataset_labels("imagenet"), "softmax")


def _torchray(module: nn.Module, file: str, sha256: str, batch_norm: bool, dataset: str) -> Entry:
    url = f"https://dl.fbaipublicfiles.com/torchray/{file}"
    checkpoint = Checkpoint(url, sha256, batch_norm, bgr=True)
    # TorchRay resizes to 224 and does not crop; cropping to a square lets pictures share a batch.
    caffe = Preprocessing(224, 224, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0), white=255.0)
    return Entry(module, checkpoint, caffe, dataset_labels(dataset), "sigmoid")


# A full hash stands here where at least two independent public records of it agree.
# fmt: off
NETWORKS: Mapping[str, Entry] = MappingProxyType({
    "builtin": Entry(
        models.BuiltinNet(), None,
        Preprocessing(INPUT_SHAPE[0], INPUT_SHAPE[0], (MEAN,) * 3, (STD,) * 3),
        CLASSES, "sigmoid"),
    "resnet18": _torchvision(
        models.ResNet18(), "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", True),
    "resnet34": _torchvision(
        models.ResNet34(), "resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f", True),
    "resnet50": _torchvision(
        models.ResNet50(), "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", True),
    "resnet101": _torchvision(
        models.ResNet101(), "resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a", True),
    "resnet152": _torchvision(
        models.ResNet152(), "resnet152-394f9c45.pth",
        "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58", True),
    "vgg11": _torchvision(models.VGG11(), "vgg11-8a719046.pth", "8a719046", False),
    "vgg13": _torchvision(models.VGG13(), "vgg13-19584684.pth", "19584684", False),
    "vgg16": _torchvision(
        models.VGG16(), "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", False),
    "vgg19": _torchvision(
        models.VGG19(), "vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44", False),
    "vgg11_bn": _torchvision(models.VGG11(), "vgg11_bn-6002323d.pth", "6002323d", True),
    "vgg13_bn": _torchvision(models.VGG13(), "vgg13_bn-abd245e5.pth", "abd245e5", True),
    "vgg16_bn": _torchvision(
        models.VGG16(), "vgg16_bn-6c64b313.pth",
        "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a", True),
    "vgg19_bn": _torchvision(
        models.VGG19(), "vgg19_bn-c79401a0.pth",
        "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6", True),
    "resnet50_voc": _torchray(
        models.CaffeResNet50(classes=20), "resnet50_voc-9ca920d6.pth.tar", "9ca920d6", True, "voc"),
    "vgg16_voc": _torchray(
        models.CaffeVGG16(classes=20), "vgg16_voc-b050e8c3.pth.tar", "b050e8c3", False, "voc"),
    "resnet50_coco": _torchray(
        models.CaffeResNet50(classes=80), "resnet50_coco-e99468c5.pth.tar", "e99468c5", True,
        "coco"),
    "vgg16_coco": _torchray(
        models.CaffeVGG16(classes=80), "vgg16_coco-d82c8150.pth.tar", "d82c8150", False, "coco"),
})
# fmt: on


def find_entry(name: str, classes: int | None = None) -> Entry:
    """The row of a name, its module rebuilt for another number of classes if asked to.

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
