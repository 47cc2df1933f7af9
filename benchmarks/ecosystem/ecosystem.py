"""Networks of other packages, unchanged: what is found in them, completeness, tracing, compiling.

Prints the table of docs/ecosystem.md. The networks are taken as they are: random weights, small
images, ten classes; each builder is a recipe of the pages. Those whose package is not installed are
left out.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import dmbp_jax
from dmbp_jax.dmbp.decomposition import attribution_by_backward
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.tracing import TracedNetwork

CLASSES = 10
STEPS = 3
LABEL = 1
HEADER = """\
| network | package | activations | pools | frozen | F₁ − F | completeness | steps | trace | compile |
|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


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


class Found(NamedTuple):
    """What a network shows.

    Attributes:
      activations, pools: kind -> number of sites.
      frozen: number of factors that are constants at x.
      logits: |F_1 − F| / max |F| of all logits, F by their own code, F_1 with choices fixed at x.
      completeness: |y − Σ map − Σ biases| with all masks 1, over the largest of the three;
        y = F(x) − F_0, the output bias would make it look better.
      steps: of DMBP that ended in finite maps and numbers.
      trace, compile: seconds.
    """

    activations: Counter
    pools: Counter
    frozen: int
    logits: float
    completeness: float
    steps: int
    trace: float
    compile: float


def measure(network: Foreign, timed: bool = True) -> Found:
    """Everything of one network, at one random image, float32; times only where `timed`."""
    params, apply_fn, size = network
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(size, size, 3)), jnp.float32)

    start = time.perf_counter()
    sites = dmbp_jax.sites(params, x, apply_fn=apply_fn, nonaffine="freeze")
    trace = time.perf_counter() - start
    frozen = sum(site.kind == "frozen" for site in sites)

    def attribute() -> tuple[dmbp_jax.Attribution, float]:
        start = time.perf_counter()
        config = dmbp_jax.DMBP(steps=STEPS)
        found = dmbp_jax.attribute(
            params, x, label=LABEL, apply_fn=apply_fn, config=config, nonaffine="freeze"
        )
        return jax.block_until_ready(found), time.perf_counter() - start

    attribution, first = attribute()
    second = attribute()[1] if timed else 0.0
    finite = bool(attribution.status) and all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(attribution)
    )
    logits, completeness = errors(network, x)
    return Found(
        activations=Counter(site.kind for site in sites if site.masked),
        pools=Counter(
            site.kind for site in sites if not site.masked and site.kind not in ("bias", "frozen")
        ),
        frozen=frozen,
        logits=logits,
        completeness=completeness,
        steps=attribution.history.shape[-2] if finite else 0,
        trace=trace if timed else np.nan,
        compile=first - second if timed else np.nan,
    )


def errors(network: Foreign, x: jax.Array, label: int = LABEL) -> tuple[float, float]:
    """How far F_1 is from F as their own code computes it, and y from its parts; see `Found`."""
    theirs = np.asarray(jax.jit(lambda x: network.apply_fn(network.params, x))(x[None]))[0]
    call = check_call(network.params, x, None, network.apply_fn, nonaffine="freeze")
    f_1, y, carried, biases = map(np.asarray, _parts(call.network, x[None], label))
    scale = max(abs(y), abs(carried), abs(biases))
    return abs(f_1 - theirs).max() / abs(theirs).max(), abs(y - carried - biases) / scale


@jax.jit
def _parts(network: TracedNetwork, x: jax.Array, label: int) -> tuple[jax.Array, ...]:
    """F_1(x); y = F_1(x) − F_0, Σ map and Σ biases of one logit, all masks 1."""
    graph = network.graph()
    frozen = graph.freeze(x)
    ones = [jnp.ones(site.shape) for site in graph.masked]
    y_positive, image_map = attribution_by_backward(frozen, x, ones, label)
    y, carried = frozen.fixed.logits[label] - frozen.fixed.output_bias[label], image_map.sum()
    return frozen.fixed.logits, y, carried, y_positive - carried


def line(name: str, found: Found) -> str:
    """The row of the table."""

    def counts(kinds: Counter) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "–"

    cells = [name, ROWS[name].versions, counts(found.activations), counts(found.pools)]
    cells += [str(found.frozen or "–"), f"{found.logits:.0e}", f"{found.completeness:.0e}"]
    cells += [f"{found.steps} of {STEPS}"]
    cells += [f"{t:.{d}f} s" if t == t else "–" for t, d in ((found.trace, 1), (found.compile, 0))]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure the networks whose packages are installed, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks to measure; default all", metavar="NAME")
    parser.add_argument(
        "--quick", action="store_true", help="most optimisations of XLA off, and no times"
    )
    args = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", args.quick)
    print(HEADER, flush=True)
    absent = []
    for name in args.names or ROWS:
        if not all(find_spec(module) for module in ROWS[name].modules):
            absent.append(name)
            continue
        print(line(name, measure(ROWS[name].build(), timed=not args.quick)), flush=True)
        jax.clear_caches()
    print(f"\nJAX {jax.__version__}, load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.")
    if absent:
        print(f"Not installed: {', '.join(absent)}.")
