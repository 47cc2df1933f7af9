"""The Markdown tables of `faithfulness.py`: means over pictures, paired differences, costs."""

from typing import Any

import numpy as np

from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.experiments.paper import DASH, paper_value
from dmbp_jax.metrics import rank_correlation

_TITLES = {method.name: method.title for method in CATALOGUE}
_MEANS = (
    *("IM blur", "IM mean", "deletion", "cIM", "pointing", "inside", "rival"),
    *("re-drawn", "re-drawn, |h|", "lattice", "lattice of the photo"),
)
_PAIRED = ("IM", "deletion", "cIM")
_MEDIANS = ("carried+", "carried-", "nuisance", "y+", "y-", "against")
_HEADS = {"nuisance": "&#124;ỹ&#124; / max", "y+": "y⁺", "y-": "y⁻", "against": "−y⁻ / y⁺"}
_HEADS |= {"carried+": "carried⁺", "carried-": "carried⁻", "deletion": "deletion (low is good)"}
_HEADS |= {"re-drawn, |h|": "re-drawn, &#124;h&#124;"}


def tables(
    title: str,
    rows: dict[str, Any],
    negatives: dict[str, np.ndarray | None],
    against: str = "gradient",
    network: str = "",
) -> str:
    """Two tables of one network: how faithful the maps are, and what they carry and cost.

    Args:
      against: the row that the paired differences of IM, deletion and cIM are taken to.
      network: "resnet50" and "vgg16" have the paper's numbers on ImageNet beside them.
    """
    counts = sorted({len(record["pictures"]) for record in rows.values()})
    pictures = " or ".join(str(count) for count in counts)
    of_paper = network in ("resnet50", "vgg16")
    points = sorted({record["points"] for record in rows.values()})
    used = {name for record in rows.values() for name in record["numbers"]}
    means = [name for name in _MEANS if name in used]
    medians = [name for name in _MEDIANS if name in used]
    faithful = [[""]]
    for name in ("IM", *means):
        faithful[0].append(_HEADS.get(name, name))
        if name in _PAIRED:
            faithful[0].append(f"− {_title(against)}, paired")
    if of_paper:
        faithful[0].append("paper's IM")
    if len(counts) > 1:
        faithful[0].append("pictures")
    costs = [["", *(_HEADS.get(name, name) for name in medians), "ρ⁻ to quick", "passes", "s"]]
    for row, record in rows.items():
        numbers = record["numbers"]
        cells = []
        for name in ("IM", *means):
            cells.append(_mean(numbers.get(name)))
            if name in _PAIRED:
                cells.append(_difference(rows, row, against, name))
        if of_paper:
            cells.append(_of_paper(row, network))
        if len(counts) > 1:
            cells.append(str(len(record["pictures"])))
        faithful.append([_title(row), *cells])
        seconds = record["seconds"]
        costs.append(
            [
                _title(row),
                *(_median(numbers.get(name)) for name in medians),
                _agreement(rows, negatives, row),
                str(record["passes"]),
                "–" if seconds is None else f"{seconds:.2g}",
            ]
        )
    head = f"### {title}: {pictures} pictures, {' or '.join(map(str, points))} points\n"
    return "\n".join([head, *_markdown(faithful), "", *_markdown(costs), ""])


BIASES_DRAWN = {"spread": "biases spread", "refine": "refined", "carry": "biases carried"}


def _of_paper(row: str, network: str) -> str:
    """IM as the paper prints it for ImageNet, whose networks have other weights and photos."""
    base, _, options = row.partition(":")
    variants = {"": "dmbp", "loss=positive": "dmbp-positive"}
    variants["loss=positive-negative"] = "dmbp-positive-negative"
    method = variants.get(options, "") if base == "paper" else base
    tables_of = (2, 1) if method in ("gradient", "dmbp") else (2,) if base != "paper" else (1,)
    found = [paper_value(table, "im", method, "imagenet", network) for table in tables_of]
    return " / ".join(dict.fromkeys(value for value in found if value != DASH))


def _markdown(lines: list[list[str]]) -> list[str]:
    rule = ["---"] * len(lines[0])
    return [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]


def _title(row: str) -> str:
    base, _, rest = row.partition(":")
    if base in _TITLES and base not in ("paper", "quick"):
        return _TITLES[base] + (f" ({rest})" if rest else "")
    parts = [part for part in rest.split(",") if part]
    options = ", ".join(part for part in parts if part not in BIASES_DRAWN)
    drawn = "".join(f", {BIASES_DRAWN[part]}" for part in parts if part in BIASES_DRAWN)
    return f"`DMBP.{base}({options})`{drawn}"


def _mean(values: list[float] | None) -> str:
    return "" if values is None else f"{np.nanmean(values):.3f}"


def _median(values: list[float] | None) -> str:
    return "" if values is None else f"{np.median(values):.3g}"


def _difference(rows: dict[str, Any], row: str, against: str, measure: str) -> str:
    """Mean paired difference of a measure to another row and its standard error."""
    if row == against or against not in rows:
        return ""
    own, other = (
        dict(zip(rows[name]["pictures"], rows[name]["numbers"].get(measure, ()), strict=False))
        for name in (row, against)
    )
    both = [own[name] - other[name] for name in own if name in other]
    differences = np.array([one for one in both if np.isfinite(one)])
    if len(differences) < 2:
        return ""
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.3f} ± {error:.3f}"


def _agreement(rows: dict[str, Any], negatives: dict[str, np.ndarray | None], row: str) -> str:
    """Mean Spearman correlation of the negative heat maps with those of `quick`.

    Of complete maps, with those of `quick` that draw the biases in the same way.
    """
    drawn = [part for part in row.partition(":")[2].split(",") if part in BIASES_DRAWN]
    reference = ":".join(["quick", *drawn])
    ours, theirs = negatives.get(reference), negatives.get(row)
    if row == reference or ours is None or theirs is None:
        return ""
    both = [name for name in rows[row]["pictures"] if name in rows[reference]["pictures"]]
    a, b = (
        maps[[rows[name]["pictures"].index(picture) for picture in both]]
        for name, maps in ((reference, ours), (row, theirs))
    )
    return f"{np.nanmean(rank_correlation(a, b)):.2f}" if both else ""
