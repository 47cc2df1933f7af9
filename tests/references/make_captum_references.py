"""Write captum_references.npz: what Captum says of a small PyTorch network, with its weights.

Run by hand where torch and captum are installed; `test_methods_captum.py` needs neither and
rebuilds the network in JAX from the stored weights.
"""

from pathlib import Path

import numpy as np
import torch
from captum.attr import (
    DeepLift,
    GuidedBackprop,
    GuidedGradCam,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Saliency,
)
from torch import nn

CLASSES, CHANNELS, SIZE, IMAGES = 5, 6, 16, 3


class Twin(nn.Module):
    """Convolution, BatchNorm, max-pool, a residual block, a convolution, average, dense."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(CHANNELS)
        self.pool = pool
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(CHANNELS)
        self.conv3 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(CHANNELS)
        self.conv4 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.linear = nn.Linear(CHANNELS, CLASSES)
        self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Captum hooks a ReLU's output and a pool's input; on one and the same tensor the hooks
        # see each other's gradients in the wrong order, hence the copy between them.
        x = self.pool(1.0 * self.relu1(self.bn1(self.conv1(x))))
        y = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(y)) + x)
        x = self.relu4(self.conv4(x))
        return self.linear(x.mean((2, 3)))


def random_twin(pool: nn.Module) -> Twin:
    """Weights and BatchNorm statistics from a fixed seed, float64, inference mode."""
    torch.manual_seed(0)
    net = Twin(pool).double().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 1.5)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        net.linear.weight.normal_()
        net.conv1.bias.normal_(0, 0.3)
        net.conv4.bias.normal_(0, 0.3)
    return net.float().double()  # values that float32 holds exactly


def nhwc(maps: torch.Tensor) -> np.ndarray:
    return maps.detach().numpy().transpose(0, 2, 3, 1)


def one_by_one(attribute, x: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Captum's rules partly mix the images of a batch, so it gets one at a time."""
    return nhwc(torch.cat([attribute(x[i : i + 1], labels[i : i + 1]) for i in range(len(x))]))


def main() -> None:
    overlapping = random_twin(nn.MaxPool2d(3, 2, 1))
    separate = random_twin(nn.MaxPool2d(2, 2))
    x = torch.randn(IMAGES, 3, SIZE, SIZE).double()
    labels = torch.tensor([0, 3, 4])
    cam = LayerGradCam(overlapping, overlapping.relu4)
    ig = IntegratedGradients(overlapping)

    def gradcam(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        heat = cam.attribute(x, target=label, relu_attributions=True)
        return LayerAttribution.interpolate(heat, (SIZE, SIZE), "bilinear")

    arrays = {
        "x": nhwc(x),
        "labels": labels.numpy(),
        "logits": overlapping(x).detach().numpy(),
        "gradient": one_by_one(
            lambda x, c: Saliency(overlapping).attribute(x, target=c, abs=False), x, labels
        ),
        "integrated_gradients": one_by_one(
            lambda x, c: ig.attribute(x, target=c, n_steps=50, method="gausslegendre"), x, labels
        ),
        "guided_backprop": one_by_one(
            lambda x, c: GuidedBackprop(overlapping).attribute(x, target=c), x, labels
        ),
        "gradcam": one_by_one(gradcam, x, labels)[..., 0],
        "guided_gradcam": one_by_one(
            lambda x, c: GuidedGradCam(overlapping, overlapping.relu4).attribute(
                x, target=c, interpolate_mode="bilinear"
            ),
            x,
            labels,
        ),
        "deeplift": one_by_one(lambda x, c: DeepLift(separate).attribute(x, target=c), x, labels),
    }
    for key, value in overlapping.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            arrays[f"weights/{key}"] = value.numpy()
    floats = {key: value.astype(np.float32) for key, value in arrays.items() if key != "labels"}
    np.savez_compressed(
        Path(__file__).with_name("captum_references.npz"), labels=arrays["labels"], **floats
    )


if __name__ == "__main__":
    main()
