"""Flax Linen networks, one file a family, with BatchNorm folded; and the small built-in network.

Modules are frozen, hashable dataclasses; every activation has a name scope of its own.
"""

from dmbp_jax.models.alexnet import AlexNet
from dmbp_jax.models.builtin import BuiltinNet
from dmbp_jax.models.convnext import ConvNeXt, ConvNeXtTiny
from dmbp_jax.models.densenet import DenseNet, DenseNet121
from dmbp_jax.models.efficientnet import EfficientNet, EfficientNetB0, EfficientNetLite1
from dmbp_jax.models.mobilenet import MobileNetV2, MobileNetV3, MobileNetV3Large
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
    ResNeXt50,
    WideResNet50,
)
from dmbp_jax.models.squeezenet import SqueezeNet, SqueezeNet10, SqueezeNet11
from dmbp_jax.models.vgg import VGG, VGG11, VGG13, VGG16, VGG19, CaffeVGG16
from dmbp_jax.models.vit import VisionTransformer, ViTB16

__all__ = [
    "VGG",
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "AlexNet",
    "BasicBlock",
    "Bottleneck",
    "BuiltinNet",
    "CaffeBottleneck",
    "CaffeResNet50",
    "CaffeVGG16",
    "ConvNeXt",
    "ConvNeXtTiny",
    "DenseNet",
    "DenseNet121",
    "EfficientNet",
    "EfficientNetB0",
    "EfficientNetLite1",
    "MobileNetV2",
    "MobileNetV3",
    "MobileNetV3Large",
    "ResNeXt50",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "SqueezeNet",
    "SqueezeNet10",
    "SqueezeNet11",
    "ViTB16",
    "VisionTransformer",
    "WideResNet50",
]
