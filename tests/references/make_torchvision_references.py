"""Write torchvision_networks.npz, the references of tests/zoo/test_models_torchvision.py.

    python tests/references/make_torchvision_references.py

Needs torch, torchvision and efficientnet_lite_pytorch. For every network in full size, and a small
one of each family: names and shapes of the state dict, and float64 logits of two pictures.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import picture, random_state
from efficientnet_lite_pytorch import EfficientNet as Lite  # pyrefly: ignore[missing-import]
from efficientnet_lite_pytorch.utils import (  # pyrefly: ignore[missing-import]
    BlockDecoder,
    get_model_params,
)
from torchvision import models
from torchvision_cases import FULL_SIDES, SMALL

HERE = Path(__file__).parent


def small_resnet(sizes: dict[str, Any], **width: int) -> torch.nn.Module:
    layers = list(sizes["stage_sizes"])
    block = models.resnet.Bottleneck
    return models.ResNet(block, layers, num_classes=sizes["classes"], **width)


def small_densenet(sizes: dict[str, Any]) -> torch.nn.Module:
    return models.DenseNet(
        sizes["growth"], sizes["block_sizes"], sizes["stem"], num_classes=sizes["classes"]
    )


def small_mobilenet_v2(sizes: dict[str, Any]) -> torch.nn.Module:
    setting = [[*stage[:3], stage[4]] for stage in sizes["stages"]]
    return models.MobileNetV2(sizes["classes"], inverted_residual_setting=setting)


def small_mobilenet_v3(sizes: dict[str, Any]) -> torch.nn.Module:
    setting, inputs = [], 16
    for kernel, expanded, features, squeezed, activation, stride in sizes["blocks"]:
        code = {"relu": "RE", "hard_swish": "HS"}[activation]
        block = models.mobilenetv3.InvertedResidualConfig(
            inputs, kernel, expanded, features, squeezed > 0, code, stride, 1, 1.0
        )
        setting.append(block)
        inputs = features
    return models.MobileNetV3(setting, sizes["hidden"], num_classes=sizes["classes"])


def small_efficientnet(sizes: dict[str, Any]) -> torch.nn.Module:
    setting, inputs = [], 32
    for expansion, features, size, kernel, stride in sizes["stages"]:
        stage = models.efficientnet.MBConvConfig(expansion, kernel, stride, inputs, features, size)
        setting.append(stage)
        inputs = features
    return models.EfficientNet(setting, dropout=0.2, num_classes=sizes["classes"])


def small_convnext(sizes: dict[str, Any]) -> torch.nn.Module:
    widths = sizes["widths"]
    setting = [
        models.convnext.CNBlockConfig(width, wider, size)
        for width, wider, size in zip(
            widths, (*widths[1:], None), sizes["stage_sizes"], strict=True
        )
    ]
    return models.ConvNeXt(setting, num_classes=sizes["classes"])


def small_vit(sizes: dict[str, Any]) -> torch.nn.Module:
    return models.VisionTransformer(
        sizes["image_size"],
        16,
        sizes["depth"],
        sizes["heads"],
        sizes["features"],
        sizes["hidden"],
        num_classes=sizes["classes"],
    )


def small_lite(sizes: dict[str, Any], side: int) -> torch.nn.Module:
    blocks, inputs = [], 32
    for expansion, features, size, kernel, stride in sizes["stages"]:
        blocks.append(f"r{size}_k{kernel}_s{stride}{stride}_e{expansion}_i{inputs}_o{features}")
        inputs = features
    changes = {"depth_coefficient": 1, "image_size": side, "num_classes": sizes["classes"]}
    _, settings = get_model_params("efficientnet-lite1", changes)
    return Lite(BlockDecoder.decode(blocks), settings)


SMALL_NETWORKS: dict[str, Callable[[dict[str, Any]], torch.nn.Module]] = {
    "wide_resnet50_2": lambda sizes: small_resnet(sizes, width_per_group=128),
    "resnext50_32x4d": lambda sizes: small_resnet(sizes, groups=32, width_per_group=4),
    "alexnet": lambda sizes: models.alexnet(num_classes=sizes["classes"]),
    "squeezenet1_0": lambda sizes: models.squeezenet1_0(num_classes=sizes["classes"]),
    "squeezenet1_1": lambda sizes: models.squeezenet1_1(num_classes=sizes["classes"]),
    "densenet121": small_densenet,
    "mobilenet_v2": small_mobilenet_v2,
    "mobilenet_v3_large": small_mobilenet_v3,
    "efficientnet_b0": small_efficientnet,
    "convnext_tiny": small_convnext,
    "vit_b_16": small_vit,
    "efficientnet_lite1": lambda sizes: small_lite(sizes, SMALL["efficientnet_lite1"].side),
}


def full(name: str) -> torch.nn.Module:
    """The published network, with its size of 224 (or other) replaced where it is fixed."""
    if name == "efficientnet_lite1":
        return Lite.from_name("efficientnet-lite1", image_size=FULL_SIDES[name])
    return models.get_model(name)


def reference(network: torch.nn.Module, side: int) -> tuple[str, np.ndarray]:
    """Names and shapes as JSON, and the logits with random weights."""
    shapes = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    state = {name: torch.from_numpy(array) for name, array in random_state(shapes).items()}
    network.load_state_dict(state)
    x = torch.from_numpy(picture(side)).double().permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network.double().eval()(x).numpy()
    print(f"{len(shapes):5} arrays, logits of standard deviation {logits.std():.3g}")
    return json.dumps(shapes), logits


def main() -> None:
    """Write everything."""
    stored: dict[str, Any] = {}
    for name, case in SMALL.items():
        print(f"{name:20} small", end=" ")
        network = SMALL_NETWORKS[name](case.sizes)
        stored[f"{name}/small/shapes"], stored[f"{name}/small/logits"] = reference(
            network, case.side
        )
    for name, side in FULL_SIDES.items():
        print(f"{name:20} full ", end=" ")
        stored[f"{name}/full/shapes"], logits = reference(full(name), side)
        stored[f"{name}/full/logits"] = logits.astype(np.float32)
    np.savez_compressed(HERE / "torchvision_networks.npz", **stored)


if __name__ == "__main__":
    main()
