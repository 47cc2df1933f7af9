"""Which slope smooth activations should have: maps of networks that differ in their activation.

    for name in relu leaky_relu gelu silu tanh; do
        python -m benchmarks train_builtin --out variants/$name.safetensors --activation $name
    done
    python -m benchmarks train_builtin --out variants/vit.safetensors --network vit
    python -m benchmarks activations variants [--limit 20] [--base quick] [--measures all]

One table: secant, tangent and segments, and the secant with its biases carried back, beside
gradient × input and integrated gradients, for each network of the folder. FOLDER/scores.json keeps
the numbers of each picture; what is there is not computed again (delete it after a new training).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors.flax import load_file

import dmbp_jax
from benchmarks.faithfulness.faithfulness import as_record, score
from benchmarks.faithfulness.faithfulness_cases import Case, generated_case
from benchmarks.faithfulness.faithfulness_tables import tables
from benchmarks.training.train_builtin import EXACT, VARIANTS, make_variant
from dmbp_jax.files import replacing

SHIPPED = "shipped"
COMPARED = {"gradient": "gradient × input", "integrated_gradients": "integrated gradients"}
SLOPES = ("secant", "tangent", "segments")  # the first is what the others are compared with
MEASURES = ("IM", "cIM", "pointing", "inside", "rival", "carried+")
HEADS = {"rival": "rival (−)", "carried+": "carried⁺, median"}

Records = dict[str, dict[str, Any]]  # row of `faithfulness.py` -> what it measures


def main(arguments: list[str] | None = None) -> None:
    """Measure every network of the folder and print the table."""
    options = parse(arguments)
    found: dict[str, Records] = {}
    for name in (SHIPPED, *VARIANTS) if options.shipped else VARIANTS:
        weights = options.folder / f"{name}.safetensors"
        if name == SHIPPED or weights.exists():
            rows = choose_rows(name, options.base)
            found[name] = update(name, weights, rows, options)
            if options.measures == "all":
                print(tables(name, found[name], {}, rows[len(COMPARED)]), flush=True)
    print("\n".join(summary(found)))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of weights, one file for each variant")
    parser.add_argument("--limit", type=int, default=20, help="pictures")
    parser.add_argument("--points", type=int, default=33, help="of IM; half as many elsewhere")
    parser.add_argument("--base", choices=("quick", "paper"), default="quick")
    parser.add_argument("--shipped", action="store_true", help="also the network that is shipped")
    parser.add_argument(
        "--measures", choices=("few", "all"), default="few", help="all: also those of faithfulness"
    )
    return parser.parse_args(arguments)


def choose_rows(name: str, base: str) -> list[str]:
    """The maps of a network, as rows of `faithfulness.py`; the first of DMBP is the reference."""
    if name in (SHIPPED, *EXACT):
        return [*COMPARED, base, f"{base}:carry"]
    slopes = [f"{base}:pointwise={slope}" for slope in SLOPES]
    return [*COMPARED, *slopes, f"{base}:pointwise={SLOPES[0]},carry"]


def make_case(name: str, weights: Path, limit: int) -> Case:
    """A trained network, or the shipped one, with generated pictures of an object and its rival."""
    if name == SHIPPED:
        return generated_case(dmbp_jax.load("builtin"), None, range(limit), with_rival=True)
    module, nonaffine = make_variant(name)
    variables = unflatten_dict(load_file(weights), sep="/")
    return generated_case(variables, module.apply, range(limit), True, nonaffine)


def update(name: str, weights: Path, rows: Sequence[str], options: argparse.Namespace) -> Records:
    """The records of one network; what is missing in the folder is measured and written there."""
    store = options.folder / "scores.json"
    stored: dict[str, Records] = json.loads(store.read_text()) if store.exists() else {}
    case = make_case(name, weights, options.limit)
    records = stored.setdefault(name, {})
    for row in rows:
        known = records.get(row, {})
        if known.get("pictures") != list(case.names) or known["points"] != options.points:
            lines, _ = score(case, row, options.points)
            records[row] = as_record(dict(zip(case.names, lines, strict=True)))
            with replacing(store) as part:
                Path(part).write_text(json.dumps(stored, indent=1))
    return {row: records[row] for row in rows}


def summary(found: dict[str, Records]) -> list[str]:
    """The table: means over the pictures; IM also less that of the first row of DMBP, paired."""
    heads = [HEADS.get(name, name) for name in MEASURES]
    heads.insert(1, "IM − first of DMBP")
    lines = [f"| network | map | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for name, records in found.items():
        lines += _rows(name, records)
    smooth = {name: found[name] for name in found if name not in (SHIPPED, *EXACT)}
    if len(smooth) > 1:
        lines += _rows(f"mean of {', '.join(smooth)}", _joined(smooth))
    return lines


def _rows(name: str, records: Records) -> list[str]:
    """The rows of one network."""
    lines = []
    reference = list(records)[len(COMPARED)]
    for row, record in records.items():
        cells = [_cell(record["numbers"], measure) for measure in MEASURES]
        cells.insert(1, "" if row == reference else _difference(record, records[reference]))
        lines.append(f"| {name} | {_title(row)} | {' | '.join(cells)} |")
    return lines


def _joined(networks: dict[str, Records]) -> Records:
    """The pictures of several networks as those of one."""
    first, *others = networks.values()
    return {
        row: {
            "numbers": {
                measure: sum((r[row]["numbers"][measure] for r in others), values)
                for measure, values in record["numbers"].items()
            }
        }
        for row, record in first.items()
    }


def _title(row: str) -> str:
    if row in COMPARED:
        return COMPARED[row]
    options = row.partition(":")[2].replace("pointwise=", "").replace("carry", "biases carried")
    return ", ".join(["dmbp", *filter(None, options.split(","))])


def _cell(numbers: dict[str, list[float]], measure: str) -> str:
    if measure not in numbers:
        return "–"
    mean = np.median if measure.startswith("carried") else np.nanmean
    return f"{mean(numbers[measure]):.3f}"


def _difference(record: dict[str, Any], reference: dict[str, Any]) -> str:
    """Of IM, paired: mean and standard error."""
    difference = np.subtract(record["numbers"]["IM"], reference["numbers"]["IM"])
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
    return f"{difference.mean():+.3f} ± {error:.3f}"
