"""Flax Linen networks, one file a family, with BatchNorm folded; and the small built-in network.

Modules are frozen, hashable dataclasses; every activation has a name scope of its own.
"""

from dmbp_jax.models.alexnet import AlexNet as AlexNet
from dmbp_jax.models.builtin import BuiltinNet as BuiltinNet
from dmbp_jax.models.convnext import ConvNeXt as ConvNeXt
from dmbp_jax.models.convnext import ConvNeXtTiny as ConvNeXtTiny
from dmbp_jax.models.densenet import DenseNet as DenseNet
from dmbp_jax.models.densenet import DenseNet121 as DenseNet121
from dmbp_jax.models.efficientnet import EfficientNet as EfficientNet
from dmbp_jax.models.efficientnet import EfficientNetB0 as EfficientNetB0
from dmbp_jax.models.efficientnet import EfficientNetLite1 as EfficientNetLite1
from dmbp_jax.models.mobilenet import MobileNetV2 as MobileNetV2
from dmbp_jax.models.mobilenet import MobileNetV3 as MobileNetV3
from dmbp_jax.models.mobilenet import MobileNetV3Large as MobileNetV3Large
from dmbp_jax.models.resnet import BasicBlock as BasicBlock
from dmbp_jax.models.resnet import Bottleneck as Bottleneck
from dmbp_jax.models.resnet import CaffeBottleneck as CaffeBottleneck
from dmbp_jax.models.resnet import CaffeResNet50 as CaffeResNet50
from dmbp_jax.models.resnet import ResNet as ResNet
from dmbp_jax.models.resnet import ResNet18 as ResNet18
from dmbp_jax.models.resnet import ResNet34 as ResNet34
from dmbp_jax.models.resnet import ResNet50 as ResNet50
from dmbp_jax.models.resnet import ResNet101 as ResNet101
from dmbp_jax.models.resnet import ResNet152 as ResNet152
from dmbp_jax.models.resnet import ResNeXt50 as ResNeXt50
from dmbp_jax.models.resnet import WideResNet50 as WideResNet50
from dmbp_jax.models.squeezenet import SqueezeNet as SqueezeNet
from dmbp_jax.models.squeezenet import SqueezeNet10 as SqueezeNet10
from dmbp_jax.models.squeezenet import SqueezeNet11 as SqueezeNet11
from dmbp_jax.models.vgg import VGG as VGG
from dmbp_jax.models.vgg import VGG11 as VGG11
from dmbp_jax.models.vgg import VGG13 as VGG13
from dmbp_jax.models.vgg import VGG16 as VGG16
from dmbp_jax.models.vgg import VGG19 as VGG19
from dmbp_jax.models.vgg import CaffeVGG16 as CaffeVGG16
from dmbp_jax.models.vit import VisionTransformer as VisionTransformer
from dmbp_jax.models.vit import ViTB16 as ViTB16
