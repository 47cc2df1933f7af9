"""One computation written in several ways, for XLA: layouts of a network, a scan over its blocks.

    python -m benchmarks layouts --networks six resnet50 depthwise grouped --size 112
    python -m benchmarks scanned_blocks

`layouts`: all three have the same weights and compute the same y⁺; ratios are to channels-last.
Calls take turns; a step is the difference of a call with few steps and one with more, of the least
of all rounds. Equinox is a column where it is installed.

`scanned_blocks`: the repeated bottleneck blocks of ResNet50's four stages, with masks that are
learned by sign descent as in the loop of DMBP: gates are frozen, a step is two forwards and their
gradient to θ.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dmbp_jax
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine.compiling import compiled, compiler_options
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

CLASSES = 10
LAYOUTS = ("last", "first", *(("equinox",) if find_spec("equinox") else ()))
AGREE = 1e-3  # what y⁺ may differ, as a share
_SPECS = {"last": ("NHWC", "HWIO", "NHWC"), "first": ("NCHW", "OIHW", "NCHW")}
STAGES = {56: (256, 64, 2), 28: (512, 128, 3), 14: (1024, 256, 5), 7: (2048, 512, 2)}
STEPS = 6


class Layers:
    """The layers of a network in one layout; an image is (H, W, C) or (C, H, W), or a batch of it.

    Attributes:
      layout: "last", "first", or "equinox" for its modules, which take one image.
      params: arrays to use in order; what they lack is drawn.
    """

    def __init__(self, layout: str, params: Any = ()):
        self.layout, self.params = layout, list(params)
        self._rng, self._used = np.random.default_rng(0), 0

    def conv(self, x: jax.Array, features: int, window: int = 3, stride: int = 1, groups: int = 1):
        """A convolution and a normalisation in inference mode."""
        channels = x.shape[-1 if self.layout == "last" else -3]
        shape = window, window, channels // (groups or channels), features
        kernel = self._take(shape, np.sqrt(2 / np.prod(shape[:3])), is_kernel=True)
        scale, shift = self._take((features,), 0.1, 1), self._take((features,), 0.1)
        if self.layout == "equinox":
            return self._equinox_conv(x, kernel, scale, shift, stride, groups or channels)
        pad = window // 2
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=_SPECS[self.layout],
            feature_group_count=groups or channels,
        )
        along = (1, 1, 1, -1) if self.layout == "last" else (1, -1, 1, 1)
        return x * scale.reshape(along) + shift.reshape(along)

    def _equinox_conv(self, x, kernel, scale, shift, stride, groups):
        import equinox as eqx

        options = {"groups": groups, "use_bias": False, "key": jax.random.key(0)}
        sizes = x.shape[0], len(kernel), kernel.shape[-1], stride, kernel.shape[-1] // 2
        conv = eqx.tree_at(lambda c: c.weight, eqx.nn.Conv2d(*sizes, **options), kernel)
        return conv(x) * scale[:, None, None] + shift[:, None, None]

    def max_pool(self, x: jax.Array) -> jax.Array:
        """3 x 3, stride 2, padded."""
        if self.layout == "equinox":
            import equinox as eqx

            return eqx.nn.MaxPool2d(3, 2, 1)(x)
        window, strides, pads = [1] * 4, [1] * 4, [(0, 0)] * 4
        for axis in (1, 2) if self.layout == "last" else (2, 3):
            window[axis], strides[axis], pads[axis] = 3, 2, (1, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, pads)

    def head(self, x: jax.Array) -> jax.Array:
        """Global average and logits."""
        x = x.mean((1, 2) if self.layout != "first" else (2, 3))
        return x @ self._take((x.shape[-1], CLASSES), x.shape[-1] ** -0.5)

    def _take(self, shape, scale, mean=0.0, is_kernel=False) -> jax.Array:
        if self._used == len(self.params):
            drawn = mean + scale * self._rng.standard_normal(shape)
            if is_kernel and self.layout != "last":
                drawn = drawn.transpose(3, 2, 0, 1)
            self.params.append(np.asarray(drawn, np.float32))
        self._used += 1
        return self.params[self._used - 1]


def six(layers: Layers, x: jax.Array) -> jax.Array:
    """Six convolutions."""
    for features, stride in zip((16, 32, 32, 64, 64, 64), (1, 2, 1, 2, 1, 1), strict=True):
        x = jax.nn.relu(layers.conv(x, features, stride=stride))
    return layers.head(x)


def resnet50(layers: Layers, x: jax.Array, groups: int = 1, width: int = 64) -> jax.Array:
    """He et al. 2016; `grouped` is ResNeXt-50 32x4d (Xie et al. 2017)."""
    x = layers.max_pool(jax.nn.relu(layers.conv(x, 64, 7, 2)))
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = jax.nn.relu(layers.conv(x, width * 2**stage, 1))
            y = jax.nn.relu(layers.conv(y, width * 2**stage, 3, stride, groups))
            y = layers.conv(y, 256 * 2**stage, 1)
            x = jax.nn.relu(y + (x if block else layers.conv(x, 256 * 2**stage, 1, stride)))
    return layers.head(x)


def depthwise(layers: Layers, x: jax.Array) -> jax.Array:
    """MobileNet (Howard et al. 2017) at half width."""
    x = jax.nn.relu(layers.conv(x, 16, 3, 2))
    widths = (32, 64, 64, 128, 128, *[256] * 6, 512, 512)
    for number, features in enumerate(widths):
        stride = 2 if number in (1, 3, 5, 11) else 1
        x = jax.nn.relu(
            layers.conv(x, x.shape[-1 if layers.layout == "last" else -3], 3, stride, 0)
        )
        x = jax.nn.relu(layers.conv(x, features, 1))
    return layers.head(x)


NETWORKS: dict[str, Callable[..., jax.Array]] = {
    "six": six,
    "resnet50": resnet50,
    "depthwise": depthwise,
    "grouped": partial(resnet50, groups=32, width=128),
}


def make(name: str, layout: str, size: int) -> tuple[Callable[..., jax.Array], list[jax.Array]]:
    """`apply_fn(params, x (N, size, size, 3)) -> logits` and params, equal ones for each layout."""

    def forward(layers: Layers, x: jax.Array) -> jax.Array:
        if layout == "last":
            return NETWORKS[name](layers, x)
        x = x.transpose(0, 3, 1, 2)
        if layout == "first":
            return NETWORKS[name](layers, x)
        return jax.vmap(partial(NETWORKS[name], layers))(x)

    layers = Layers(layout)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    jax.eval_shape(partial(forward, layers), image)
    return lambda params, x: forward(Layers(layout, params), x), jax.device_put(layers.params)


def measure_layouts() -> None:
    """A step of one network channels-last, channels-first and in Equinox, in one run."""
    parser = argparse.ArgumentParser(description=measure_layouts.__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    add("--size", type=int, default=112, help="pixels of a side")
    add("--images", type=int, default=2)
    add("--steps", type=int, default=12, help="a call")
    add("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.images} images, {args.size} pixels, load before {os.getloadavg()[0]:.1f}")
    print(f"{'network':12}{'clock':12}" + "".join(f"{name:>20}" for name in args.layouts))
    for name in args.networks:
        seconds = measure(name, args)
        for clock, title in enumerate(("wall", "processor")):
            steps = [calls.min(0)[clock] / args.steps for calls in seconds.values()]
            cells = "".join(f"{1e3 * one:11.1f} ms {one / steps[0]:5.2f}" for one in steps)
            print(f"{name:12}{title:12}{cells}", flush=True)
    print(f"load after {os.getloadavg()[0]:.1f}")


def measure(name: str, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Of each layout (rounds, 2): seconds of both clocks for `steps` steps."""
    shape = args.images, args.size, args.size, 3
    x = jnp.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))
    labels = jnp.zeros(args.images, jnp.int32)
    config = dmbp_jax.DMBP(steps=args.steps)
    begin = compiled(DmbpExplainer.start)
    advance = compiled(DmbpExplainer.advance, static_argnames="steps", donate_argnames="state")
    loops: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {}
    for layout in args.layouts:
        apply_fn, params = make(name, layout, args.size)
        explainer = DmbpExplainer(trace(bind(params, apply_fn), x[:1]), config)
        start = partial(begin, explainer, (x, labels))
        program = advance.lower(explainer, start(), steps=args.steps).compile()
        loops[layout] = start, partial(program, explainer)

    seconds: dict[str, list[Any]] = {layout: [] for layout in loops}
    for turn in range(args.rounds + 1):
        found = {}
        for layout in list(loops)[:: 1 if turn % 2 == 0 else -1]:
            start, go = loops[layout]
            state = jax.block_until_ready(start())
            began = np.array([time.perf_counter(), time.process_time()])
            found[layout] = jax.block_until_ready(go(state)).history[:, -1]
            seconds[layout].append([time.perf_counter(), time.process_time()] - began)
        for terms in found.values():
            np.testing.assert_allclose(terms, found[args.layouts[0]], rtol=AGREE, atol=AGREE)
    return {layout: np.array(calls[1:]) for layout, calls in seconds.items()}


def make_stage(side: int, images: int) -> tuple[Any, Any, Any, jax.Array]:
    """Kernels, gates and θ of every block, stacked, and the input of the first."""
    wide, narrow, count = STAGES[side]
    rng = np.random.default_rng(side)
    shapes = ((1, 1, wide, narrow), (3, 3, narrow, narrow), (1, 1, narrow, wide))
    kernels = [
        jnp.asarray(rng.normal(size=(count, *shape)) / np.sqrt(np.prod(shape[:3])), jnp.float32)
        for shape in shapes
    ]
    sites = [(count, images, side, side, features) for features in (narrow, narrow, wide)]
    gates = [jnp.asarray(rng.random(shape) < 0.5) for shape in sites]
    theta = [jnp.zeros(shape) for shape in sites]
    return kernels, gates, theta, jnp.asarray(rng.normal(size=sites[2][1:]), jnp.float32)


def block(x: jax.Array, kernels: Any, gates: Any, theta: Any, sign: float) -> jax.Array:
    """A bottleneck block with frozen gates and masks."""
    value = x
    for number, (kernel, gate, t) in enumerate(zip(kernels, gates, theta, strict=True)):
        value = jax.lax.conv_general_dilated(
            value, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        value = value + x if number == 2 else value
        value = jnp.where(gate, value, 0) / (1 + jnp.exp(-sign * t))
    return value


def in_turn(x: jax.Array, blocks: Any, sign: float) -> jax.Array:
    """Block after block."""
    for number in range(len(blocks[0][0])):
        x = block(x, *jax.tree.map(lambda a, n=number: a[n], blocks), sign)
    return x


def scanned(x: jax.Array, blocks: Any, sign: float) -> jax.Array:
    """The same as one scan."""
    return jax.lax.scan(lambda x, one: (block(x, *one, sign), None), x, blocks)[0]


def measure_scan() -> None:
    """Equal blocks one after the other, or as one scan over stacked parameters."""
    parser = argparse.ArgumentParser(description=measure_scan.__doc__)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{'':24}{'compiling, s':>26}{'ms a step':>22}")
    print(f"{'stage':24}{'in turn':>13}{'scanned':>13}{'in turn':>11}{'scanned':>11}")
    for side, (_, _, count) in STAGES.items():
        kernels, gates, theta, x = make_stage(side, args.images)
        compiling, programs = [], []
        for run in (in_turn, scanned):

            def loop(kernels: Any, gates: Any, theta: Any, x: jax.Array, run: Any = run) -> Any:
                def difference(theta: Any) -> jax.Array:
                    blocks = (kernels, gates, theta)
                    return run(x, blocks, 1.0).sum() - run(x, blocks, -1.0).sum()

                def step(theta: Any, _: None) -> tuple[Any, None]:
                    gradient = jax.grad(difference)(theta)
                    return jax.tree.map(lambda t, g: t + 0.1 * jnp.sign(g), theta, gradient), None

                return jax.lax.scan(step, theta, None, length=STEPS)[0]

            begin = time.perf_counter()
            program = jax.jit(loop, compiler_options=compiler_options(jax.default_backend()))
            programs.append(program.lower(kernels, gates, theta, x).compile())
            compiling.append(time.perf_counter() - begin)
        results = [program(kernels, gates, theta, x) for program in programs]
        differ = [jnp.mean(a != b) for a, b in zip(*results, strict=True)]
        assert max(map(float, differ)) < 1e-3, differ  # the sign of a rounded zero
        seconds = [[], []]
        for _ in range(args.rounds):
            for number, program in enumerate(programs):
                begin = time.perf_counter()
                jax.block_until_ready(program(kernels, gates, theta, x))
                seconds[number].append((time.perf_counter() - begin) / STEPS)
        medians = [1e3 * float(np.median(one)) for one in seconds]
        print(
            f"{f'{count} blocks at {side} x {side}':24}{compiling[0]:13.2f}{compiling[1]:13.2f}"
            f"{medians[0]:11.1f}{medians[1]:11.1f}",
            flush=True,
        )


COMMANDS = {"layouts": measure_layouts, "scanned_blocks": measure_scan}
