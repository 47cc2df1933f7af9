"""Which slope smooth activations should have: maps of networks that differ in their activation.

    for name in relu leaky_relu gelu silu tanh; do
        python benchmarks/train_builtin.py --out variants/$name.safetensors --activation $name
    done
    python benchmarks/activations.py variants [--limit 20] [--base quick|fast|paper]

Prints the tables of `faithfulness.py` for each network of the folder: secant, tangent and segments
beside gradient × input, integrated gradients and, for scale, a ReLU network.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
from faithfulness import score
from faithfulness_cases import Case, generated_case
from faithfulness_tables import tables
from flax.traverse_util import unflatten_dict
from safetensors.flax import load_file
from train_builtin import ACTIVATIONS

import dmbp_jax
from dmbp_jax.models.builtin import BuiltinNet

COMPARED = ("gradient", "integrated_gradients")
SLOPES = ("secant", "tangent", "segments")
EXACT = ("relu", "leaky_relu")  # their slope is no choice


def main(arguments: list[str] | None = None) -> None:
    """Measure every network of the folder and print its tables."""
    options = parse(arguments)
    if not options.without_shipped:
        case = make_case(None, None, options.limit)
        show("the shipped ReLU network", case, [*COMPARED, options.base], options.points)
    for name in ACTIVATIONS:
        weights = options.folder / f"{name}.safetensors"
        if weights.exists():
            rows = [options.base]
            if name not in EXACT:
                rows = [f"{options.base}:pointwise={slope}" for slope in SLOPES]
            case = make_case(name, weights, options.limit)
            show(f"trained with {name}", case, [*COMPARED, *rows], options.points)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(prog="python benchmarks/activations.py")
    parser.add_argument("folder", type=Path, help="of weights, one file for each activation")
    parser.add_argument("--limit", type=int, default=20, help="pictures")
    parser.add_argument("--points", type=int, default=33, help="of IM; half as many elsewhere")
    parser.add_argument("--base", choices=("quick", "fast", "paper"), default="quick")
    parser.add_argument("--without-shipped", action="store_true", help="only those of the folder")
    return parser.parse_args(arguments)


def make_case(activation: str | None, weights: Path | None, limit: int) -> Case:
    """A trained network, or the shipped one, with generated pictures of an object and its rival."""
    if activation is None or weights is None:
        return generated_case(dmbp_jax.load("builtin"), None, range(limit), with_rival=True)
    net = BuiltinNet(activation=getattr(nn, activation))
    variables = unflatten_dict(load_file(weights), sep="/")
    return generated_case(variables, net.apply, range(limit), with_rival=True)


def show(title: str, case: Case, rows: Sequence[str], points: int) -> None:
    """Print the tables of one network; differences are paired with the first row of DMBP."""
    scored = {row: score(case, row, points) for row in rows}
    records = {row: record for row, (record, _) in scored.items()}
    negatives = {row: heat.get("negative") for row, (_, heat) in scored.items()}
    against = rows[len(COMPARED)]
    print(tables(title, records, negatives, against), flush=True)


if __name__ == "__main__":
    main()
