"""One calling convention for all compared methods: check, bind, jit, vmap, chunk, un-batch.

A method writes its equation for one image, as a module-level function, and hands it to
`each_image` (one evaluation per image) or `sum_samples` (a sum over many evaluations).
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count
from dmbp_jax.engine.chunks import guarded, in_chunks
from dmbp_jax.engine.scores import first_choice
from dmbp_jax.graph.model import (
    ApplyFn,
    Model,
    bind,
    check_images,
    check_labels,
    count_classes,
    is_traced,
)

EVALUATIONS_AT_ONCE = 64  # of methods with many samples, when chunk_size is None


@dataclass(frozen=True)
class Call:
    """A checked call: images are (N, H, W, C), labels (N,); `single` says that N was added."""

    model: Model
    images: jax.Array
    labels: jax.Array
    single: bool
    chunk_size: int | None

    def unbatch(self, results: Any) -> Any:
        """Take the leading axis away again where the caller gave a single image."""
        return jax.tree.map(lambda a: a[0], results) if self.single else results


def check_call(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    apply_fn: ApplyFn | None,
    chunk_size: int | None,
) -> Call:
    """Check what every method takes; a label of None becomes the network's top-1 per image.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
    """
    model = bind(params, apply_fn)
    images, single = check_images(x)
    classes = count_classes(model, images)
    labels = check_labels(label, len(images), classes, single)
    if chunk_size is not None:
        check_count(chunk_size, "chunk_size")
    if labels is None:
        labels = first_choice(model, images, chunk_size or len(images))
    return Call(model, images, labels, single, chunk_size)


def logit(model: Model, image: jax.Array, label: jax.Array) -> jax.Array:
    """F_c(x): the logit of `label` for one image (H, W, C)."""
    return model(image[None])[0, label]


def each_image(rule: Callable[..., Any], call: Call, *rows: jax.Array, **options: Any) -> Any:
    """`rule(model, image, label, *row, **options)` for every image, `chunk_size` images at once.

    `rule` is a module-level function and `options` are hashable, so that equal calls compile
    once; `rows` are further arrays with a leading axis N.
    """
    batch = len(call.images)
    one_piece = partial(_each_image, rule, tuple(sorted(options.items())), call.model)
    return in_chunks(one_piece, (call.images, call.labels, *rows), batch, call.chunk_size or batch)


@partial(jax.jit, static_argnames=("rule", "options"))
def _each_image(
    rule: Callable[..., Any],
    options: tuple[tuple[str, Any], ...],
    model: Model,
    *rows: jax.Array,
) -> Any:
    return jax.vmap(lambda *row: rule(model, *row, **dict(options)))(*rows)


def sum_samples(
    sample: Callable[..., jax.Array],
    call: Call,
    count: int,
    *rows: jax.Array,
    progress: bool = False,
    **options: Any,
) -> jax.Array:
    """Σᵢ `sample(model, image, label, i, *row, **options)`, i = 0 … count − 1, for every image.

    `chunk_size` evaluations (images times samples) are made at once and only sums are kept, so
    memory does not grow with `count` or with the batch; None is 64.
    """
    batch = len(call.images)
    at_once = call.chunk_size or EVALUATIONS_AT_ONCE
    images_at_once = min(batch, at_once)
    chunks = math.ceil(count / max(1, at_once // images_at_once))
    static = (sample, count, math.ceil(count / chunks), tuple(sorted(options.items())))

    def one_piece(*rows: jax.Array) -> jax.Array:
        zero = jnp.zeros((), call.images.dtype)
        shape = jax.eval_shape(partial(_add_chunk, static=static), zero, 0, (call.model, rows))
        total = jnp.zeros(shape.shape, shape.dtype)
        return repeat(_add_chunk, chunks, total, (call.model, rows), static, bar, at_once)

    with progress_bar(sample, chunks * math.ceil(batch / images_at_once), progress, call) as bar:
        return in_chunks(one_piece, (call.images, call.labels, *rows), batch, images_at_once)


def _add_chunk(total: jax.Array, chunk: jax.Array | int, inputs: Any, static: Any) -> jax.Array:
    sample, count, size, options = static
    model, rows = inputs
    index = chunk * size + jnp.arange(size)

    def one_image(image: jax.Array, label: jax.Array, *rest: jax.Array) -> jax.Array:
        parts = jax.vmap(lambda i: sample(model, image, label, i, *rest, **dict(options)))(index)
        inside = (index < count).reshape(-1, *[1] * (parts.ndim - 1))
        return jnp.where(inside, parts, 0).sum(0)

    return total + jax.vmap(one_image)(*rows)


def progress_bar(method: Callable[..., Any], total: int, progress: bool, call: Call) -> Any:
    """A bar over `total` compiled steps, or nothing; nothing can be shown inside a trace."""
    if not progress or is_traced(call.model, call.images, call.labels):
        return nullcontext()
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=method.__name__.strip("_"))


def repeat(
    step: Callable[..., Any],
    count: int,
    state: Any,
    inputs: Any,
    static: Any,
    bar: Any = None,
    chunk_size: int = 1,
) -> Any:
    """`state = step(state, i, inputs, static)` for i = 0 … count − 1.

    A loop on the host over one compiled step: on CPUs XLA runs convolutions inside a compiled
    loop many times slower, and a step is long compared with its dispatch. Inside a trace the loop
    is compiled. `bar` moves with the steps; `chunk_size` is what a `DeviceMemoryError` names.
    """
    if is_traced(state, inputs):
        return jax.lax.scan(
            lambda state, i: (step(state, i, inputs, static), None), state, jnp.arange(count)
        )[0]
    for i in range(count):
        state = guarded(partial(_once, step, static), (state, i, inputs), chunk_size)
        if bar is not None:
            bar.update()
    return state


@partial(jax.jit, static_argnames=("step", "static"))
def _once(step: Callable[..., Any], static: Any, state: Any, i: Any, inputs: Any) -> Any:
    return step(state, i, inputs, static)
