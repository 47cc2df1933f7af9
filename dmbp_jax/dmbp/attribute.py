"""The call of the project: network and image in, signed attribution maps out (paper Sec. 3)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count
from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.attribution import Attribution
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decomposition import Frozen, attribution_by_backward, mask_dtype
from dmbp_jax.engine.chunks import in_chunks
from dmbp_jax.engine.memory import choose_chunk_size
from dmbp_jax.errors import InputTypeError
from dmbp_jax.graph.graph import Graph, list_sites, trace
from dmbp_jax.graph.model import (
    ApplyFn,
    Model,
    bind,
    check_images,
    check_labels,
    count_classes,
    is_traced,
)

_STEPS_PER_PROGRESS = 20


def attribute(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
    chunk_size: int | None = None,
    progress: bool = False,
    return_masks: bool = False,
) -> Attribution:
    """Attribute a network's logit to the pixels of its input, for and against (DMBP).

    Learns a mask σ_l ∈ [0, 1] on every ReLU so that y = y⁺ + y⁻ + ỹ with y⁺ large, y⁻ small and
    ỹ near 0 (Eq. 9, 10); the maps are ∇ₓF_σ ⊙ x and ∇ₓF_{1−σ} ⊙ x.

    Args:
      params: with `apply_fn`, any pytree and the network is `apply_fn(params, x) -> logits`;
        without it, a callable pytree (a `dmbp_jax.Network`, an NNX or Equinox module).
      x: (H, W, C) or (N, H, W, C) preprocessed images, floating point, finite.
      label: int, (N,) ints, or None for the network's top-1 of each image.
      apply_fn: maps (params, (N, H, W, C)) to logits (N, classes) with affine operations, ReLUs
        and max-pools only. A function that lives on (not a new lambda each call) compiles once.
      config: see `DMBP`.
      chunk_size: images optimised at once; None chooses from the memory that is free. Never
        changes the result of an image.
      progress: show a progress bar over the steps; ignored inside `jit` and `vmap`.
      return_masks: keep the learned masks (37 MiB an image for ResNet50).

    Returns:
      An `Attribution`; for a single image the leading N is absent everywhere. An image whose
      numbers overflow has `status` False; nothing is raised for it.

    Raises:
      InputTypeError: x is not floating point, label not integer, params not callable.
      InputError: wrong rank or channel count, empty batch, non-finite x, label out of range or of
        the wrong length, chunk_size below 1.
      NoReluError, ControlFlowError, NonAffineError: the network is not supported; the message
        names the operation and its scope.
      DeviceMemoryError: the device ran out of memory.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> att = dmbp_jax.attribute(jnp.eye(3), jnp.ones((8, 8, 3)), 0, apply_fn=network)
      >>> att.map.shape, att.history.shape, bool(att.status)
      ((8, 8, 3), (200, 3), True)

    Source: Ruiz, Agudo, Moreno-Noguer, ICCV 2021. Same optimisation as the paper's; no double
    back-propagation is needed (`dmbp_jax.dmbp.loop`), and the output bias is left out of y.
    """
    model = bind(params, apply_fn)
    images = check_images(x)
    batch = images.x.shape[0]
    if not isinstance(config, DMBP):
        raise InputTypeError(f"config: Expected a DMBP, got {type(config).__name__}.")
    if chunk_size is not None:
        check_count(chunk_size, "chunk_size")
    classes = count_classes(model, images.x)
    labels = check_labels(label, batch, classes, images.single)
    relus = [site for site in list_sites(model, images.x) if site.kind == "relu"]
    chunk = chunk_size or choose_chunk_size(images.x, relus)

    # While JAX traces there is no step to report, and the whole must be one computation.
    on_host = progress and not is_traced((model, images.x, labels))
    one_chunk = _with_progress if on_host else _attribute_batch
    result = in_chunks(
        partial(one_chunk, model, config=config, return_masks=return_masks),
        (images.x, labels),
        batch,
        chunk,
    )
    if images.single:
        return jax.tree.map(lambda a: a[0], result)
    return result.replace_history(result.history.swapaxes(0, 1))


@partial(jax.jit, static_argnames=("config", "return_masks"))
def _attribute_batch(
    model: Model, x: jax.Array, labels: jax.Array | None, *, config: DMBP, return_masks: bool
) -> Attribution:
    """All steps in one compiled computation; `history` comes as (N, steps, 3)."""
    graph = _trace(model, x, config)
    frozen, labels, state = _start(graph, x, labels, config)
    state, history = loop.advance(graph, frozen, state, labels, config, config.steps)
    finish = partial(_finish, graph, return_masks=return_masks)
    return jax.vmap(finish)(frozen, x, labels, state, history)


def _with_progress(
    model: Model, x: jax.Array, labels: jax.Array | None, *, config: DMBP, return_masks: bool
) -> Attribution:
    """The same computation cut into compiled pieces, so that the host can draw a bar."""
    from tqdm.auto import tqdm

    frozen, labels, state = _start_batch(model, x, labels, config=config)
    history: list[jax.Array] = []
    with tqdm(total=config.steps, unit="step", desc=f"DMBP {x.shape[0]} image(s)") as bar:
        done = 0
        while done < config.steps:
            steps = min(_STEPS_PER_PROGRESS, config.steps - done)
            state, terms = _advance_batch(
                model, x, frozen, labels, state, config=config, steps=steps
            )
            jax.block_until_ready(terms)
            history.append(terms)
            done += steps
            bar.update(steps)
            if bool(state.stopped.all()):
                break
        history.append(jnp.repeat(state.terms[:, None], config.steps - done, axis=1))
    empty = jnp.zeros((x.shape[0], 0, 3), mask_dtype(x))
    return _finish_batch(
        model,
        frozen,
        x,
        labels,
        state,
        jnp.concatenate([empty, *history], axis=1),
        config=config,
        return_masks=return_masks,
    )


@partial(jax.jit, static_argnames="config")
def _start_batch(model: Model, x: jax.Array, labels: jax.Array | None, *, config: DMBP) -> Any:
    return _start(_trace(model, x, config), x, labels, config)


@partial(jax.jit, static_argnames=("config", "steps"), donate_argnames="state")
def _advance_batch(
    model: Model,
    x: jax.Array,
    frozen: Frozen,
    labels: jax.Array,
    state: loop.State,
    *,
    config: DMBP,
    steps: int,
) -> Any:
    return loop.advance(_trace(model, x, config), frozen, state, labels, config, steps)


@partial(jax.jit, static_argnames=("config", "return_masks"))
def _finish_batch(
    model: Model,
    frozen: Frozen,
    x: jax.Array,
    labels: jax.Array,
    state: loop.State,
    history: jax.Array,
    *,
    config: DMBP,
    return_masks: bool,
) -> Attribution:
    finish = partial(_finish, _trace(model, x, config), return_masks=return_masks)
    return jax.vmap(finish)(frozen, x, labels, state, history)


def _trace(model: Model, x: jax.Array, config: DMBP) -> Graph:
    """The network's graph in the dtype and precision of `config`."""
    dtype = jnp.dtype(config.dtype) if config.dtype else x.dtype
    if config.dtype:
        model = jax.tree.map(
            lambda a: jnp.asarray(a, dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, model
        )
    with jax.default_matmul_precision(config.precision):
        return trace(model, jax.ShapeDtypeStruct((1, *x.shape[1:]), dtype))


def _start(
    graph: Graph, x: jax.Array, labels: jax.Array | None, config: DMBP
) -> tuple[Frozen, jax.Array, loop.State]:
    dtype = mask_dtype(x)
    cast = x.astype(config.dtype) if config.dtype else x
    frozen, state = jax.vmap(lambda image: loop.start(graph, image[None], config, dtype))(cast)
    if labels is None:
        labels = jnp.argmax(frozen.logits, axis=-1).astype(jnp.int32)
    return frozen, labels, state


def _finish(
    graph: Graph,
    frozen: Frozen,
    x: jax.Array,
    label: jax.Array,
    state: loop.State,
    history: jax.Array,
    return_masks: bool,
) -> Attribution:
    """Maps and terms of the learned masks, by the paper's backward form."""
    dtype = mask_dtype(x)
    cast = x.astype(frozen.logits.dtype)[None]

    sigma = loop.masks_of(state.theta)

    def signed(sign: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks = loop.signed_masks(sigma, sign)
        return attribution_by_backward(graph, frozen, cast, masks, label)

    values, maps = jax.vmap(signed)(jnp.array([1.0, -1.0], dtype))
    y_positive, y_negative = values.astype(dtype)
    positive, negative = maps[:, 0].astype(dtype)
    y = frozen.logits[label].astype(dtype) - frozen.output_bias[label].astype(dtype)
    finite = jnp.isfinite(jnp.stack([y, y_positive, y_negative])).all()
    finite &= jnp.isfinite(positive).all() & jnp.isfinite(negative).all()
    masks = None
    if return_masks:
        masks = tuple(mask[0] if mask.shape[:1] == (1,) else mask for mask in sigma)
    return Attribution(
        positive=positive,
        negative=negative,
        y=y,
        y_positive=y_positive,
        y_negative=y_negative,
        y_nuisance=y - y_positive - y_negative,
        label=label.astype(jnp.int32),
        history=history,
        status=finite,
        steps=state.steps,
        masks=masks,
    )
