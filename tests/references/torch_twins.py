"""ResNet and VGG in PyTorch with torchvision's names: the independent side of the logits tests.

torchvision is not needed. `caffe` gives the networks that TorchRay patches together.
"""

import torch
from torch import nn


class Block(nn.Module):
    """Basic block (`expansion` 1) or bottleneck (`expansion` 4)."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int, caffe: bool) -> None:
        super().__init__()
        outputs = width * expansion
        if expansion == 1:
            shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        else:
            first, second = (stride, 1) if caffe else (1, stride)
            shapes = [(inputs, width, 1, first), (width, width, 3, second), (width, outputs, 1, 1)]
        self.depth = len(shapes)
        for i, (a, b, size, step) in enumerate(shapes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, size, step, size // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """torchvision.models.resnet.ResNet, or TorchRay's Caffe variant of it."""

    def __init__(
        self,
        stage_sizes: tuple[int, ...],
        expansion: int,
        classes: int = 1000,
        width: int = 64,
        caffe: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=caffe)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 0 if caffe else 1, ceil_mode=caffe)
        inputs = width
        for i, size in enumerate(stage_sizes):
            blocks = []
            for j in range(size):
                stride = 2 if i and not j else 1
                blocks.append(Block(inputs, width * 2**i, stride, expansion, caffe))
                inputs = width * 2**i * expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.stages = len(stage_sizes)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    """torchvision.models.vgg.VGG, or TorchRay's Caffe variant of it."""

    def __init__(
        self,
        stage_sizes: tuple[int, ...],
        classes: int = 1000,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
        batch_norm: bool = False,
        caffe: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for size, width in zip(stage_sizes, widths, strict=True):
            for _ in range(size):
                layers.append(nn.Conv2d(inputs, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers.append(nn.ReLU())
                inputs = width
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=caffe))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 49, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
