"""The networks of torchvision whose names, shapes and logits are stored; needs no torchvision.

`random_state` makes their weights from the names, so that the weights need not be stored.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Small:
    """A small network of a family.

    Attributes:
      network: row of the registry that it stands for.
      sizes: arguments of our module that make it small.
      side: of the input pictures.
    """

    network: str
    sizes: dict[str, Any] = field(default_factory=dict)
    side: int = 64


SMALL = {
    case.network: case
    for case in (
        Small("wide_resnet50_2", {"stage_sizes": (1, 1, 1, 1), "classes": 7}),
        Small("resnext50_32x4d", {"stage_sizes": (1, 1, 1, 1), "classes": 7}),
        Small("alexnet", {"classes": 7}),
        Small("squeezenet1_0", {"classes": 7}),
        Small("squeezenet1_1", {"classes": 7}),
        Small("densenet121", {"block_sizes": (2, 1), "growth": 8, "stem": 16, "classes": 7}),
        Small(
            "mobilenet_v2",
            {
                "stages": ((1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 32, 2, 3, 1)),
                "last": 1280,
                "classes": 7,
            },
        ),
        Small(
            "mobilenet_v3_large",
            {
                "blocks": (
                    (3, 16, 16, 0, "relu", 1),
                    (5, 48, 16, 16, "relu", 1),
                    (3, 72, 24, 24, "hard_swish", 2),
                ),
                "last": 6 * 24,
                "hidden": 32,
                "classes": 7,
            },
        ),
        Small(
            "efficientnet_b0",
            {
                "stages": ((1, 16, 1, 3, 1), (6, 24, 1, 3, 2), (6, 24, 1, 5, 1)),
                "last": 4 * 24,
                "classes": 7,
            },
        ),
        Small("convnext_tiny", {"stage_sizes": (1, 1), "widths": (8, 16), "classes": 7}),
        Small(
            "vit_b_16",
            {
                "image_size": 64,
                "depth": 2,
                "heads": 2,
                "features": 24,
                "hidden": 48,
                "classes": 7,
            },
        ),
        Small(
            "efficientnet_lite1",
            {"stages": ((1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2)), "classes": 7},
            side=60,  # odd inside the network, where TensorFlow's padding differs from PyTorch's
        ),
    )
}

# Side of the picture for each network of full size.
FULL_SIDES = dict.fromkeys(SMALL, 64) | {"vit_b_16": 224}
