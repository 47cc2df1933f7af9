"""The protocol of a piece, by one that lives outside the package: a softplus of the user's own."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dmbp_jax
from dmbp_jax.errors import InputError, InputTypeError, NonAffineError
from dmbp_jax.graph.pieces import unregister_piece
from dmbp_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("x64")


@jax.jit
def gentle(z):
    return jnp.log1p(jnp.exp(z))


@dataclass(frozen=True)
class Gentle:
    """Softplus by its secant through f(0): slope (f(z) − f(0)) / z, intercept f(0)."""

    kind: ClassVar[str] = "mine"
    masked: ClassVar[bool] = True
    has_intercept: ClassVar[bool] = True

    @staticmethod
    def match(equation):
        return Gentle() if equation.is_call and equation.name == "gentle" else None

    def __call__(self, z):
        return gentle(z)

    def choose(self, z):
        return (gentle(z) - jnp.log(2.0)) / z

    def apply(self, choice, z):
        return choice * z + jnp.log(2.0)


@pytest.fixture
def registered():
    dmbp_jax.register_piece(Gentle)
    yield
    unregister_piece(Gentle)


RNG = np.random.default_rng(3)
PARAMS = {name: RNG.normal(size=shape) for name, shape in
          {"in": (12, 6), "bias": (6,), "mid": (6, 5), "out": (5, 3)}.items()}  # fmt: skip
X = RNG.normal(size=(2, 2, 3))
LABEL = 1


def network(params, x):
    h = gentle(x.reshape(len(x), -1) @ params["in"] + params["bias"])
    return gentle(h @ params["mid"]) @ params["out"]


def by_hand(x, masks):
    """F_σ in NumPy, with slopes and intercepts frozen at X."""
    exact, value = X.reshape(-1), x.reshape(-1)
    for weight, bias, mask in zip(("in", "mid"), (PARAMS["bias"], 0.0), masks, strict=True):
        at_x = exact @ PARAMS[weight] + bias
        slope = (np.log1p(np.exp(at_x)) - np.log(2)) / at_x
        value = mask * (slope * (value @ PARAMS[weight] + bias) + np.log(2))
        exact = np.log1p(np.exp(at_x))
    return (value @ PARAMS["out"])[LABEL]


def test_it_is_asked_before_the_packages_own_pieces(registered):
    kinds = [site.kind for site in dmbp_jax.sites(PARAMS, X, apply_fn=network)]
    assert kinds == ["mine", "mine", "bias", "bias", "bias"]
    unregister_piece(Gentle)
    kinds = [site.kind for site in dmbp_jax.sites(PARAMS, X, apply_fn=network)]
    assert kinds == ["gentle", "gentle", "bias", "bias", "bias"]
    dmbp_jax.register_piece(Gentle)


@jax.jit
def gated(z):
    return z * jax.nn.sigmoid(z.mean(-1, keepdims=True))


class Gated:
    """A product of two values that depend on x: its gate is frozen at x."""

    kind, masked, has_intercept = "gated", True, False

    @staticmethod
    def match(equation):
        return Gated() if equation.is_call and equation.name == "gated" else None

    def __call__(self, z):
        return gated(z)

    def choose(self, z):
        return jax.nn.sigmoid(z.mean(-1, keepdims=True))

    def apply(self, choice, z):
        return choice * z


def test_what_is_refused_before_is_found_after_registration():
    def network(params, x):
        return gated(x.reshape(len(x), -1) @ params["in"]) @ params["mid"]

    with pytest.raises(NonAffineError, match="'mul'"):
        dmbp_jax.sites(PARAMS, X, apply_fn=network)
    dmbp_jax.register_piece(Gated)
    try:
        masks = dmbp_jax.init_masks(PARAMS, X, 0.25, apply_fn=network)
        parts = dmbp_jax.decompose(PARAMS, X, LABEL, masks, apply_fn=network)
    finally:
        unregister_piece(Gated)
    logit = network(PARAMS, jnp.asarray(X)[None])[0, LABEL]
    np.testing.assert_allclose(parts.positive.sum(), 0.25 * logit, rtol=1e-12)


@dataclass(frozen=True)
class Sort:
    """GroupSort: what x fixes is the order, and it mixes the values of a group."""

    axis: int
    kind: ClassVar[str] = "sort"
    masked: ClassVar[bool] = True
    has_intercept: ClassVar[bool] = False

    @staticmethod
    def match(equation):
        if equation.is_call or equation.name != "sort":
            return None
        return Sort(equation.params["dimension"])

    def __call__(self, z):
        return jnp.sort(z, self.axis)

    def choose(self, z):
        return jnp.argsort(z, self.axis)

    def apply(self, choice, z):
        return jnp.take_along_axis(z, choice, self.axis)


def test_an_activation_over_groups_of_channels_is_the_literal_one():
    def network(params, x):
        h = x.reshape(len(x), -1) @ params["in"] + params["bias"]
        h = jnp.sort(h.reshape(-1, 2, 3), -1).reshape(-1, 6) @ params["mid"][:, :4]
        return jnp.sort(h.reshape(-1, 2, 2), -1).reshape(-1, 4) @ params["out"][:4]

    def by_hand(x, masks):
        exact, value = X.reshape(-1), x.reshape(-1)
        layers = (PARAMS["in"], PARAMS["bias"]), (PARAMS["mid"][:, :4], 0.0)
        for (weight, bias), mask in zip(layers, masks, strict=True):
            at_x = (exact @ weight + bias).reshape(mask.shape)
            order = np.argsort(at_x, -1)
            here = (value @ weight + bias).reshape(mask.shape)
            value = (mask * np.take_along_axis(here, order, -1)).reshape(-1)
            exact = np.take_along_axis(at_x, order, -1).reshape(-1)
        return (value @ PARAMS["out"][:4])[LABEL]

    masks = [RNG.uniform(size=(2, 3)), RNG.uniform(size=(2, 2))]
    dmbp_jax.register_piece(Sort)
    try:
        parts = dmbp_jax.decompose(PARAMS, X, LABEL, masks, apply_fn=network)
        config = dmbp_jax.DMBP(steps=30)
        learned = dmbp_jax.attribute(PARAMS, X, LABEL, apply_fn=network, config=config)
    finally:
        unregister_piece(Sort)
    logit = network(PARAMS, jnp.asarray(X)[None])[0, LABEL]
    np.testing.assert_allclose(parts.y, logit, rtol=1e-12)
    np.testing.assert_allclose(parts.y_positive, by_hand(X, masks), rtol=1e-9)
    np.testing.assert_allclose(parts.y_negative, by_hand(X, [1 - m for m in masks]), rtol=1e-9)
    by_unit = [by_hand(unit.reshape(X.shape), masks) - by_hand(0 * X, masks) for unit in np.eye(12)]
    np.testing.assert_allclose(parts.positive, np.reshape(by_unit, X.shape) * X, rtol=1e-9)
    assert learned.y_positive > learned.history[0, 0]
    rest = learned.y - learned.y_positive - learned.y_negative - learned.y_nuisance
    np.testing.assert_allclose(rest, 0, atol=1e-12)


def test_its_decomposition_is_the_literal_one(registered):
    masks = [RNG.uniform(size=6), RNG.uniform(size=5)]
    parts = dmbp_jax.decompose(PARAMS, X, LABEL, masks, apply_fn=network)
    logit = network(PARAMS, jnp.asarray(X)[None])[0, LABEL]
    np.testing.assert_allclose(parts.y, logit, rtol=1e-12)  # F_1 = F, and F_0 = 0 here
    np.testing.assert_allclose(parts.y_positive, by_hand(X, masks), rtol=1e-9)
    np.testing.assert_allclose(parts.y_negative, by_hand(X, [1 - m for m in masks]), rtol=1e-9)
    at_zero = by_hand(np.zeros_like(X), masks)
    by_unit = [by_hand(unit.reshape(X.shape), masks) - at_zero for unit in np.eye(12)]
    np.testing.assert_allclose(parts.positive, np.reshape(by_unit, X.shape) * X, rtol=1e-9)


def test_masks_are_learned_on_it(registered):
    config = dmbp_jax.DMBP(steps=30)
    result = dmbp_jax.attribute(PARAMS, X, LABEL, apply_fn=network, config=config)
    assert result.y_positive > result.history[0, 0]
    np.testing.assert_allclose(
        result.y, result.y_positive + result.y_negative + result.y_nuisance, rtol=1e-12
    )


def test_compared_methods_take_it(registered):
    heat, residual = METHODS["fullgrad"](PARAMS, X, LABEL, apply_fn=network, return_residual=True)
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    assert heat.shape == X.shape[:2]
    _, residual = METHODS["deeplift"](PARAMS, X, LABEL, apply_fn=network, return_residual=True)
    np.testing.assert_allclose(residual, 0, atol=1e-12)


def test_registration_is_checked(registered):
    with pytest.raises(InputError, match="family: Expected one that is not registered"):
        dmbp_jax.register_piece(Gentle)
    with pytest.raises(InputTypeError, match="match"):
        dmbp_jax.register_piece(int)
