"""The networks of torchvision: names, shapes and logits as stored from it, sites, completeness.

The references come from tests/references/make_torchvision_references.py. Networks of full size are
compared by names and shapes here, and by logits where DMBP_SLOW_TESTS=1 is set.
"""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.cases import picture, random_state
from references.torchvision_cases import FULL_SIDES, SMALL

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.convert.conversion import convert_entry
from dmbp_jax.dmbp.decomposition import attribution_by_backward
from dmbp_jax.errors import InputError, KeyMismatchError, NonAffineError
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace
from dmbp_jax.networks.network import Network
from dmbp_jax.networks.registry import Entry, find_entry

pytestmark = pytest.mark.slow
STORED = np.load(Path(__file__).parents[1] / "references" / "torchvision_networks.npz")
TOLERANCE = 1e-4  # of the largest logit, float32 against float64

# Networks whose operations another one has, too.
LIKE_ANOTHER = ("wide_resnet50_2", "squeezenet1_0")
# Networks with factors that attribution takes as constants at x.
GATED = ("mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "vit_b_16")
# Sites of the small networks, counted by hand from their sizes.
SITES = {
    "wide_resnet50_2": {"activation": 1 + 4 * 3, "max_pool": 1},
    "resnext50_32x4d": {"activation": 1 + 4 * 3, "max_pool": 1},
    "alexnet": {"activation": 7, "max_pool": 3},
    "squeezenet1_0": {"activation": 1 + 8 * 3 + 1, "max_pool": 3},
    "squeezenet1_1": {"activation": 1 + 8 * 3 + 1, "max_pool": 3},
    "densenet121": {"activation": 1 + 3 * 2 + 1 + 1, "max_pool": 1},
    "mobilenet_v2": {"activation": 1 + 1 + 4 * 2 + 1},
    "mobilenet_v3_large": {"activation": 1 + 1 + 2 * 2 + 1 + 1, "frozen": 2},
    "efficientnet_b0": {"activation": 1 + 1 + 2 * 2 + 1, "frozen": 3},
    "convnext_tiny": {"activation": 2, "frozen": 1 + 2 + 1 + 1},  # LayerNorms
    "vit_b_16": {"activation": 2, "frozen": 2 * 3 + 1},  # LayerNorms and softmax
    "efficientnet_lite1": {"activation": 1 + 1 + 4 * 2 + 1},
}


def shapes(name: str, size: str) -> list[tuple[str, list[int]]]:
    return json.loads(str(STORED[f"{name}/{size}/shapes"]))


@cache
def small(name: str) -> tuple[Entry, Network]:
    """The small network of a family, with its weights converted."""
    entry, case = find_entry(name), SMALL[name]
    recipe = replace(entry.preprocessing, resize=case.side, size=case.side)
    module = entry.module.clone(**case.sizes)
    entry = replace(entry, module=module, preprocessing=recipe)
    variables = convert_entry(random_state(shapes(name, "small")), name, entry)
    return entry, Network(module=entry.module, variables=variables)


def relative_error(logits, expected) -> float:
    return float(np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max())


def _told(name: str, size: str, error: float) -> float:
    """The error, printed for docs/weights.md (`pytest -s`)."""
    print(f"{name}, {size}: {error:.1e}")
    return error


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_torchvisions(name):
    _, net = small(name)
    expected = STORED[f"{name}/small/logits"]
    assert expected.std() > 0.1  # not a dead network
    logits = jax.jit(lambda net, x: net(x))(net, picture(SMALL[name].side))
    assert _told(name, "small", relative_error(logits, expected)) < TOLERANCE


@pytest.mark.skipif(not os.environ.get("DMBP_SLOW_TESTS"), reason="set DMBP_SLOW_TESTS=1")
@pytest.mark.parametrize("name", FULL_SIDES)
def test_logits_in_full_size(name):
    entry = find_entry(name)
    variables = convert_entry(random_state(shapes(name, "full")), name, entry)
    logits = jax.jit(entry.module.apply)(variables, picture(FULL_SIDES[name]))
    error = relative_error(logits, STORED[f"{name}/full/logits"])
    assert _told(name, "full size", error) < TOLERANCE


@pytest.mark.parametrize("name", FULL_SIDES)
def test_every_name_and_shape_of_the_published_network_is_used(name):
    """One placeholder more than torchvision has is all that conversion complains about."""
    state = {key: np.broadcast_to(np.float32(1), shape) for key, shape in shapes(name, "full")}
    with pytest.raises(KeyMismatchError) as caught:
        convert_entry(state | {"one.more": np.zeros(1)}, name, find_entry(name))
    assert str(caught.value) == f"{name}: 1 unused (one.more)."


def test_older_names_of_densenet():
    """The published file has dots inside the names of BatchNorm and convolution."""
    entry, net = small("densenet121")
    state = random_state(shapes("densenet121", "small"))
    old = {
        key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
    }  # fmt: skip
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    again = convert_entry(old, "densenet121", entry)
    jax.tree.map(np.testing.assert_array_equal, again, net.variables)


def test_older_names_of_the_vision_transformer():
    entry, net = small("vit_b_16")
    state = random_state(shapes("vit_b_16", "small"))
    old = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for key, value in state.items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in old
    again = convert_entry(old, "vit_b_16", entry)
    jax.tree.map(np.testing.assert_array_equal, again, net.variables)


@pytest.mark.parametrize("name", SMALL)
def test_fine_tuned_networks_are_told_to_give_their_classes(name):
    entry, _ = small(name)
    state = random_state(shapes(name, "small"))
    with pytest.raises(KeyMismatchError, match="pass their names as labels"):
        convert_entry(state, name, replace(entry, module=entry.module.clone(classes=9)))


@pytest.mark.parametrize("name", SMALL)
def test_sites_and_completeness(name):
    _, net = small(name)
    x = picture(SMALL[name].side)[:1]
    nonaffine = "freeze" if name in GATED else "refuse"
    found = dmbp_jax.sites(net, x, nonaffine=nonaffine)
    kinds = [("activation" if site.masked else site.kind) for site in found if site.kind != "bias"]
    assert {kind: kinds.count(kind) for kind in kinds} == SITES[name]
    names = [site.name for site in found if site.masked]
    assert len(set(names)) == len(names)

    label = int(np.abs(STORED[f"{name}/small/logits"][0]).argmax())

    @jax.jit
    def both(net, x):
        """∇ₓFᵀx + Σ biases with all masks 1, and F(x) − F₀."""
        graph = replace(
            trace(bind(net, None), x), linearisation=Linearisation(nonaffine=nonaffine)
        ).graph()
        frozen = graph.freeze(x)
        ones = [jnp.ones(site.shape) for site in graph.masked]
        by_backward, _ = attribution_by_backward(frozen, x, ones, jnp.int32(label))
        return by_backward, (frozen.fixed.logits - frozen.fixed.output_bias)[label]

    by_backward, expected = both(net, x)
    np.testing.assert_allclose(by_backward, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in LIKE_ANOTHER])
def test_three_steps(name):
    _, net = small(name)
    x = picture(SMALL[name].side)[0]
    label = int(np.abs(STORED[f"{name}/small/logits"][0]).argmax())
    nonaffine = "freeze" if name in GATED else "refuse"
    att = dmbp_jax.attribute(net, x, label, config=DMBP(steps=3), nonaffine=nonaffine)
    assert bool(att.status)
    assert att.map.shape == x.shape
    assert float(jnp.abs(att.positive).max()) > 0
    total = att.y_positive + att.y_negative + att.y_nuisance
    np.testing.assert_allclose(total, att.y, rtol=TOLERANCE)
    assert (np.diff(att.history[:, 0] - att.history[:, 1]) > 0).all()  # y⁺ − y⁻ rises


@pytest.mark.parametrize("name", GATED)
def test_gated_networks_are_refused_with_advice(name):
    _, net = small(name)
    with pytest.raises(NonAffineError, match='nonaffine="freeze" takes these factors'):
        dmbp_jax.attribute(net, picture(SMALL[name].side)[0], 0)


def test_pictures_of_another_size_do_not_fit_a_vision_transformer():
    _, net = small("vit_b_16")
    with pytest.raises(InputError, match="Expected 64×64 images, got 48×64"):
        net(np.zeros((48, 64, 3), np.float32))
