"""Networks of other packages, taken as they are: random weights, small images, ten classes.

Each builder is the recipe of docs/ecosystem.md. `ecosystem.py` measures them, the tests take some.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CLASSES = 10


class Foreign(NamedTuple):
    """A network of another package: `apply_fn(params, x) -> logits`, x (N, size, size, 3)."""

    params: Any
    apply_fn: Callable[[Any, jax.Array], Any]
    size: int


class Row(NamedTuple):
    """One line of the table: how the network is built, and the packages that it needs."""

    build: Callable[[], Foreign]
    packages: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def versions(self) -> str:
        """Packages with their versions."""
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


def roughen(params: Any, seed: int = 0) -> Any:
    """The same arrays, with noise on biases, statistics and whatever starts at zero.

    A fresh network adds no biases, and its last scales are zero: nothing would be tested there.
    """
    rng = np.random.default_rng(seed)

    def noisy(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        value = np.asarray(leaf)
        if value.size and (value.size == max(value.shape, default=1) or not value.any()):
            return jnp.asarray(value + 0.1 * rng.normal(size=value.shape), value.dtype)
        return leaf

    return jax.tree.map(noisy, params)


def keras_network(name: str, size: int = 64, **options: Any) -> Foreign:
    """A network of `keras.applications`, on the JAX backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError("Keras was imported with another backend than JAX.")
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
        **options,
    )
    params = (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )
    return Foreign(
        roughen(params), lambda params, x: model.stateless_call(*params, x, training=False)[0], size
    )


def haiku_network(name: str, size: int = 32) -> Foreign:
    """A network of `haiku.nets`."""
    import haiku as hk

    network = hk.without_apply_rng(
        hk.transform_with_state(lambda x, train: getattr(hk.nets, name)(CLASSES)(x, train))
    )
    pictures = jax.random.normal(jax.random.key(1), (8, size, size, 3))
    init, apply = (jax.jit(f, static_argnums=n) for f, n in ((network.init, 2), (network.apply, 3)))
    weights, statistics = init(jax.random.key(0), pictures, True)
    weights = roughen(weights)
    _, statistics = apply(weights, statistics, pictures, True)  # a variance of 0 at first
    return Foreign(
        (weights, statistics), lambda params, x: network.apply(*params, x, False)[0], size
    )


def flaxmodels_network(name: str, size: int = 32) -> Foreign:
    """A Flax Linen network of `flaxmodels`."""
    import flaxmodels

    model = getattr(flaxmodels, name)(
        output="logits", pretrained=None, num_classes=CLASSES, normalize=False
    )
    init = jax.jit(partial(model.init, train=False))
    variables = init(jax.random.key(0), jnp.ones((1, size, size, 3)))
    return Foreign(
        roughen(variables), lambda variables, x: model.apply(variables, x, train=False), size
    )


def equimo_network(name: str, size: int = 32, **options: Any) -> Foreign:
    """An Equinox network of `equimo`: one image at a time, channels first."""
    models = import_module(
        "equimo.vision.models" if find_spec("equimo.vision") else "equimo.models"
    )
    model = getattr(models, name)(num_classes=CLASSES, key=jax.random.PRNGKey(0), **options)

    def apply_fn(model: Any, x: jax.Array) -> jax.Array:
        key = jax.random.PRNGKey(0)
        return jax.vmap(lambda image: model(image, key=key, inference=True))(
            x.transpose(0, 3, 1, 2)
        )

    return Foreign(roughen(model), apply_fn, size)


def linen_network() -> Foreign:
    """Flax Linen as in its examples: convolutions, GroupNorm, GELU, pooling, attention."""
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            for features in (16, 32):
                x = nn.Conv(features, (3, 3))(x)
                x = nn.gelu(nn.GroupNorm(num_groups=4)(x))
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            tokens = x.reshape(len(x), -1, x.shape[-1])
            tokens += nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(tokens))
            x = nn.relu(nn.Dense(32)(nn.LayerNorm()(tokens).mean(1)))
            return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=not train)(x))

    model = Network()
    variables = model.init(jax.random.key(0), jnp.ones((1, 16, 16, 3)))
    return Foreign(roughen(variables), model.apply, 16)


def nnx_network() -> Foreign:
    """Flax NNX as in its tutorial: convolution, BatchNorm, dropout, ReLU, pooling, dense."""
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1 = nnx.Conv(3, 16, (3, 3), rngs=rngs)
            self.norm1 = nnx.BatchNorm(16, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
            self.norm2 = nnx.BatchNorm(32, rngs=rngs)
            self.dense = nnx.Linear(32 * 4 * 4, CLASSES, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.relu(self.norm1(self.dropout(self.conv1(x))))
            x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
            x = nnx.max_pool(nnx.silu(self.norm2(self.conv2(x))), (2, 2), strides=(2, 2))
            return self.dense(x.reshape(len(x), -1))

    model = Network(nnx.Rngs(0))
    model.eval()
    return Foreign(roughen(model), lambda model, x: model(x), 16)


def equinox_network() -> Foreign:
    """Equinox as in its tutorial: convolution, max-pool, ReLU, dense; one image, channels first."""
    import equinox as eqx

    class Network(eqx.Module):
        layers: list

        def __init__(self, key: jax.Array):
            keys = jax.random.split(key, 3)
            self.layers = [
                eqx.nn.Conv2d(3, 16, 3, padding=1, key=keys[0]),
                eqx.nn.MaxPool2d(2, 2),
                jax.nn.relu,
                eqx.nn.Conv2d(16, 32, 3, padding=1, key=keys[1]),
                eqx.nn.PReLU(0.25),
                eqx.nn.AdaptiveAvgPool2d(2),
                jnp.ravel,
                eqx.nn.Linear(128, CLASSES, key=keys[2]),
            ]

        def __call__(self, image: jax.Array) -> jax.Array:
            for layer in self.layers:
                image = layer(image)
            return image

    model = Network(jax.random.key(0))
    return Foreign(roughen(model), lambda model, x: jax.vmap(model)(x.transpose(0, 3, 1, 2)), 16)


def torch_network(name: str, size: int = 32, **options: Any) -> Foreign:
    """A module of torchvision, channels first, through torchax."""
    torch, torchax = import_module("torch"), import_module("torchax")
    torch.manual_seed(0)
    module = getattr(import_module("torchvision").models, name)(num_classes=CLASSES, **options)
    params, call = torchax.extract_jax(module.eval())
    return Foreign(
        roughen(params), lambda params, x: call(params, (x.transpose(0, 3, 1, 2),)), size
    )


def _row(builder: Callable[..., Foreign], packages: Any, name: str = "", **options: Any) -> Row:
    modules = tuple({"dm-haiku": "haiku"}.get(package, package) for package in packages)
    return Row(lambda: builder(name, **options) if name else builder(), packages, modules)


_KERAS, _HAIKU, _FLAX = ("keras",), ("dm-haiku",), ("flax",)
_TORCH = ("torchvision", "torch", "torchax")
_SMALL_VIT = {"image_size": 32, "patch_size": 8, "num_layers": 4, "num_heads": 4} | {
    "hidden_dim": 64,
    "mlp_dim": 128,
}
ROWS: dict[str, Row] = {
    "Keras ResNet50": _row(keras_network, _KERAS, "ResNet50"),
    "Keras VGG16": _row(keras_network, _KERAS, "VGG16", size=32),
    "Keras DenseNet121": _row(keras_network, _KERAS, "DenseNet121"),
    "Keras InceptionV3": _row(keras_network, _KERAS, "InceptionV3", size=75),
    "Keras Xception": _row(keras_network, _KERAS, "Xception", size=71),
    "Keras MobileNet": _row(keras_network, _KERAS, "MobileNet"),
    "Keras MobileNetV2": _row(keras_network, _KERAS, "MobileNetV2"),
    "Keras MobileNetV3Large": _row(keras_network, _KERAS, "MobileNetV3Large"),
    "Keras EfficientNetB0": _row(keras_network, _KERAS, "EfficientNetB0"),
    "Keras ConvNeXtTiny": _row(keras_network, _KERAS, "ConvNeXtTiny"),
    "Haiku ResNet18": _row(haiku_network, _HAIKU, "ResNet18"),
    "Haiku ResNet50": _row(haiku_network, _HAIKU, "ResNet50"),
    "Linen CNN with attention": _row(linen_network, _FLAX),
    "NNX CNN": _row(nnx_network, _FLAX),
    "Equinox CNN": _row(equinox_network, ("equinox",)),
    "flaxmodels ResNet18": _row(flaxmodels_network, ("flaxmodels",), "ResNet18"),
    "Equimo ViT-Ti": _row(
        *(equimo_network, ("equimo",), "vit_tiny_patch16_224"), img_size=32, patch_size=8
    ),
    "Equimo ConvNeXt-T": _row(equimo_network, ("equimo",), "convnext_t"),
    "Equimo MobileNetV3-S": _row(equimo_network, ("equimo",), "mobilenetv3_small"),
    "PyTorch ResNet18": _row(torch_network, _TORCH, "resnet18"),
    "PyTorch MobileNetV2": _row(torch_network, _TORCH, "mobilenet_v2"),
    "PyTorch ViT": _row(torch_network, _TORCH, "VisionTransformer", **_SMALL_VIT),
}
