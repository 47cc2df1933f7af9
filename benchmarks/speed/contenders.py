"""What is timed side by side: plain forwards, dmbp-jax and its parts, and PyTorch twice.

A contender compiles and warms up when it is built, keeps its arrays on the device, and takes some
steps when it runs, and waits for them.

The networks have random weights, but for the built-in one: speed does not depend on the weights, so
nothing is downloaded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import dmbp_jax
from benchmarks.gpu.gpu_compile import count_step
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine.compiling import compiled, compiler_options
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.models import VGG16, ResNet50, SqueezeNet11
from dmbp_jax.models.builtin import INPUT_SHAPE

TITLES = {  # in the order of every round
    "forward": "plain forward",  # compiled with the loop's options
    "forward-default": "the same, JAX's options",
    "jax": "DMBP, dmbp-jax",
    "convolutions": "its convolutions alone",
    "torch-gated": "DMBP, best PyTorch",
    "torch-double": "DMBP, double back-prop.",
}
_STEPS_COMPARED = 3
_CLASSES = 1000
_RANDOM = {  # and the layer of the logits
    "resnet50": (ResNet50, "fc"),
    "vgg16": (VGG16, "fc8"),
    "squeezenet": (SqueezeNet11, "conv10"),
}
_LOGIT_SCALE = 10.0  # standard deviation of the logits, about that of a trained ImageNet network


def make_network(name: str, size: int) -> dmbp_jax.Network:
    """A network for size × size images; the built-in one keeps its trained weights."""
    if name == "builtin":
        return dmbp_jax.load("builtin")
    make, last = _RANDOM[name]
    module = make(classes=_CLASSES)
    return dmbp_jax.Network(
        module=module, variables=random_variables(module, last, size), name=name
    )


def make_images(name: str, count: int, size: int) -> jax.Array:
    """(count, size, size, 3) standard normal numbers; image i does not depend on `count`."""
    shape = INPUT_SHAPE if name == "builtin" else (size, size, 3)
    return jnp.asarray(
        np.stack(
            [np.random.default_rng(i).standard_normal(shape, np.float32) for i in range(count)]
        )
    )


def random_variables(module: nn.Module, last: str, size: int) -> Any:
    """He's normal weights and small biases; layer `last` scaled to logits of ordinary size."""
    image = make_images("", 1, size)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.02
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(deviation)

    variables = jax.device_put(jax.tree.map(draw, shapes))
    scale = _LOGIT_SCALE / jnp.std(jax.jit(module.apply)(variables, image))
    variables["params"][last] = jax.tree.map(lambda a: a * scale, variables["params"][last])
    return variables


@dataclass(frozen=True)
class Case:
    """One network, batch and arithmetic."""

    name: str
    network: dmbp_jax.Network
    x: jax.Array
    labels: jax.Array
    numbers: str
    config: dmbp_jax.DMBP
    steps: int  # a call
    torch_compile: bool
    cuda_graph: bool


@dataclass
class Contender:
    """Something to time.

    Attributes:
      run: takes `steps` steps and waits for them.
      first_step: seconds until the first step was done, compilation included.
      terms: (N, steps, 3), y⁺, y⁻ and ỹ of the first steps.
      facts: what else it knows: "memory" in bytes, "flops" of a step, "kernels" of one on a GPU.
      note: what the reader of the table should know.
    """

    run: Callable[[], Any]
    steps: int
    first_step: float
    terms: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def build(key: str, case: Case) -> Contender:
    """Make and warm up the contender of a key of `TITLES`."""
    begin = time.perf_counter()
    if key in ("forward", "forward-default"):
        options = compiler_options(jax.default_backend()) if key == "forward" else None
        forward = Forward(case.network, case.x, case.config, case.steps, options)
        forward()
        return Contender(forward, case.steps, time.perf_counter() - begin)
    if key == "jax":
        loop = Loop(case.network, case.x, case.labels, case.config, case.steps)
        terms = np.asarray(loop.terms())[:, :_STEPS_COMPARED]
        seconds = time.perf_counter() - begin
        facts: dict[str, Any] = {"memory": loop.memory()}
        if jax.devices()[0].platform == "gpu":
            facts["kernels"] = count_step(loop.text())
        return Contender(lambda: loop().block_until_ready(), case.steps, seconds, terms, facts)
    if key == "convolutions":
        passes = Convolutions(case.network, case.x, case.config, case.steps)
        passes()
        seconds = time.perf_counter() - begin
        facts = {"flops": passes.flops}
        return Contender(lambda: passes().block_until_ready(), case.steps, seconds, None, facts)
    return _build_torch(key, case)


def out_of_memory(error: BaseException) -> bool:
    """Whether JAX or PyTorch ran out of device memory."""
    return "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ == "OutOfMemoryError"


def _build_torch(key: str, case: Case) -> Contender:
    import torch

    from benchmarks.speed.torch_dmbp import DoubleBackprop, GatedPasses, operations

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    exact = case.numbers == "float32"
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("highest" if exact else "high")
    ops = operations(case.name, case.network.variables, device)
    x = torch.tensor(np.asarray(case.x).transpose(0, 3, 1, 2).copy(), device=device)
    labels = torch.tensor(np.asarray(case.labels), dtype=torch.int64, device=device)
    dtype = torch.bfloat16 if case.config.dtype == "bfloat16" else torch.float32

    note = ""
    begin = time.perf_counter()
    if key == "torch-double":
        loop, steps = DoubleBackprop(ops, x, labels), max(1, case.steps // 5)
        first = [loop.step().cpu().numpy()]
    else:
        torch.compiler.reset()  # forget earlier shapes, which count against a limit
        loop, steps = GatedPasses(ops, x, labels, dtype, case.torch_compile), case.steps
        try:
            first = [loop.step().cpu().numpy()]
        except Exception as error:
            if not case.torch_compile or out_of_memory(error):
                raise
            note = f"torch.compile failed, eager instead: {_first_line(error)}"
            loop = GatedPasses(ops, x, labels, dtype, compiled=False)
            first = [loop.step().cpu().numpy()]
    seconds = time.perf_counter() - begin
    first += [loop.step().cpu().numpy() for _ in range(_STEPS_COMPARED - 1)]
    if gpu and case.cuda_graph and isinstance(loop, GatedPasses):
        try:
            loop.capture()
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            loop = GatedPasses(ops, x, labels, dtype, case.torch_compile and not note)
            note += f" no CUDA graph: {_first_line(error)}"

    def run() -> None:
        for _ in range(steps):
            loop.step()
        if gpu:
            torch.cuda.synchronize()

    run()
    return Contender(run, steps, seconds, np.stack(first, axis=1), note=note.strip())


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


class Loop:
    """`steps` optimiser steps of DMBP a call, as `dmbp_jax.attribute` takes them.

    The state is donated: one copy of the masks and the optimiser's memory lives on the device.
    """

    def __init__(
        self,
        network: dmbp_jax.Network,
        x: jax.Array,
        labels: jax.Array,
        config: dmbp_jax.DMBP,
        steps: int,
    ) -> None:
        call = check_call(network, x, labels, dtype=config.dtype, precision=config.precision)
        self._explainer = DmbpExplainer(call.network, replace(config, steps=steps), low=call.low)
        self._rows = (call.images, call.labels)
        self._start = compiled(DmbpExplainer.start)
        self._run = self._start(self._explainer, self._rows)
        options = {"static_argnames": "steps", "donate_argnames": "state"}
        advance = compiled(DmbpExplainer.advance, **options)
        self._compiled = advance.lower(self._explainer, self._run, steps=steps).compile()

    def terms(self) -> jax.Array:
        """(N, steps, 3): y⁺, y⁻ and ỹ of the first steps, from a fresh start."""
        self._run = self._start(self._explainer, self._rows)
        return self()

    def __call__(self) -> jax.Array:
        """Go on from where the last call stopped; (N, steps, 3)."""
        self._run = self._compiled(self._explainer, self._run)
        history = self._run.history
        # The next call writes into the same places.
        self._run = self._run._replace(history=history + 0, done=jnp.zeros_like(self._run.done))
        return history

    def text(self) -> str:
        """The program that XLA compiled."""
        return self._compiled.as_text()

    def memory(self) -> dict[str, int]:
        """Bytes that XLA plans for a call: weights, other arguments and outputs, scratch."""
        memory = self._compiled.memory_analysis()
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(self._explainer))
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        return {
            "weights": weights,
            "state": held - memory.alias_size_in_bytes - weights,
            "scratch": memory.temp_size_in_bytes,
        }


class Forward:
    """`repeats` plain forward passes a call, compiled like any network: no masks, no freezing.

    With the options of the loop's program, or with `options=None` as `jax.jit` does by default.
    """

    def __init__(
        self,
        network: dmbp_jax.Network,
        x: jax.Array,
        config: dmbp_jax.DMBP,
        repeats: int,
        options: dict[str, str] | None,
    ) -> None:
        self._arguments = _cast((network, x), config)
        self._repeats = repeats
        with jax.default_matmul_precision(config.precision):
            function = jax.jit(lambda network, x: network(x), compiler_options=options)
            self._compiled = function.lower(*self._arguments).compile()

    def __call__(self) -> jax.Array:
        """Logits of the last pass."""
        results = [self._compiled(*self._arguments) for _ in range(self._repeats)]
        return jax.block_until_ready(results)[-1]


class Convolutions:
    """The three passes of `steps` steps with nothing but their linear part.

    ReLUs pass everything, max-pools take a fixed corner, and no mask is made, multiplied or
    updated; what is left is convolutions, dense layers, biases and residual additions.
    """

    def __init__(
        self, network: dmbp_jax.Network, x: jax.Array, config: dmbp_jax.DMBP, steps: int
    ) -> None:
        call = check_call(network, x, dtype=config.dtype, precision=config.precision)
        x = x.astype(config.dtype) if config.dtype else x
        with jax.default_matmul_precision(config.precision):
            passes = call.low or call.network
            self._arguments = (passes, x, _before_pieces(passes, x))
            looped = compiled(_linear_loop, static_argnums=3)
            self._compiled = looped.lower(*self._arguments, steps).compile()
            once = jax.jit(_linear_passes).lower(*self._arguments, jnp.zeros((), jnp.float32))
        costs = once.cost_analysis()
        self.flops = float((costs[0] if isinstance(costs, list) else costs)["flops"])

    def __call__(self) -> jax.Array:
        """A number that depends on every pass."""
        return self._compiled(*self._arguments)


@jax.jit
def _before_pieces(network: TracedNetwork, x: jax.Array) -> Any:
    graph = network.graph()
    return jax.vmap(lambda image: graph.before_pieces(image[None]))(x)


def _linear_loop(network: TracedNetwork, x: jax.Array, first: Any, steps: int) -> jax.Array:
    def body(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
        return _linear_passes(network, x, first, carry), None

    return jax.lax.scan(body, jnp.zeros((), jnp.float32), None, length=steps)[0]


def _linear_passes(
    network: TracedNetwork, x: jax.Array, first: Any, previous: jax.Array
) -> jax.Array:
    """Two forwards and one backward of the linear part; `previous` chains the steps of a loop."""
    graph = network.graph()

    def first_winner(index: int, piece: Any, z: jax.Array) -> jax.Array:
        return z if piece.masked else piece.apply(jnp.zeros_like(piece.choose(z)), z)

    rules = Rules(first_winner)
    # A value too small to matter, but one that the compiler cannot know: nothing can be moved out
    # of the loop, and the two forwards differ. Cotangents differ by image for the same reason.
    nudge = (1e-30 * previous).astype(x.dtype)
    scales = x[:, 0, 0, 0] + nudge

    def linear(boundary: Any) -> jax.Array:
        return graph.run_from(boundary, rules)[0]

    def pull(boundary: Any, scale: jax.Array) -> Any:
        logits, pull_back = jax.vjp(linear, boundary)
        return pull_back(jnp.full_like(logits, scale))

    both = jax.tree.map(lambda a: jnp.concatenate([a + nudge, nudge - a]), first)
    results = (jax.vmap(linear)(both), jax.vmap(pull)(first, scales))
    return sum(
        (leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(results)),
        start=jnp.zeros((), jnp.float32),
    )


def _cast(arguments: Any, config: dmbp_jax.DMBP) -> Any:
    if config.dtype is None:
        return arguments
    return jax.tree.map(lambda a: a.astype(config.dtype), arguments)
