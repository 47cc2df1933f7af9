"""Networks of other packages, unchanged: sites, completeness and three steps.

Needs the extra `ecosystem` and, for PyTorch, torchax; each test skips where its package is absent.
"""

import ecosystem
import pytest
from ecosystem_networks import ROWS

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Counted in the networks' papers or in their code: activations, pools, frozen factors.
EXPECTED = {
    # 1 + 16 blocks of 3, the first pool; VGG's 13 convolutions and 2 dense layers, 5 pools.
    "Keras ResNet50": ({"relu": 49}, {"max_pool": 1}, 0),
    "Keras VGG16": ({"relu": 15}, {"max_pool": 5}, 0),
    # 2 for each of 58 layers, 3 transitions, first and last.
    "Keras DenseNet121": ({"relu": 121}, {"max_pool": 1}, 0),
    "Keras InceptionV3": ({"relu": 94}, {"max_pool": 4}, 0),
    "Keras Xception": ({"relu": 35}, {"max_pool": 4}, 0),
    # First convolution, 13 blocks of 2. Then 2 for each of 17 blocks, less one, first and last.
    "Keras MobileNet": ({"relu6": 27}, {}, 0),
    "Keras MobileNetV2": ({"relu6": 35}, {}, 0),
    "Keras EfficientNetB0": ({"silu": 33}, {}, 16),
    "Keras ConvNeXtTiny": (18, {}, 23),
    "Haiku ResNet18": ({"relu": 17}, {"max_pool": 1}, 0),
    "flaxmodels ResNet18": ({"relu": 17}, {"max_pool": 1}, 0),
    "NNX CNN": ({"relu": 1, "silu": 1}, {"max_pool": 1}, 0),
    "Equinox CNN": ({"relu": 1, "select_n": 1}, {"max_pool": 1}, 0),
    "PyTorch ResNet18": ({"relu": 17}, {"max_pool": 1}, 0),
    "PyTorch MobileNetV2": ({"clip": 35}, {}, 0),
}
