"""Random programs of the whole table of operations against the same program frozen by hand.

`python tests/fuzz.py 200 --seed 7` tries 200 of them. A program draws its operations, layouts and
constants from its seed, so that each of its runs is the same network: in JAX as a user writes it,
and frozen at x, where activations, pools and gates are what they recorded (float64).
"""

import argparse
import functools
import math
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import dmbp_jax
from dmbp_jax.errors import NonAffineError

IMAGE = (4, 5, 2)
CLASSES = 3
MOST = 400  # elements of a value

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu by where": lambda z: jnp.where(z > 0, z, 0),
    "relu6": jax.nn.relu6,
    "leaky": lambda z: jnp.maximum(z, 0.2 * z),
    "elu by hand": lambda z: jnp.maximum(z, 0) + jnp.exp(jnp.minimum(z, 0)) - 1,
    "abs": jnp.abs,
    "clip": lambda z: jnp.clip(z, -0.5, 0.7),
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "sigmoid by tanh": lambda z: 0.5 * (1 + jnp.tanh(z / 2)),
}


class Plain:
    """Every operation as it is."""

    def activation(self, name, z):
        return ACTIVATIONS[name](z)

    def pool(self, function, z):
        return function(z)

    def global_pool(self, z, axis):
        return z.max(axis)

    def larger(self, a, b):
        return jnp.maximum(a, b)

    def gate(self, function, *z):
        return function(*z)


class Recording(Plain):
    """The same, keeping what each of them met."""

    def __init__(self):
        self.met = []

    def activation(self, name, z):
        self.met.append(z)
        return super().activation(name, z)

    def pool(self, function, z):
        self.met.append(z)
        return super().pool(function, z)

    def global_pool(self, z, axis):
        self.met.append(z)
        return super().global_pool(z, axis)

    def larger(self, a, b):
        self.met.append((a, b))
        return super().larger(a, b)

    def gate(self, function, *z):
        self.met.append(function(*z))
        return self.met[-1]


class Frozen:
    """Affine: what was met at x has decided everything, and masks multiply activations."""

    def __init__(self, met, masks):
        self.met, self.masks = iter(met), iter(masks)

    def activation(self, name, z):
        f, at = ACTIVATIONS[name], next(self.met)
        if name in ("relu", "relu by where", "relu6", "leaky", "abs", "clip"):
            slope = jax.jvp(f, (at,), (jnp.ones_like(at),))[1]
        else:
            slope = (f(at) - f(jnp.zeros_like(at))) / at
        return next(self.masks) * (f(at) + slope * (z - at))

    def pool(self, function, z):
        at = next(self.met)
        winners = jax.jacrev(function)(at)
        return jnp.tensordot(winners, z, z.ndim)

    def global_pool(self, z, axis):
        winner = jnp.expand_dims(next(self.met).argmax(axis), axis)
        return jnp.take_along_axis(z, winner, axis).squeeze(axis)

    def larger(self, a, b):
        at_a, at_b = next(self.met)
        return next(self.masks) * jnp.where(at_a >= at_b, a, b)

    def gate(self, function, *z):
        return next(self.met)


class Program:
    """One random network; `program(xp)` is `(params, x) -> logits`."""

    def __init__(self, seed):
        self.seed = seed
        self.params = {"captured": jnp.asarray(np.random.default_rng(seed).normal(size=MOST))}

    def __call__(self, xp):
        def network(params, x):
            return jnp.concatenate([self._run(xp, params, one[None]) for one in x])

        return network

    def _run(self, xp, params, x):
        rng = np.random.default_rng(self.seed)
        self.names = []
        h, first = x, True
        for _ in range(int(rng.integers(3, 8))):
            name = "activation" if first else str(rng.choice(list(OPERATIONS)))
            first = False
            inner = functools.partial(OPERATIONS[name], xp, rng)
            changed = inner(h)
            if changed is None or changed.size > MOST * len(x) or 0 in changed.shape:
                continue
            self.names.append(name)
            if rng.random() < 0.15:  # what nobody reads
                jnp.sort(changed.reshape(len(x), -1)) @ jnp.ones((changed.size // len(x), 2))
            h = changed
        h = h.reshape(len(x), -1)
        head = params["captured"][: 3 * min(h.shape[1], MOST // 3)]
        rows = head.reshape(-1, 3)
        return h[:, : len(rows)] @ rows / np.sqrt(len(rows)) + rng.normal(size=CLASSES)


def _axis(rng, h):
    return int(rng.integers(1, h.ndim)) if h.ndim > 1 else None


def _constant(rng, shape):
    return rng.normal(size=shape)


def _dense(xp, rng, h):
    axis, size = _axis(rng, h), int(rng.integers(2, 5))
    w = rng.normal(size=(h.shape[axis], size)) / np.sqrt(h.shape[axis])
    return jnp.moveaxis(jnp.tensordot(h, w, (axis, 0)), -1, axis)


def _activation(xp, rng, h):
    name = str(rng.choice(list(ACTIVATIONS)))
    h = _dense(xp, rng, h)
    return xp.activation(name, h + _constant(rng, (1, *h.shape[1:])))


def _convolution(xp, rng, h):
    if h.ndim != 4:
        return None
    lhs = (0, *map(int, 1 + rng.permutation(3)))
    groups = int(rng.choice([g for g in (1, 2) if h.shape[lhs[1]] % g == 0]))
    rhs, out = tuple(map(int, rng.permutation(4))), (0, *map(int, 1 + rng.permutation(3)))
    shape = [0] * 4
    sizes = (2 * groups, h.shape[lhs[1]] // groups, *map(int, rng.integers(1, 4, size=2)))
    for at, size in zip(rhs, sizes, strict=True):
        shape[at] = size
    strides = tuple(map(int, rng.integers(1, 3, size=2)))
    return lax.conv_general_dilated(
        h,
        _constant(rng, shape) / np.sqrt(math.prod(sizes[1:])),
        window_strides=strides,
        padding=[tuple(map(int, rng.integers(0, 3, size=2))) for _ in range(2)],
        lhs_dilation=tuple(map(int, rng.integers(1, 3, size=2))),
        # Stride and dilation along one axis: JAX's own gradient ends the process (XLA 0.10.2).
        rhs_dilation=tuple(int(rng.integers(1, 3)) if n == 1 else 1 for n in strides),
        dimension_numbers=lax.ConvDimensionNumbers(lhs, rhs, out),
        feature_group_count=groups,
    )


def _transpose(xp, rng, h):
    return h.transpose(0, *map(int, 1 + rng.permutation(h.ndim - 1)))


def _reshape(xp, rng, h):
    axis = _axis(rng, h)
    if rng.random() < 0.5 and h.ndim > 2:
        axis = min(int(axis or 0), h.ndim - 2)
        return h.reshape(*h.shape[:axis], -1, *h.shape[axis + 2 :])
    split = [n for n in (2, 3) if h.shape[axis] % n == 0 and h.ndim < 5]
    return h.reshape(*h.shape[:axis], split[0], -1, *h.shape[axis + 1 :]) if split else None


def _pad(xp, rng, h):
    config = [(0, 0, 0)] + [
        (int(rng.integers(-1, 2)), int(rng.integers(0, 3)), int(rng.integers(0, 2)))
        for _ in h.shape[1:]
    ]
    return lax.pad(h, jnp.asarray(rng.normal(), h.dtype), config)


def _slice(xp, rng, h):
    axis = _axis(rng, h)
    at = [slice(None)] * h.ndim
    at[axis] = slice(int(rng.integers(0, 2)), None, int(rng.integers(1, 3)))
    return h[tuple(at)] if h.shape[axis] > 1 else None


def _mirror(xp, rng, h):
    return jnp.flip(h, _axis(rng, h))


def _roll(xp, rng, h):
    return jnp.roll(h, int(rng.integers(1, 3)), _axis(rng, h))


def _dynamic_slice(xp, rng, h):
    axis = _axis(rng, h)
    size = max(1, h.shape[axis] - 1)
    return lax.dynamic_slice_in_dim(h, int(rng.integers(0, 2)), size, axis)


def _update(xp, rng, h):
    """Into a constant, or a constant into h."""
    canvas = _constant(rng, (len(h), *(size + 1 for size in h.shape[1:])))
    if rng.random() < 0.5:
        start = (0, *(int(rng.integers(0, 2)) for _ in h.shape[1:]))
        return lax.dynamic_update_slice(jnp.asarray(canvas), h, start)
    return lax.dynamic_update_slice_in_dim(h, _constant(rng, (len(h), *h.shape[1:]))[:, :1], 0, 1)


def _scatter(xp, rng, h):
    index, how = rng.integers(0, h.shape[1], size=2), rng.choice(["set", "add", "subtract"])
    index = np.unique(index)
    value = _constant(rng, (len(h), len(index), *h.shape[2:]))
    if rng.random() < 0.5:
        return getattr(h.at[:, index], how)(value)
    canvas = jnp.asarray(_constant(rng, h.shape))
    return getattr(canvas.at[:, index], how)(h[:, : len(index)])


def _gather(xp, rng, h):
    axis = _axis(rng, h)
    index = rng.integers(0, h.shape[axis] + 2, size=int(rng.integers(1, 4)))
    return jnp.take(h, index, axis=axis, mode="fill", fill_value=float(rng.normal()))


def _concatenate(xp, rng, h):
    axis = _axis(rng, h)
    constant = jnp.asarray(_constant(rng, (len(h), *h.shape[1:])))
    parts = [h, constant, 0.5 * h][: int(rng.integers(2, 4))]
    return jnp.concatenate([parts[i] for i in rng.permutation(len(parts))], axis)


def _stack(xp, rng, h):
    if h.ndim > 4:
        return None
    axis = _axis(rng, h)
    return jnp.stack([h, _constant(rng, h.shape), -h][: int(rng.integers(2, 4))], axis)


def _split(xp, rng, h):
    axis = _axis(rng, h)
    if h.shape[axis] % 2:
        return None
    left, right = jnp.split(h, 2, axis)
    return left - 2 * right


def _sum(xp, rng, h):
    return h.sum(_axis(rng, h)) if h.ndim > 2 else None


def _cumsum(xp, rng, h):
    return lax.cumsum(h, _axis(rng, h), reverse=bool(rng.random() < 0.5)) / 2


def _window_sum(xp, rng, h):
    window = (1, *(int(rng.integers(1, 3)) for _ in h.shape[1:]))
    return lax.reduce_window(h, 0.0, lax.add, window, (1,) * h.ndim, "SAME")


def _broadcast(xp, rng, h):
    axis = _axis(rng, h)
    if h.ndim > 4:
        return None
    return jnp.broadcast_to(jnp.expand_dims(h, axis), (*h.shape[:axis], 2, *h.shape[axis:]))


def _arithmetic(xp, rng, h):
    constant = _constant(rng, (1, *h.shape[1:]))
    changed = h + constant, constant - h, h * constant, -h, h / (1 + constant**2)
    return changed[int(rng.integers(5))]


def _select(xp, rng, h):
    return jnp.where(_constant(rng, (1, *h.shape[1:])) > 0, h, _constant(rng, (1, *h.shape[1:])))


def _resize(xp, rng, h):
    axis = _axis(rng, h)
    shape = (*h.shape[:axis], h.shape[axis] + 2, *h.shape[axis + 1 :])
    return jax.image.resize(h, shape, "linear")


def _repeat(xp, rng, h):
    return jnp.repeat(h, 2, _axis(rng, h))


def _pool(xp, rng, h):
    sign = float(rng.choice([-1, 1]))
    window = (1, *(int(rng.integers(1, 3)) for _ in h.shape[1:]))
    worst, better = (-jnp.inf, lax.max) if sign > 0 else (jnp.inf, lax.min)

    def pool(z):
        return lax.reduce_window(z, worst, better, window, (1,) * z.ndim, "SAME")

    return xp.pool(pool, h + _constant(rng, (1, *h.shape[1:])))


def _masked_pool(xp, rng, h):
    if h.ndim < 3:
        return None
    axis = _axis(rng, h)
    hidden = rng.random(size=(1, *h.shape[1:])) < 0.3
    hidden[(slice(None),) * axis + (0,)] = False
    return xp.global_pool(jnp.where(hidden, -jnp.inf, h + _constant(rng, (1, *h.shape[1:]))), axis)


def _larger(xp, rng, h):
    return xp.larger(h * _constant(rng, (1, *h.shape[1:])), h[:, ::-1] + 1.0)


def _residual(xp, rng, h):
    name = str(rng.choice(list(ACTIVATIONS)))
    w = rng.normal(size=(h.shape[-1], h.shape[-1])) / h.shape[-1]
    return h + xp.activation(name, h @ w + _constant(rng, (1, *h.shape[1:]))) @ w.T


def _scan(xp, rng, h):
    """Written out by the graph; by hand here, as each iteration has masks of its own."""
    w = rng.normal(size=(2, h.shape[-1], h.shape[-1])) / h.shape[-1]
    b = rng.normal(size=(2, 1, *h.shape[1:]))
    if type(xp) is Plain:

        def step(h, own):
            return xp.activation("silu", h @ own[0] + own[1]), None

        return lax.scan(step, h, (w, b))[0]
    for own in zip(w, b, strict=True):
        h = xp.activation("silu", h @ own[0] + own[1])
    return h


def _compiled(xp, rng, h):
    wrap = jax.jit if rng.random() < 0.5 else jax.checkpoint
    if type(xp) is not Plain:
        return _activation(xp, rng, h)
    return wrap(lambda h: _activation(xp, rng, h))(h)


def _norm(xp, rng, h):
    def scale(h):
        return lax.rsqrt(((h - h.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) + 0.1)

    return (h - h.mean(-1, keepdims=True)) * xp.gate(scale, h)


def _attention(xp, rng, h):
    if h.ndim != 3:
        return None
    q, k = (rng.normal(size=(h.shape[-1], 2)) for _ in range(2))
    return xp.gate(lambda h: jax.nn.softmax((h @ q) @ (h @ k).mT), h) @ h


def _gated(xp, rng, h):
    w = rng.normal(size=(h.shape[-1], h.shape[-1]))
    return h * xp.gate(lambda h: jax.nn.sigmoid(h @ w), h)


OPERATIONS = {
    name.strip("_"): function
    for name, function in list(globals().items())
    if name.startswith("_") and getattr(function, "__code__", None)
    if function.__code__.co_varnames[:3] == ("xp", "rng", "h")
}


def check(seed):
    """Compare one program with itself frozen by hand.

    Returns:
      Its operations, or None where a product was refused: it is not clear which factor is the gate.

    Raises:
      AssertionError: they differ.
    """
    program, rng = Program(seed), np.random.default_rng(seed + 1)
    x = jnp.asarray(rng.normal(size=IMAGE))
    label = int(rng.integers(CLASSES))
    options = {"apply_fn": program(Plain()), "nonaffine": "freeze"}
    try:
        sites = [s for s in dmbp_jax.sites(program.params, x, **options) if s.masked]
    except NonAffineError as error:
        if "every product" in str(error):
            return None
        raise
    masks = [jnp.asarray(rng.uniform(size=site.shape)) for site in sites]
    parts = dmbp_jax.decompose(program.params, x, label, [mask[0] for mask in masks], **options)

    @jax.jit
    def by_hand(masks, x):
        recording = Recording()
        logits = program(recording)(program.params, x[None])[0, label]

        def frozen(masks, x):
            return program(Frozen(recording.met, masks))(program.params, x[None])[0, label]

        closed = frozen([0 * mask for mask in masks], 0 * x)
        others = [1 - mask for mask in masks]
        signs = [jax.value_and_grad(frozen, argnums=1)(one, x) for one in (masks, others)]
        return logits, closed, *signs

    logit, closed, (value, gradient), (other, slope) = by_hand(masks, x)
    close = {"rtol": 1e-8, "atol": 1e-9 * (1 + float(abs(logit)))}
    np.testing.assert_allclose(parts.y, logit - closed, **close)
    np.testing.assert_allclose(parts.y_positive, value - closed, **close)
    np.testing.assert_allclose(parts.y_negative, other - closed, **close)
    np.testing.assert_allclose(parts.positive, gradient * x, **close)
    np.testing.assert_allclose(parts.negative, slope * x, **close)
    return program.names


def main():
    """Try many programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # each program is met once
    refused = wrong = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        try:
            refused += check(seed) is None
        except Exception:  # every one is printed
            wrong += 1
            print(f"seed {seed}:\n{traceback.format_exc(limit=-3)}", flush=True)
    print(f"{arguments.count} programs, {refused} refused, {wrong} wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
