"""The last layer of a network, found by what it does, and drawn again (paper, Table 3).

No names are needed, so it works for dense and 1x1 convolutional classifiers of any framework.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.engine.compiling import run
from dmbp_jax.engine.keys import check_key
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError, SiteNotFoundError
from dmbp_jax.graph.call import Call, check_call
from dmbp_jax.graph.model import ApplyFn, is_traced, split_arrays
from dmbp_jax.graph.tracing import TracedNetwork


@on_any_mesh("x")
def redraw_last_layer(
    params: Any,
    x: ArrayLike,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any,
    last_layer: str | None = None,
) -> Any:
    r"""The same parameters with the last layer's weights drawn from \(N(\bar w, s_w^2)\).

    \(\bar w\) and \(s_w\) are the mean and (population) standard deviation of those weights. Its
    bias and every other parameter stay as they are.

    The last layer is found by what it does: logit c depends on slice c of its weights and on no
    other slice, along an axis as long as there are classes. This needs no names and holds for
    dense and 1x1 convolutional classifiers of any framework.

    Args:
      params: as for `layer_reinitialisation`.
      x: (H, W, C) or (N, H, W, C); the first image is used to find the last layer.
      apply_fn: `(params, x) -> logits`.
      key: PRNG key of the new weights.
      last_layer: instead of searching, a path in `params` joined by "/", as `"params/fc"` or
        `"params/fc/kernel"`.

    Raises:
      InputError: no or more than one layer fits; the message lists all weights.
      SiteNotFoundError: `last_layer` names no weights, or weights of several layers.
      InputTypeError: `key` is no random key.

    Weights that are all equal stay what they are, since s_w is 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = {"a": jnp.ones((4, 5)), "b": jnp.arange(15.0).reshape(5, 3)}
      >>> net = lambda p, x: jax.nn.relu(x.reshape(-1, 4) @ p["a"]) @ p["b"]
      >>> new = redraw_last_layer(params, jnp.ones((2, 2, 1)), apply_fn=net, key=jax.random.key(0))
      >>> [bool((new[name] == params[name]).all()) for name in "ab"]
      [True, False]
    """
    call = check_call(params, x, apply_fn=apply_fn)
    return redraw(params, find_last_layer(params, call, last_layer), check_key(key))


def find_last_layer(params: Any, call: Call, last_layer: str | None) -> int:
    """Index among the arrays of `params` of the last layer's weights."""
    # the leaves that are arrays, in the order of the network's arrays, which are JAX's or NumPy's
    paths = [path for path, leaf in jax.tree.leaves_with_path(params) if hasattr(leaf, "ndim")]
    weights = {
        jax.tree_util.keystr(path, simple=True, separator="/"): i
        for i, (path, array) in enumerate(zip(paths, call.network.inputs, strict=False))
        if array.ndim >= 2 and jnp.issubdtype(array.dtype, jnp.floating)
    }
    if last_layer is not None:
        return weights[_named_layer(last_layer, list(weights))]
    return weights[_search(call.network, call.images[0], weights)]


def redraw(params: Any, layer: int, key: jax.Array) -> Any:
    """`params` with the weights number `layer` drawn from a normal distribution like their own."""
    arrays, skeleton = split_arrays(params)
    old = jnp.asarray(arrays[layer])
    new = old.mean() + old.std() * jax.random.normal(key, old.shape, old.dtype)
    return skeleton.merge(_exchanged(arrays, {layer: new}))


def _exchanged(arrays: Sequence[jax.Array], new: dict[int, jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(new.get(i, a) for i, a in enumerate(arrays))


def _search(network: TracedNetwork, image: jax.Array, weights: dict[str, int]) -> str:
    """The one kernel of which the top logit depends on its own slice and on no other."""
    classes = network.trace.classes
    candidates = [name for name, i in weights.items() if classes in network.inputs[i].shape]
    indices = tuple(weights[name] for name in candidates)
    fits = run(_depends_on_own_slice, network, image, candidates=indices)
    if is_traced(fits):
        raise InputError(
            "last_layer: Expected a name, as it cannot be searched inside a trace, got None. "
            f"One of {', '.join(weights)}."
        )
    fitting = [name for name, fit in zip(candidates, fits, strict=True) if fit]
    if len(fitting) == 1:
        return fitting[0]
    found = "none" if not fitting else ", ".join(fitting)
    raise InputError(
        f"last_layer: Expected one layer whose slice c makes logit c, found {found}. Name it: "
        f"last_layer= one of {', '.join(weights) or '(params has no weights with two axes)'}."
    )


def _depends_on_own_slice(
    network: TracedNetwork, image: jax.Array, *, candidates: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """For each candidate, whether the top logit depends on that slice of it and no other.

    The top logit, because behind a final ReLU only a positive one has a gradient.
    """

    def logits(kernels: dict[int, jax.Array]) -> jax.Array:
        return network.with_arrays(_exchanged(network.inputs, kernels)).logits(image)

    values, pullback = jax.vjp(logits, {i: network.inputs[i] for i in candidates})
    top = values.argmax()
    (gradients,) = pullback(jax.nn.one_hot(top, values.size, dtype=values.dtype))
    return tuple(_is_one_slice(gradients[i], top, values.size) for i in candidates)


def _is_one_slice(gradient: jax.Array, index: jax.Array, classes: int) -> jax.Array:
    fits = []
    for axis in (a for a, size in enumerate(gradient.shape) if size == classes):
        nonzero = (gradient != 0).any([a for a in range(gradient.ndim) if a != axis])
        fits.append(nonzero[index] & (nonzero.sum() == 1))
    return jnp.stack(fits).any()


def _named_layer(last_layer: str, names: list[str]) -> str:
    wanted = last_layer.strip("/")
    matches = [name for name in names if name == wanted or name.startswith(wanted + "/")]
    if len(matches) != 1:
        found = "none" if not matches else ", ".join(matches)
        raise SiteNotFoundError(
            f"last_layer: Expected the path of one layer's weights, {last_layer!r} fits {found}. "
            f"Weights: {', '.join(names)}."
        )
    return matches[0]
