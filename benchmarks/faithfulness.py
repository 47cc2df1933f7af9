"""The study of docs/faithfulness.md: every map on every network, by several measures, with costs.

    python benchmarks/faithfulness.py --out faithfulness [--half choose|report|all]
        [--networks resnet20 builtin] [--rows gradient quick quick:alternate=0,spread] [--limit 8]

Prints Markdown tables. OUT/NETWORK.json keeps a number for each picture and row, OUT/maps the
heat maps; what is there is not computed again, so the study can be run piecewise.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from faithfulness_cases import (
    NETWORKS,
    ROWS,
    Case,
    check_row,
    count_passes,
    make_case,
    parse_row,
)
from faithfulness_tables import tables

import dmbp_jax
from dmbp_jax import metrics
from dmbp_jax.catalogue import find_method
from dmbp_jax.files import replacing

_CHUNK = {"squeezenet": 2}  # pictures explained at once
_SECOND_BLUR = ("gaussian", 5, 1.5)

Numbers = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing and print the tables of everything asked for."""
    options = parse(arguments)
    options.out.joinpath("maps").mkdir(parents=True, exist_ok=True)
    for network in options.networks:
        records = update(network, options)
        prefix = f"{options.half}/"
        rows = {row: records[prefix + row] for row in options.rows if prefix + row in records}
        if rows:
            maps = {row: load_negative(maps_file(options, network, row)) for row in rows}
            print(tables(NETWORKS[network], rows, maps, options.against), flush=True)


def update(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """The records of one network, with those measured that are missing and whose files are here."""
    store = options.out / f"{network}.json"
    records: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    case = make_case(network, options.half, options.limit, options.deep)
    if case is None:
        print(f"{network}: skipped, its files are absent", flush=True)
        return {}
    for row in options.rows:
        key = f"{options.half}/{row}"
        known = records.get(key, {})
        if (
            known.get("pictures") == list(case.names)
            and known["points"] == options.points
            and known.get("redraws", 0) >= options.redraws
        ):
            continue
        maps = maps_file(options, network, row)
        records[key] = measure(case, network, row, options, maps)
        with replacing(store) as part:
            Path(part).write_text(json.dumps(records, indent=1))
        print(f"{network}, {key}: measured", flush=True)
    return records


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(prog="python benchmarks/faithfulness.py")
    parser.add_argument("--out", type=Path, default=Path("faithfulness"), help="folder of results")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", "--methods", nargs="+", type=check_row, default=list(ROWS))
    parser.add_argument("--half", choices=("choose", "report", "all"), default="report")
    parser.add_argument("--against", default="gradient", help="row of the paired differences")
    parser.add_argument("--limit", type=int, help="pictures of each network")
    parser.add_argument("--points", type=int, default=33, help="of IM; half as many elsewhere")
    parser.add_argument("--redraws", type=int, default=0, help="of the last layer (Table 3)")
    parser.add_argument("--deep", type=Path, help="weights of the deeper built-in network")
    return parser.parse_args(arguments)


def maps_file(options: argparse.Namespace, network: str, row: str) -> Path:
    """Where the heat maps of one network, half and row lie."""
    return options.out / "maps" / f"{network} {options.half} {row}.npz"


def load_negative(path: Path) -> np.ndarray | None:
    """The negative heat maps of a DMBP row."""
    with np.load(path) as stored:
        return stored["negative"] if "negative" in stored.files else None


def measure(
    case: Case, network: str, row: str, options: argparse.Namespace, maps: Path
) -> dict[str, Any]:
    """All numbers of one row on one network; its heat maps go to a file."""
    chunk = _CHUNK.get(network, 10)
    record, heat = score(case, row, options.points, chunk, options.redraws)
    with replacing(maps) as part:
        np.savez_compressed(part, **heat)
    return record


def score(
    case: Case, row: str, points: int, chunk: int = 10, redraws: int = 0
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All numbers of one row, a list over the pictures for each, and its heat maps."""
    heat, numbers, seconds = explain(case, row, chunk)
    heatmap = jnp.asarray(heat["heatmap"])
    numbers |= curves(case, heatmap, points) | places(case, heatmap)
    if redraws:
        numbers |= redrawn(case, row, heatmap, chunk, redraws)
    record = {
        "pictures": list(case.names),
        "points": points,
        "redraws": redraws,
        "passes": count_passes(row),
        "seconds": seconds,
        "numbers": {name: [round(float(v), 6) for v in vs] for name, vs in numbers.items()},
    }
    return record, heat


def explain(case: Case, row: str, chunk: int) -> tuple[dict[str, np.ndarray], Any, float | None]:
    """Heat maps, numbers that come with them, and seconds a picture without the compilation.

    Seconds are those of the fastest chunk after the first; None where there is only one.
    """
    parts, times = [], []
    for start in range(0, len(case.x), chunk):
        began = time.perf_counter()
        rows = slice(start, start + chunk)
        parts.append(_explain_chunk(case, row, case.x[rows], case.labels[rows]))
        times.append((time.perf_counter() - began) / len(case.labels[rows]))
    heat, numbers = (
        {name: np.concatenate([part[i][name] for part in parts]) for name in parts[0][i]}
        for i in (0, 1)
    )
    return heat, numbers, min(times[1:], default=None)


def _explain_chunk(case: Case, row: str, x: jax.Array, labels: np.ndarray) -> tuple[Any, Any]:
    call = {"apply_fn": case.apply_fn, "chunk_size": len(x)}
    dmbp = parse_row(row)
    if dmbp is None:
        method = dmbp_jax.methods.METHODS[row]
        options = {"key": jax.random.key(0)} if find_method(row).random else {}
        heat = method(case.params, x, labels, **call, **options)
        heat = heat.sum(-1) if heat.ndim == 4 else heat
        total = _completeness_target(case, row, x, labels)
        shares = {} if total is None else {"carried+": metrics.carried(heat, total)}
        return jax.tree.map(np.asarray, ({"heatmap": heat}, shares))
    config, biases = dmbp
    call["nonaffine"] = case.nonaffine
    a = dmbp_jax.attribute(case.params, x, labels, config=config, biases=biases, **call)
    heat = {"heatmap": a.heatmap, "negative": a.negative.sum(-1)}
    numbers = {
        "carried+": a.carried[:, 0],
        "carried-": a.carried[:, 1],
        "nuisance": jnp.abs(a.y_nuisance) / jnp.maximum(a.y_positive, -a.y_negative),
        "y+": a.y_positive,
        "y-": a.y_negative,
        "against": -a.y_negative / a.y_positive,
    }
    return jax.tree.map(np.asarray, (heat, numbers))


def _completeness_target(case: Case, row: str, x: jax.Array, labels: np.ndarray) -> Any:
    """What a signed method's map should sum to, or None."""
    if row == "gradient":
        call = {"apply_fn": case.apply_fn, "nonaffine": case.nonaffine}
        return dmbp_jax.attribute(case.params, x, labels, config=dmbp_jax.DMBP(steps=0), **call).y
    if row not in ("integrated_gradients", "deeplift"):
        return None
    at_image, at_zero = (_logits(case, z)[np.arange(len(x)), labels] for z in (x, 0 * x))
    return at_image - at_zero


def _logits(case: Case, x: jax.Array) -> jax.Array:
    return case.params(x) if case.apply_fn is None else case.apply_fn(case.params, x)


def curves(case: Case, heatmap: jax.Array, points: int) -> Numbers:
    """Areas under insertion (three ways to hide pixels), deletion and complementary insertion."""
    call: dict[str, Any] = {"apply_fn": case.apply_fn, "activation": case.activation}
    fewer = points // 2 + 1

    def inserted(blur: Any, points: int) -> Any:
        return metrics.insertion(
            case.params, case.x, case.labels, heatmap, blur=blur, points=points, **call
        ).auc

    numbers = {
        "IM": inserted("rise", points),
        "IM blur": inserted(_SECOND_BLUR, fewer),
        "IM mean": inserted("zero", fewer),
        "deletion": metrics.deletion(
            case.params, case.x, case.labels, heatmap, points=fewer, **call
        ).auc,
    }
    if case.others is not None:
        others = [[int(label)] for label in case.others]
        numbers["cIM"] = metrics.complementary_insertion(
            case.params, case.x, others, heatmap, points=points, **call
        ).auc
    return numbers


def redrawn(case: Case, row: str, heatmap: jax.Array, chunk: int, redraws: int) -> Numbers:
    """Rank correlation with the maps after the last layer is re-drawn (the paper's Table 3)."""

    def method(params: Any, x: jax.Array, label: jax.Array, apply_fn: Any) -> np.ndarray:
        return explain(replace(case, params=params), row, chunk)[0]["heatmap"]

    result = metrics.layer_reinitialisation(
        case.params,
        case.x,
        case.labels,
        method,
        apply_fn=case.apply_fn,
        key=jax.random.key(1),
        redraws=redraws,
        heatmap=heatmap,
    )
    return {"re-drawn": result.correlation, "re-drawn, |h|": result.correlation_absolute}


def places(case: Case, heatmap: jax.Array) -> Numbers:
    """Where a map puts its evidence, for pictures whose objects are known."""
    numbers: dict[str, Any] = {}
    if case.objects is not None:
        numbers["pointing"] = metrics.pointing_game(heatmap, case.objects, tolerance=0).hit
        numbers["inside"] = metrics.attribution_inside(heatmap, case.objects)
    if case.rivals is not None:
        numbers["rival"] = metrics.attribution_inside(heatmap, case.rivals, sign="negative")
    return numbers


if __name__ == "__main__":
    main()
