"""Table 3 on the built-in network: signed and absolute rank correlation, last layer re-drawn.

    python -m benchmarks reinitialisation [--pictures 16] [--redraws 5] [--methods gradient dmbp …]

Generated pictures, each for the first of its labels. Options of the methods are their defaults.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

import dmbp_jax
from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.data import list_generated
from dmbp_jax.metrics import layer_reinitialisation


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row per method: mean over the pictures, plus or minus its standard error."""
    names = tuple(method.name for method in CATALOGUE)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--redraws", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="NAME")
    options = parser.parse_args(arguments)
    net = dmbp_jax.load("builtin")
    pictures = list_generated(size=options.pictures).pictures
    x = np.stack([net.preprocess(picture.open()) for picture in pictures])
    labels = np.array([picture.labels[0] for picture in pictures])
    print(
        f"{options.pictures} pictures, {options.redraws} re-drawings, {jax.devices()[0].platform}"
    )
    print("| method | signed | absolute | undefined |\n|---|---|---|---|")
    for method in (row for row in CATALOGUE if row.name in options.methods):
        function = partial(method.function, key=jax.random.key(0))  # the same noise every time
        result = layer_reinitialisation(
            net, x, labels, function, key=jax.random.key(1), redraws=options.redraws
        )
        undefined = int(np.isnan(result.correlations).sum())
        cells = [_cell(result.correlation), _cell(result.correlation_absolute), str(undefined)]
        print(f"| {method.title} | {' | '.join(cells)} |", flush=True)


def _cell(values: jax.Array) -> str:
    known = np.asarray(values)[np.isfinite(values)]
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else np.nan
    return f"{known.mean() if len(known) else np.nan:.2f} ± {error:.2f}"
