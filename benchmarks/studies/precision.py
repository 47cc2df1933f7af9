"""What `precision` and `dtype` of `dmbp_jax.DMBP` change: y±, the order of the pixels, and IM.

Every setting is compared with float64; the insertion metric always asks the float32 network:

    python -m benchmarks precision
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import dmbp_jax
from benchmarks.faithfulness import real_networks
from dmbp_jax.data.generated import generate
from dmbp_jax.metrics import insertion, rank_correlation

SETTINGS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": "float64", "precision": "highest"},
    "float32, highest": {"precision": "highest"},
    "float32, default": {},
    "float32, tensorfloat32": {"precision": "tensorfloat32"},
    "float32, bfloat16": {"precision": "bfloat16"},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
_NOT_ON_CPU = ("float32, default", "float32, tensorfloat32", "float32, bfloat16")


class Case(NamedTuple):
    """A network with pictures of known classes."""

    name: str
    params: Any
    apply_fn: Any
    x: np.ndarray
    labels: np.ndarray
    activation: str


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=("builtin", "squeezenet"))
    parser.add_argument("--images", type=int, default=8, help="pictures per network")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--points", type=int, default=33, help="of the insertion curve")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="default: all that differ")
    parser.add_argument("--json", type=Path, default=Path("precision.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    args = parse(arguments)
    device = jax.devices()[0]
    results: dict[str, Any] = {
        "device": f"{device.device_kind} ({device.platform})",
        "jax": jax.__version__,
        "steps": args.steps,
        "rows": [],
    }
    print(f"{results['device']}, jax {results['jax']}, {args.steps} steps")
    settings = args.settings or list(SETTINGS)
    if device.platform == "cpu" and not args.settings:
        print("On a CPU `precision` changes nothing, only `dtype` does.")
        settings = [key for key in SETTINGS if key not in _NOT_ON_CPU]
    available = ["builtin", *(["squeezenet"] if real_networks.HAVE_REAL else [])]
    for name in args.networks or available:
        case = load_case(name, args.images)
        reference = attribute(case, "float64", args.steps)
        print(f"\n{name}, {len(case.x)} pictures; differences are from float64, worst picture")
        print(f"{'':24}{'y+':>9}{'y-':>9}{'rank corr.':>12}{'(worst)':>9}{'IM':>8}{'finite':>8}")
        for setting in settings:
            row = {"network": name, "setting": setting}
            result = reference if setting == "float64" else attribute(case, setting, args.steps)
            row |= compare(case, result, reference, args.points)
            results["rows"].append(row)
            print(
                f"{setting:24}{row['y_positive']:9.1e}{row['y_negative']:9.1e}"
                f"{row['rank_mean']:12.4f}{row['rank_worst']:9.4f}"
                f"{row['insertion']:8.4f}{row['finite']:8.0%}",
                flush=True,
            )
    args.json.write_text(json.dumps(results, indent=1))
    print(f"\nwrote {args.json}")


def load_case(name: str, count: int) -> Case:
    """The built-in network with generated pictures, or SqueezeNet with photos."""
    if name == "builtin":
        network = dmbp_jax.load("builtin")
        samples = [generate(0, index) for index in range(count)]
        x = np.stack([network.preprocess(Image.fromarray(sample.image)) for sample in samples])
        labels = np.array([int(np.argmax(sample.labels)) for sample in samples])
        return Case(name, network, None, x, labels, "sigmoid")
    params, apply_fn, preprocess = real_networks.squeezenet()
    paths, labels = real_networks.photos()
    x = np.stack([preprocess(path) for path in paths[:count]])
    return Case(name, params, apply_fn, x, labels[: len(x)], "softmax")


def attribute(case: Case, setting: str, steps: int) -> dmbp_jax.Attribution:
    """All pictures of a case in one setting, as NumPy arrays."""
    config = dmbp_jax.DMBP(steps=steps, **SETTINGS[setting])
    double = setting == "float64"

    def cast(a: Any) -> Any:
        return np.asarray(a, np.float64) if double else a

    with jax.enable_x64(double):
        result = dmbp_jax.attribute(
            jax.tree.map(cast, case.params),
            cast(case.x),
            case.labels,
            apply_fn=case.apply_fn,
            config=config,
        )
        return jax.tree.map(np.asarray, result)


def compare(
    case: Case, result: dmbp_jax.Attribution, reference: dmbp_jax.Attribution, points: int
) -> dict[str, float]:
    """Differences of y± relative to the larger of the two, rank correlation, and mean IM.

    Of the pictures that stayed finite; of the others an empty map is inserted.
    """
    finite = np.asarray(result.status)
    scale = np.maximum(np.abs(reference.y_positive), np.abs(reference.y_negative))
    heatmaps = np.where(finite[:, None, None], result.heatmap, 0).astype(np.float32)
    ranks = rank_correlation(heatmaps, np.asarray(reference.heatmap, np.float32))

    def worst(found: Any, expected: Any) -> float:
        return float(np.max(np.abs(found - expected) / scale, where=finite, initial=0))

    curve = insertion(
        case.params,
        case.x,
        case.labels,
        jnp.asarray(heatmaps),
        apply_fn=case.apply_fn,
        activation=case.activation,  # type: ignore[arg-type]
        points=points,
    )
    return {
        "y_positive": worst(result.y_positive, reference.y_positive),
        "y_negative": worst(result.y_negative, reference.y_negative),
        "rank_mean": float(np.mean(ranks, where=finite)),
        "rank_worst": float(np.min(ranks, where=finite, initial=1)),
        "insertion": float(np.asarray(curve.auc).mean()),
        "finite": float(finite.mean()),
    }


if __name__ == "__main__":
    main()
