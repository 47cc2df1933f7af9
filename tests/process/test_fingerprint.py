"""`describe`: equal values are described alike in every process, and a change always shows."""

import dataclasses
import enum
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dmbp_jax
from dmbp_jax import DMBP
from dmbp_jax.runs.fingerprint import describe, fingerprint

SCALE = 2.0


class Colour(enum.Enum):
    """Two values."""

    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    """Two fields."""

    first: Any
    second: Any


@dataclasses.dataclass(frozen=True)
class Crop:
    """A callable with a field."""

    size: int

    def __call__(self, x):
        """Cut the corner."""
        return x[: self.size]


class Shift:
    """A callable with an attribute."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        """Add."""
        return x + self.by


def halve(x):
    return x / SCALE


def halve_and_shift(x):
    return halve(x) + 1


def times(factor):
    return lambda x: x * factor


def values() -> dict[str, list[Any]]:
    """Kind -> values that differ from each other."""
    long = np.zeros(5000, np.float32)
    other = long.copy()
    other[2500] = 1
    return {
        "plain": [None, True, 2, 2.5, "2", b"2", float("nan"), float("inf"), 3 + 1j],
        "arrays": [
            long,
            other,
            long.astype(np.float16),
            long.reshape(50, 100),
            jnp.asarray(other[:5]),
            jnp.ones(3, jnp.bfloat16),
            jax.random.key(0),
            jax.random.key(1),
        ],
        "containers": [[1, 2], [2, 1], {"a": 1}, {"a": 2}, {1: 2}, {"a", "b", "c"}, {"a"}],
        "types": [np.dtype("int8"), np.dtype("int16"), np.float32, Colour.RED, Colour.BLUE],
        "records": [Pair(1, 2), Pair(1, 3), Crop(3), Crop(4), Path("a"), Path("b")],
        "callables": [
            halve,
            halve_and_shift,
            times(2),
            times(3),
            Shift(1),
            Shift(2),
            Shift(1).__call__,
            partial(halve),
            partial(times, 2),
            partial(times, factor=2),
            jax.jit(halve),
            jnp.sin,
            len,
        ],
        "optimisers": [
            optax.adam(1e-2),
            optax.adam(1e-3),
            optax.rmsprop(1e-2),
            optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
            optax.sgd(optax.cosine_decay_schedule(0.1, 11)),
            optax.chain(optax.clip(1.0), optax.adam(1e-2)),
        ],
        "settings": [DMBP(), DMBP(steps=3), DMBP(optimizer=optax.adam(1e-2))],
        "networks": [
            dmbp_jax.load("builtin").preprocessing,
            dmbp_jax.load("builtin").module,
            jax.tree.structure(dmbp_jax.load("builtin")),
            jax.tree.structure({"a": 1}),
        ],
    }


@pytest.mark.parametrize("kind", values())
def test_equal_values_are_alike_and_others_are_not(kind: str) -> None:
    first, again = values()[kind], values()[kind]
    assert [fingerprint(v) for v in first] == [fingerprint(v) for v in again]
    assert len({fingerprint(v) for v in first}) == len(first)


def test_it_is_json_without_addresses() -> None:
    text = json.dumps(describe(values()), allow_nan=False)
    assert json.loads(text) == describe(values())
    assert not re.search("0x[0-9a-f]{6}", text)


@pytest.mark.slow
def test_another_process_says_the_same() -> None:
    """With another hash seed, so that sets are in another order."""
    code = "import test_fingerprint as t; print(t.fingerprint(t.values()))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_code_is_followed_into_globals_of_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(halve), fingerprint(halve_and_shift)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    after = fingerprint(halve), fingerprint(halve_and_shift)
    assert before[0] != after[0] and before[1] != after[1]
    monkeypatch.setitem(globals(), "halve", lambda x: x / 4)
    assert fingerprint(halve_and_shift) != after[1]


def test_where_the_code_stands_does_not_matter() -> None:
    def compiled(source: str) -> Any:
        names: dict[str, Any] = {"__name__": "somewhere"}
        exec(source, names)
        return names["f"]

    one = compiled("def f(x):\n    return x + 1\n")
    assert fingerprint(one) == fingerprint(compiled("\n\n# moved\ndef f(x):\n    return x + 1\n"))
    assert fingerprint(one) != fingerprint(compiled("def f(x):\n    return x + 2\n"))
    assert fingerprint(one) != fingerprint(compiled("def f(x, y=1):\n    return x + 1\n"))


def test_what_contains_itself_ends() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert describe(ring) == [1, {"recursion": "list"}]

    def countdown(n: int) -> int:
        return n and countdown(n - 1)

    assert describe(countdown) == describe(countdown)
