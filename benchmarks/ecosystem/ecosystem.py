"""Networks of other packages, unchanged: what is found in them, completeness, tracing, compiling.

Prints the table of docs/ecosystem.md. Networks whose package is not installed are left out.
"""

import argparse
import os
import time
from collections import Counter
from importlib.util import find_spec
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import dmbp_jax
from benchmarks.ecosystem.ecosystem_networks import ROWS, Foreign
from dmbp_jax.dmbp.decomposition import attribution_by_backward
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.tracing import TracedNetwork

STEPS = 3
LABEL = 1
HEADER = """\
| network | package | activations | pools | frozen | F₁ − F | completeness | steps | trace | compile |
|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


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


if __name__ == "__main__":
    main()
