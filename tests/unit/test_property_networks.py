"""Random networks of supported pieces against a literal oracle; others are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jax import lax
from random_networks import CLASSES, IMAGE, Frozen, InJax, layers, make_params, networks, run

import dmbp_jax
from dmbp_jax.errors import ControlFlowError, NonAffineError, UnsupportedNetworkError

pytestmark = pytest.mark.usefixtures("x64")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
few = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def oracle(network, params, x, label, masks):
    """F_σ(x), F_σ(0) and ∇ₓF_σ ⊙ x of the network frozen at x, one unit vector at a time."""
    plain = Frozen()
    run(network, params, x[None], plain)
    points = np.concatenate([x[None], 0 * x[None], np.eye(x.size).reshape(-1, *IMAGE)])
    frozen = Frozen(masks, plain.met)
    at_x, at_zero, *units = run(network, params, points, frozen)[:, label]
    assert frozen.used == len(masks)
    return at_x, at_zero, (np.array(units) - at_zero).reshape(IMAGE) * x


@pytest.mark.slow
@few
@given(network=networks(), seed=st.integers(0, 99), label=st.integers(0, CLASSES - 1))
def test_a_random_network_is_decomposed_as_by_hand(network, seed, label):
    params, rng = make_params(network, seed), np.random.default_rng(seed)
    x = rng.normal(size=IMAGE)

    def apply_fn(params, x):
        return run(network, params, x, InJax())

    logits = run(network, params, x[None], Frozen())[0]
    np.testing.assert_allclose(apply_fn(params, x[None])[0], logits, **CLOSE)
    sites = [site for site in dmbp_jax.sites(params, x, apply_fn=apply_fn) if site.masked]
    masks = [rng.uniform(size=site.shape) for site in sites]
    _, bias, _ = oracle(network, params, x, label, [0 * mask for mask in masks])
    for chosen in ([np.ones_like(mask) for mask in masks], masks):
        with jax.disable_jit():  # each network is met once: nothing is worth compiling
            parts = dmbp_jax.decompose(params, x, label, [m[0] for m in chosen], apply_fn=apply_fn)
        positive, at_zero, heat = oracle(network, params, x, label, chosen)
        negative, _, other = oracle(network, params, x, label, [1 - mask for mask in chosen])
        np.testing.assert_allclose(parts.y, logits[label] - bias, **CLOSE)  # F is exact at x
        np.testing.assert_allclose(parts.y_positive, positive - bias, **CLOSE)
        np.testing.assert_allclose(parts.y_negative, negative - bias, **CLOSE)
        np.testing.assert_allclose(parts.positive, heat, **CLOSE)
        np.testing.assert_allclose(parts.negative, other, **CLOSE)
        total = parts.y_positive + parts.y_negative + parts.y_nuisance
        np.testing.assert_allclose(total, parts.y, **CLOSE)
        # Complete: the pixels, and what the biases bring in at x = 0.
        np.testing.assert_allclose(parts.positive.sum() + at_zero - bias, parts.y_positive, **CLOSE)


def _gathered(x):
    best = jnp.argmax(x, axis=-1)[..., None]
    return x + jnp.take_along_axis(x, best, axis=-1)


def _of_one_image(function):
    """A decision for a batch would mix its images, which is refused by another name."""

    def layer(x):
        if len(x) != 1:
            raise ValueError(f"Expected one image, got {len(x)}.")
        return function(x)

    return layer


UNSUPPORTED = {  # name -> layer, operations that may be named, error
    "product": (lambda x: x * jnp.flip(x, 1), "mul", NonAffineError),
    "quotient": (lambda x: x / (2 + jnp.flip(x, 1)), "div", NonAffineError),
    "sort": (lambda x: jnp.sort(x, 2), "sort", NonAffineError),
    "argmax": (_gathered, "argmax", NonAffineError),
    "round": (jnp.round, "round", NonAffineError),
    "cumulative product": (lambda x: lax.cumprod(x, 1), "cumprod", NonAffineError),
    "norm": (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), "div", NonAffineError),
    "softmax": (lambda x: jax.nn.softmax(x, axis=-1), "div|exp|stop_gradient", NonAffineError),
    "while": (
        _of_one_image(lambda x: lax.while_loop(lambda h: h.sum() > 1, lambda h: h / 2, x)),
        "while",
        ControlFlowError,
    ),
    "cond": (
        _of_one_image(lambda x: lax.cond(x.sum() > 0, lambda h: h, lambda h: 2 * h, x)),
        "cond|gt",
        UnsupportedNetworkError,
    ),
}


@settings(few, max_examples=20)
@given(
    before=layers(1),
    after=layers(0),
    name=st.sampled_from(sorted(UNSUPPORTED)),
    place=st.sampled_from(["top", "residual", "maximum"]),
    in_scan=st.booleans(),
)
@pytest.mark.slow
def test_a_random_unsupported_network_is_refused_by_name(before, after, name, place, in_scan):
    function, operations, error = UNSUPPORTED[name]

    def bad(x):
        with jax.named_scope("here"):
            return function(x)

    def scanned(x):
        return lax.scan(lambda h, _: (jnp.broadcast_to(bad(h), h.shape), None), x, None, length=2)[
            0
        ]

    inner = [("convolution",), ("bad",), ("activation", "relu")]
    middle = {
        "top": inner,
        "residual": [("residual", inner)],
        "maximum": [("maximum", inner, after)],
    }[place]
    network = [*before, *middle, *after]
    params = make_params(network, 0)

    def apply_fn(params, x):
        return run(network, params, x, InJax(), {"bad": scanned if in_scan else bad})

    scope = r"scan\[\d\]/here|here\[\d\]" if in_scan else "here"
    with pytest.raises(error, match=rf"'({operations})' at '(.*/)?({scope})"):
        dmbp_jax.sites(params, np.zeros(IMAGE), apply_fn=apply_fn)
