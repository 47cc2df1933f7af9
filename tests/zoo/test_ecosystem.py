"""Networks of other packages, unchanged: what is found in them, completeness, three steps.

Needs the extra `ecosystem`, and torchax for PyTorch; skips where a package is absent.
"""

import pytest

from benchmarks.ecosystem.ecosystem import ROWS, STEPS, measure

pytestmark = pytest.mark.slow
# Counted in the networks' own code: activations, pools, frozen factors.
FOUND = {
    "Keras ResNet50": ({"relu": 49}, {"max_pool": 1}, 0),
    "Keras VGG16": ({"relu": 15}, {"max_pool": 5}, 0),
    "Keras DenseNet121": ({"relu": 121}, {"max_pool": 1}, 0),
    "Keras InceptionV3": ({"relu": 94}, {"max_pool": 4}, 0),
    "Keras Xception": ({"relu": 35}, {"max_pool": 4}, 0),
    "Keras MobileNet": ({"relu6": 27}, {}, 0),
    "Keras MobileNetV2": ({"relu6": 35}, {}, 0),
    # Squeeze-and-excite in 8 and in 16 blocks; activations inside it are parts of the gate.
    "Keras MobileNetV3Large": ({"relu": 11, "hard_silu": 21}, {}, 8),
    "Keras EfficientNetB0": ({"silu": 33}, {}, 16),
    # LayerNorm: 18 blocks, 3 reductions, stem and head. A GELU that is inlined has no name.
    "Keras ConvNeXtTiny": ({"pointwise": 18}, {}, 23),
    "Haiku ResNet18": ({"relu": 17}, {"max_pool": 1}, 0),
    "Haiku ResNet50": ({"relu": 49}, {"max_pool": 1}, 0),
    # 2 GroupNorms, 2 LayerNorms, the softmax.
    "Linen CNN with attention": ({"pointwise": 2, "relu": 1}, {}, 5),
    "NNX CNN": ({"relu": 1, "silu": 1}, {"max_pool": 1}, 0),
    "Equinox CNN": ({"relu": 1, "pointwise": 1}, {"max_pool": 1}, 0),
    "flaxmodels ResNet18": ({"relu": 17}, {"max_pool": 1}, 0),
    # Two LayerNorms and a softmax a block, the last LayerNorm.
    "Equimo ViT-Ti": ({"pointwise": 12}, {}, 37),
    "Equimo ConvNeXt-T": ({"pointwise": 18}, {}, 23),
    # Squeeze-and-excite in 9 blocks, GroupNorm after 34 convolutions.
    "Equimo MobileNetV3-S": ({"relu": 6, "hard_silu": 17}, {}, 43),
    "PyTorch ResNet18": ({"relu": 17}, {"max_pool": 1}, 0),
    "PyTorch MobileNetV2": ({"clip": 35}, {}, 0),
    "PyTorch ViT": ({"pointwise": 4}, {}, 13),
}


def test_every_network_of_the_table_is_tested():
    assert list(FOUND) == list(ROWS)


@pytest.mark.filterwarnings("default")  # of other packages
@pytest.mark.parametrize("name", FOUND)
def test_a_network_of_another_package_is_decomposed_as_it_is(name):
    for module in ROWS[name].modules:
        # AttributeError: how the import of torchax ends beside a PyTorch that is too new.
        pytest.importorskip(module, exc_type=(ImportError, AttributeError))
    found = measure(ROWS[name].build(), timed=False)
    assert found.logits < 1e-4  # F_1 = F, F by the package's own code
    assert found.completeness < 1e-4
    assert found.steps == STEPS
    assert (found.activations, found.pools, found.frozen) == FOUND[name]
