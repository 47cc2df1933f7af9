"""The study of docs/faithfulness.md: every map on every network, by several measures, with costs.

    python -m benchmarks faithfulness --out faithfulness [--half choose|report|all]
        [--networks resnet20 builtin] [--rows gradient quick quick:steps=4,spread] [--limit 8]

Prints Markdown tables. OUT/NETWORK.jsonl keeps a line for each picture and row, OUT/maps the heat
maps; what is there is not computed again, so the study can be stopped and run piecewise.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dmbp_jax
from benchmarks.faithfulness.faithfulness_cases import (
    NETWORKS,
    ROWS,
    Case,
    check_row,
    count_passes,
    make_case,
    method_options,
    parse_row,
)
from benchmarks.faithfulness.faithfulness_tables import tables
from dmbp_jax import metrics
from dmbp_jax.catalogue import find_method
from dmbp_jax.files import replacing

# Pictures explained at once.
_CHUNK = {"squeezenet": 2, "resnet50": 4, "resnet50-mosaics": 4, "vgg16": 2, "vgg16-mosaics": 2}
_CURVES = ("IM", "IM blur", "IM mean", "deletion", "cIM")
_LATTICE_FROM = 128  # pixels a side: a small picture has too few periods
_SECOND_BLUR = ("gaussian", 5, 1.5)

Numbers = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing and print the tables of everything asked for."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for network in options.networks:
        records = update(network, options)
        rows = {row: records[row] for row in options.rows if row in records}
        if rows:
            maps = {row: negative_maps(options, network, row, rows[row]) for row in rows}
            print(tables(NETWORKS[network], rows, maps, options.against, network), flush=True)


def update(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """The records of one network's rows, after what was missing was measured.

    Every picture of a row is a line of OUT/NETWORK.jsonl as soon as it is measured, so that a run
    that is stopped loses one chunk.
    """
    store = options.out / f"{network}.jsonl"
    known = read_lines(store, options.half)
    if options.tables_only:
        return {row: as_record(lines) for row, lines in known.items()}
    case = make_case(network, options.half, options.limit, options.deep)
    if case is None:
        print(f"{network}: skipped, its files are absent", flush=True)
        return {}
    for row in options.rows:
        lines = known.setdefault(row, {})
        missing = [
            i for i, name in enumerate(case.names) if not is_enough(lines.get(name), options)
        ]
        chunk = _CHUNK.get(network, 10)
        for start in range(0, len(missing), chunk):
            part = case.take(missing[start : start + chunk])
            asked = options.points, options.measures, options.redraws
            made, heat = score(part, row, *asked, is_first=start == 0)
            keep_maps(options, network, row, part.names, heat)
            with store.open("a") as file:
                for name, line in zip(part.names, made, strict=True):
                    lines[name] = line
                    kept = {"half": options.half, "row": row, "picture": name} | line
                    file.write(json.dumps(kept) + "\n")
        if missing:
            print(f"{network}, {options.half}/{row}: measured", flush=True)
        # Those of this call alone, in its order.
        known[row] = {name: lines[name] for name in case.names}
    return {row: as_record(lines) for row, lines in known.items()}


def read_lines(store: Path, half: str) -> dict[str, dict[str, Any]]:
    """What was measured of one half: row -> picture -> line; the last line of a picture counts."""
    known: dict[str, dict[str, Any]] = {}
    for text in store.read_text().splitlines() if store.exists() else ():
        line = json.loads(text)
        if line["half"] == half:
            known.setdefault(line["row"], {})[line["picture"]] = line
    return known


def is_enough(line: dict[str, Any] | None, options: argparse.Namespace) -> bool:
    """Whether a picture's line has what is asked for."""
    return (
        line is not None
        and line["points"] == options.points
        and line["redraws"] >= options.redraws
        and all(name in line["numbers"] for name in options.measures if name != "cIM")
    )


def as_record(lines: dict[str, Any]) -> dict[str, Any]:
    """The lines of one row as one record: a list over the pictures for each number."""
    ours = list(lines.values())
    names = {name for line in ours for name in line["numbers"]}
    seconds = [line["seconds"] for line in ours if line["seconds"] is not None]
    return {
        "pictures": list(lines),
        "points": ours[0]["points"],
        "passes": ours[0]["passes"],
        "seconds": min(seconds, default=None),
        "numbers": {n: [line["numbers"].get(n, math.nan) for line in ours] for n in names},
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("faithfulness"), help="folder of results")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", "--methods", nargs="+", type=check_row, default=list(ROWS))
    parser.add_argument("--half", choices=("choose", "report", "all"), default="report")
    parser.add_argument("--against", default="gradient", help="row of the paired differences")
    parser.add_argument("--limit", type=int, help="pictures (or mosaics) of each network")
    parser.add_argument("--points", type=int, default=33, help="of IM; half as many elsewhere")
    parser.add_argument("--measures", nargs="+", choices=_CURVES, default=list(_CURVES))
    parser.add_argument("--redraws", type=int, default=0, help="of the last layer (Table 3)")
    parser.add_argument("--deep", type=Path, help="weights of the deeper built-in network")
    parser.add_argument("--tables-only", action="store_true", help="print what was measured")
    return parser.parse_args(arguments)


def maps_file(options: argparse.Namespace, network: str, row: str, picture: str) -> Path:
    """Where the heat maps of one picture lie."""
    folder = f"{network} {options.half} {row}".replace("/", "-")
    return options.out / "maps" / folder / f"{picture}.npz"


def keep_maps(
    options: argparse.Namespace, network: str, row: str, pictures: Sequence[str], heat: Any
) -> None:
    """A file for each picture."""
    for i, picture in enumerate(pictures):
        path = maps_file(options, network, row, picture)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            np.savez(part, **{name: maps[i] for name, maps in heat.items()})


def negative_maps(
    options: argparse.Namespace, network: str, row: str, record: dict[str, Any]
) -> np.ndarray | None:
    """The negative heat maps of a DMBP row."""
    if parse_row(row) is None:
        return None
    maps = []
    for picture in record["pictures"]:
        with np.load(maps_file(options, network, row, picture)) as stored:
            maps.append(stored["negative"])
    return np.stack(maps)


def score(
    case: Case,
    row: str,
    points: int,
    measures: Sequence[str] = _CURVES,
    redraws: int = 0,
    is_first: bool = True,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """A line for each picture, and the heat maps; the first chunk's seconds have a compilation."""
    began = time.perf_counter()
    heat, numbers = explain(case, row)
    seconds = (time.perf_counter() - began) / len(case.x)
    heatmap = jnp.asarray(heat["heatmap"])
    numbers |= curves(case, heatmap, points, measures) | places(case, heatmap)
    if redraws:
        numbers |= redrawn(case, row, heatmap, redraws)
    shared = {
        "points": points,
        "redraws": redraws,
        "passes": count_passes(row),
        "seconds": None if is_first else round(seconds, 4),
    }
    lines = [
        shared | {"numbers": {name: round(float(vs[i]), 6) for name, vs in numbers.items()}}
        for i in range(len(case.x))
    ]
    return lines, heat


def explain(case: Case, row: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Heat maps of all pictures at once, and the numbers that come with them."""
    x, labels = case.x, case.labels
    call = {"apply_fn": case.apply_fn, "chunk_size": len(x)}
    dmbp = parse_row(row)
    if dmbp is None:
        base = row.partition(":")[0]
        options = method_options(row)
        if find_method(base).random:
            options["key"] = jax.random.key(0)
        heat = dmbp_jax.methods.METHODS[base](case.params, x, labels, **call, **options)
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


def curves(case: Case, heatmap: jax.Array, points: int, measures: Sequence[str]) -> Numbers:
    """Areas under insertion (three ways to hide pixels), deletion and complementary insertion."""
    call: dict[str, Any] = {"apply_fn": case.apply_fn, "activation": case.activation}
    fewer = points // 2 + 1
    insertions = {
        "IM": ("rise", points),
        "IM blur": (_SECOND_BLUR, fewer),
        "IM mean": ("zero", fewer),
    }
    numbers = {
        name: metrics.insertion(
            case.params, case.x, case.labels, heatmap, blur=blur, points=count, **call
        ).auc
        for name, (blur, count) in insertions.items()
        if name in measures
    }
    if "deletion" in measures:
        numbers["deletion"] = metrics.deletion(
            case.params, case.x, case.labels, heatmap, points=fewer, **call
        ).auc
    if case.others is not None and "cIM" in measures:
        others = [[int(label)] for label in case.others]
        numbers["cIM"] = metrics.complementary_insertion(
            case.params, case.x, others, heatmap, points=points, **call
        ).auc
    return numbers


def redrawn(case: Case, row: str, heatmap: jax.Array, redraws: int) -> Numbers:
    """Rank correlation with the maps after the last layer is re-drawn (the paper's Table 3)."""

    def method(params: Any, x: jax.Array, label: jax.Array, apply_fn: Any) -> np.ndarray:
        return explain(replace(case, params=params), row)[0]["heatmap"]

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


def lattice(pictures: jax.Array, period: int = 16) -> np.ndarray:
    """Share of the power at the frequencies of dots every `period` pixels; (N, H, W).

    White noise has (period / size)², .005 at 224 pixels.
    """
    values = np.asarray(pictures, np.float64)
    power = abs(np.fft.fft2(values - values.mean((1, 2), keepdims=True))) ** 2
    rows, columns = (size // period for size in values.shape[1:])
    at_lattice = power[:, ::rows, ::columns].sum((1, 2))
    return at_lattice / np.maximum(power.sum((1, 2)), np.finfo(np.float64).tiny)


def places(case: Case, heatmap: jax.Array) -> Numbers:
    """Where a map puts its evidence, for pictures whose objects are known."""
    numbers: dict[str, Any] = {}
    if case.objects is not None:
        numbers["pointing"] = metrics.pointing_game(heatmap, case.objects, tolerance=0).hit
        numbers["inside"] = metrics.attribution_inside(heatmap, case.objects)
    if case.rivals is not None:
        numbers["rival"] = metrics.attribution_inside(heatmap, case.rivals, sign="negative")
    if heatmap.shape[1] >= _LATTICE_FROM:
        numbers["lattice"] = lattice(heatmap)
        numbers["lattice of the photo"] = lattice(case.x.sum(-1))
    return numbers
