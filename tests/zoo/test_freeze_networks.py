"""A vision transformer and a ConvNeXt with frozen gates, against literal NumPy in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frozen_oracle import Frozen, add, attention, dense, each, gelu, normalise

import dmbp_jax
from dmbp_jax.graph.call import check_call
from dmbp_jax.methods import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]
LABEL = 2
X = np.random.default_rng(21).normal(size=(8, 8, 3))


class ViT(nn.Module):
    """Two pre-norm blocks on four patches, a class token and learned positions."""

    width: int = 8

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (4, 4), (4, 4), name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("token", nn.initializers.normal(1.0), (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(1.0), (1, 5, self.width))
        for block in range(2):
            h = nn.LayerNorm(name=f"norm1_{block}")(x)
            x = x + nn.MultiHeadDotProductAttention(2, name=f"attention_{block}")(h)
            h = nn.LayerNorm(name=f"norm2_{block}")(x)
            h = nn.gelu(nn.Dense(2 * self.width, name=f"wide_{block}")(h))
            x = x + nn.Dense(self.width, name=f"narrow_{block}")(h)
        return nn.Dense(4, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])


def vit_by_hand(p, x, masks):
    patches = each(x, lambda a: a.reshape(2, 4, 2, 4, 3).swapaxes(1, 2).reshape(4, 48))
    kernel = np.asarray(p["patches"]["kernel"]).reshape(48, -1)
    x = dense({"kernel": kernel, "bias": p["patches"]["bias"]}, patches)
    token, positions = np.asarray(p["token"])[0], np.asarray(p["positions"])[0]
    x = each(x, lambda a: np.concatenate([token, a]) + positions)
    for block, mask in enumerate(masks):
        h = normalise(p[f"norm1_{block}"], x, (-1,), 1e-6)
        x = add(x, attention(p[f"attention_{block}"], h))
        h = dense(p[f"wide_{block}"], normalise(p[f"norm2_{block}"], x, (-1,), 1e-6))
        x = add(x, dense(p[f"narrow_{block}"], gelu(h, mask)))
    return dense(p["head"], each(normalise(p["norm"], x, (-1,), 1e-6), lambda a: a[0]))


class ConvNeXt(nn.Module):
    """Stem, one block with layer scale, and the head of torchvision's network."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm0")(nn.Conv(6, (2, 2), (2, 2), name="stem")(x))
        h = nn.Conv(6, (3, 3), feature_group_count=6, name="depthwise")(x)
        h = nn.Dense(12, name="wide")(nn.LayerNorm(name="norm1")(h))
        h = nn.Dense(6, name="narrow")(nn.gelu(h))
        x = x + self.param("scale", nn.initializers.normal(1.0), (6,)) * h
        return nn.Dense(4, name="head")(nn.LayerNorm(name="norm")(x.mean((1, 2))))


def _depthwise(kernel, a):
    padded = np.pad(a, ((1, 1), (1, 1), (0, 0)))
    rows, columns = a.shape[:2]
    return sum(
        padded[i : i + rows, j : j + columns] * kernel[i, j, 0] for i in range(3) for j in range(3)
    )


def convnext_by_hand(p, x, masks):
    patches = each(x, lambda a: a.reshape(4, 2, 4, 2, 3).swapaxes(1, 2).reshape(4, 4, 12))
    kernel = np.asarray(p["stem"]["kernel"]).reshape(12, -1)
    x = dense({"kernel": kernel, "bias": p["stem"]["bias"]}, patches)
    x = normalise(p["norm0"], x, (-1,), 1e-6)
    kernel, bias = (np.asarray(p["depthwise"][name]) for name in ("kernel", "bias"))
    h = each(x, lambda a: _depthwise(kernel, a) + bias)
    h = gelu(dense(p["wide"], normalise(p["norm1"], h, (-1,), 1e-6)), masks[0])
    x = add(x, each(dense(p["narrow"], h), lambda a: np.asarray(p["scale"]) * a))
    h = normalise(p["norm"], each(x, lambda a: a.mean((0, 1))), (-1,), 1e-6)
    return dense(p["head"], h)


NETWORKS = {
    "ViT": (ViT(), vit_by_hand, [(5, 16), (5, 16)], 7),
    "ConvNeXt": (ConvNeXt(), convnext_by_hand, [(4, 4, 12)], 3),
}


def _case(name):
    net, by_hand, shapes, frozen = NETWORKS[name]
    rng = np.random.default_rng(5)
    variables = jax.tree.map(
        lambda a: jnp.asarray(a + 0.2 * rng.normal(size=a.shape)),
        net.init(jax.random.key(3), X[None]),
    )
    oracle = Frozen(lambda x, masks: by_hand(variables["params"], x, masks), X, LABEL, len(shapes))
    return net, variables, oracle, [rng.uniform(size=shape) for shape in shapes], frozen


@pytest.mark.parametrize("name", NETWORKS)
def test_the_decomposition_is_the_literal_one(name):
    net, variables, oracle, masks, count = _case(name)
    np.testing.assert_allclose(oracle.logits, net.apply(variables, X[None])[0], rtol=1e-9)
    sites = dmbp_jax.sites(variables, X, apply_fn=net.apply, nonaffine="freeze")
    assert sum(site.kind == "frozen" for site in sites) == count
    for chosen in ([np.ones_like(mask) for mask in masks], masks):
        parts = dmbp_jax.decompose(
            variables, X, LABEL, chosen, apply_fn=net.apply, nonaffine="freeze"
        )
        found = parts.y, parts.y_positive, parts.y_negative
        np.testing.assert_allclose(found, oracle.terms(chosen), rtol=1e-9, atol=1e-11)
        expected = oracle.attribution(chosen)
        np.testing.assert_allclose(parts.positive, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("evidence", ["all", "input"])
def test_from_end_to_end(evidence):
    net, variables, oracle, _, _ = _case("ViT")
    config = dmbp_jax.DMBP(steps=12, learning_rate=0.1, evidence=evidence)
    images = np.stack([X, X[::-1]])
    result = dmbp_jax.attribute(
        variables, images, LABEL, apply_fn=net.apply, config=config, nonaffine="freeze",
        return_masks=True, chunk_size=1,
    )  # fmt: skip
    assert result.frozen == (
        *("ViT/norm1_0/rsqrt", "ViT/attention_0/softmax", "ViT/norm2_0/rsqrt"),
        *("ViT/norm1_1/rsqrt", "ViT/attention_1/softmax", "ViT/norm2_1/rsqrt"),
        "ViT/norm/rsqrt",
    )
    assert result.status.all()
    whole = result.y_positive + result.y_negative + result.y_nuisance + result.y_bias
    np.testing.assert_allclose(whole, result.y, rtol=1e-9)
    masks = [mask[0] for mask in result.masks]
    np.testing.assert_allclose(result.positive[0], oracle.attribution(masks), rtol=1e-7, atol=1e-9)
    y, y_positive, _ = oracle.terms(masks)
    np.testing.assert_allclose(result.y[0], y, rtol=1e-9)
    by_pixels = oracle.attribution(masks).sum()
    expected = y_positive if evidence == "all" else by_pixels
    np.testing.assert_allclose(result.y_positive[0], expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["fullgrad", "deeplift"])
def test_complete_methods_are_complete(name):
    net, variables, _, _, _ = _case("ViT")
    heat, residual = METHODS[name](
        variables, X, LABEL, apply_fn=net.apply, nonaffine="freeze", return_residual=True
    )
    np.testing.assert_allclose(residual, 0, atol=1e-9)
    assert heat.any()


def test_gradients_are_the_ordinary_ones():
    """A rule that freezes nothing sees the network itself, gates and all."""
    net, variables, _, _, _ = _case("ViT")
    call = check_call(variables, X, apply_fn=net.apply, nonaffine="freeze")
    graph = call.network.graph()
    ours = jax.jit(jax.grad(lambda x: graph.run(x)[0, LABEL]))(call.images)
    theirs = jax.grad(lambda x: net.apply(variables, x)[0, LABEL])(call.images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
