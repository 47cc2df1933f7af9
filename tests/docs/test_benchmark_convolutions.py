"""`benchmarks/speed/convolutions.py`: the layers it finds, and that both sides compute the same."""

import numpy as np
import pytest

pytest.importorskip("torch")
from benchmarks.speed import convolutions

pytestmark = pytest.mark.slow


def test_vgg16_has_thirteen_convolutions_of_nine_kinds():
    layers = convolutions.find_layers("vgg16", 224)
    assert (len(layers), sum(map(len, layers.values()))) == (9, 13)
    total = sum(len(steps) * layer.gigaflops for layer, steps in layers.items())
    assert total == pytest.approx(30.7, abs=0.1)  # 15.35 GMAC (Simonyan and Zisserman's network)


def test_resnet50_has_its_convolutions():
    layers = convolutions.find_layers("resnet50", 224)
    assert sum(map(len, layers.values())) == 53
    assert {layer.stride for layer in layers} == {1, 2}


@pytest.mark.parametrize("network", ["vgg16", "resnet50"])
def test_xla_and_pytorch_compute_the_same(network):
    layers = sorted(convolutions.find_layers(network, 32).items(), key=lambda x: x[0].gigaflops)
    kinds = {(layer.window, layer.stride): (layer, steps) for layer, steps in layers}
    for layer, steps in kinds.values():
        forward, torch_forward, backward, torch_backward = (
            np.asarray(function()) for function in convolutions.contenders(layer, steps[0])
        )
        for ours, theirs in ((forward, torch_forward), (backward, torch_backward)):
            expected = theirs.transpose(0, 2, 3, 1)
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * expected.std())
