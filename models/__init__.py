"""Flax Linen networks: ResNet and VGG with BatchNorm folded, and the small built-in network.

Modules are frozen, hashable dataclasses; every ReLU has a name scope of its own.
"""

from dmbp_jax.models.builtin import BuiltinNet
from dmbp_jax.models.resnet import (
    BasicBlock,
    Bottleneck,
    CaffeBottleneck,
    CaffeResNet50,
    ResNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
)
from dmbp_jax.models.vgg import VGG, VGG11, VGG13, VGG16, VGG19, CaffeVGG16

__all__ = [
    "VGG",
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "BasicBlock",
    "Bottleneck",
    "BuiltinNet",
    "CaffeBottleneck",
    "CaffeResNet50",
    "CaffeVGG16",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
]
