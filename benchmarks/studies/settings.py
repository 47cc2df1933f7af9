"""What a setting of `dmbp_jax.DMBP` changes: numbers' precision, the optimiser's ε, the schedule.

    python -m benchmarks precision
    python -m benchmarks epsilon --networks builtin resnet20
    python -m benchmarks schedules [--photos 24] [--points 65]

SqueezeNet, ResNet-20 and their photos lie outside the repository, see
benchmarks/faithfulness/real_networks.py.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import dmbp_jax
from benchmarks.faithfulness import real_networks
from dmbp_jax.data.generated import generate, rival
from dmbp_jax.metrics import insertion, rank_correlation

PRECISIONS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": "float64", "precision": "highest"},
    "float32, highest": {"precision": "highest"},
    "float32, default": {},
    "float32, tensorfloat32": {"precision": "tensorfloat32"},
    "float32, bfloat16": {"precision": "bfloat16"},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
_NOT_ON_CPU = ("float32, default", "float32, tensorfloat32", "float32, bfloat16")
OPTIMIZERS = {
    "PyTorch's: decay 0.99, ε outside": None,
    "decay 0.9, ε outside the root": optax.rmsprop(0.01, eps_in_sqrt=False),
    "`optax.rmsprop(0.01)`": optax.rmsprop(0.01),
}
SCHEDULES = {
    "paper: 200 steps": dmbp_jax.DMBP(),
    "60 steps": dmbp_jax.DMBP(steps=60),
    "30 steps": dmbp_jax.DMBP(steps=30),
    "30 steps, rate .03": dmbp_jax.DMBP(steps=30, learning_rate=0.03),
    "40 steps, rate .03": dmbp_jax.DMBP(steps=40, learning_rate=0.03),
    "DMBP.quick()": dmbp_jax.DMBP.quick(),
}
REAL = {
    "squeezenet": (real_networks.squeezenet, real_networks.photos),
    "resnet20": (real_networks.resnet20, real_networks.cifar),
}


class Case(NamedTuple):
    """A network with pictures of known classes."""

    name: str
    params: Any
    apply_fn: Any
    x: np.ndarray
    labels: np.ndarray


def generated_case(count: int, seed: int, rivals: bool = False) -> Case:
    """The built-in network with generated pictures; with `rivals`, of class i and its rival."""
    net = dmbp_jax.load("builtin")
    classes = [[i % 10, rival(i % 10)] if rivals else None for i in range(count)]
    samples = [generate(seed, i, classes=two) for i, two in enumerate(classes)]
    x = np.stack([net.preprocess(Image.fromarray(sample.image)) for sample in samples])
    first = [int(np.argmax(sample.labels)) for sample in samples]
    labels = [two[0] if two else one for two, one in zip(classes, first, strict=True)]
    return Case("builtin", net, None, x, np.array(labels))


def real_case(name: str, chosen: slice | range | np.ndarray) -> Case:
    """A network of `REAL` with some of its photos."""
    if not real_networks.HAVE_REAL:
        raise SystemExit(f"{name} needs weights and photos; set DMBP_REAL.")
    network, pictures = REAL[name]
    params, apply_fn, preprocess = network()
    paths, labels = pictures()
    indices = np.arange(len(paths))[chosen]
    x = np.stack([preprocess(paths[i]) for i in indices])
    return Case(name, params, apply_fn, x, labels[indices])


def compare_precisions() -> None:
    """What `DMBP(precision=..., dtype=...)` changes in y±, maps and insertion metric."""
    parser = argparse.ArgumentParser(description=compare_precisions.__doc__)
    parser.add_argument("--networks", nargs="+", choices=("builtin", "squeezenet"))
    parser.add_argument("--images", type=int, default=8, help="pictures per network")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--points", type=int, default=33, help="of the insertion curve")
    parser.add_argument(
        "--settings", nargs="+", choices=PRECISIONS, help="default: all that differ"
    )
    parser.add_argument("--json", type=Path, default=Path("precision.json"))
    args = parser.parse_args()
    device = jax.devices()[0]
    results: dict[str, Any] = {
        "device": f"{device.device_kind} ({device.platform})",
        "jax": jax.__version__,
        "steps": args.steps,
        "rows": [],
    }
    print(f"{results['device']}, jax {results['jax']}, {args.steps} steps")
    settings = args.settings or list(PRECISIONS)
    if device.platform == "cpu" and not args.settings:
        print("On a CPU `precision` changes nothing, only `dtype` does.")
        settings = [key for key in PRECISIONS if key not in _NOT_ON_CPU]
    available = ["builtin", *(["squeezenet"] if real_networks.HAVE_REAL else [])]
    for name in args.networks or available:
        count = args.images
        case = generated_case(count, 0) if name == "builtin" else real_case(name, slice(count))
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


def attribute(case: Case, setting: str, steps: int) -> dmbp_jax.Attribution:
    """All pictures of a case in one setting, as NumPy arrays."""
    config = dmbp_jax.DMBP(steps=steps, **PRECISIONS[setting])
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


def compare_optimizers() -> None:
    """The optimiser's ε: y⁺ and y⁻ after 200 steps with three RMSProps of the same rate."""
    parser = argparse.ArgumentParser(description=compare_optimizers.__doc__)
    parser.add_argument("--networks", nargs="+", default=["builtin"], choices=("builtin", *REAL))
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    count = args.pictures
    for name in args.networks:
        if name == "builtin":
            case = generated_case(count, 23, rivals=True)
        else:
            photos, _ = REAL[name][1]()
            case = real_case(name, range(0, len(photos), max(1, len(photos) // count))[:count])
        print(f"| RMSProp, {name} | y | y⁺ | y⁻ |\n|---|---|---|---|")
        for title, optimizer in OPTIMIZERS.items():
            config = dmbp_jax.DMBP(steps=args.steps, optimizer=optimizer)
            att = dmbp_jax.attribute(
                case.params, case.x, case.labels, apply_fn=case.apply_fn, config=config
            )
            means = [float(np.mean(part)) for part in (att.y, att.y_positive, att.y_negative)]
            print(f"| {title} |", " | ".join(f"{mean:.2f}" for mean in means), "|", flush=True)


def compare_schedules() -> None:
    """What shorter schedules cost in IM and in negative evidence."""
    parser = argparse.ArgumentParser(description=compare_schedules.__doc__)
    parser.add_argument("--networks", nargs="+", choices=REAL, default=list(REAL))
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--points", type=int, default=65)
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    options = parser.parse_args()
    columns = ("network", "schedule", "IM", "y+", "y-", "y~", "negative share", "steps", "s")
    print(("{:<11} {:<18}" + " {:>9}" * 4 + " {:>15} {:>6} {:>6}").format(*columns))
    for name in options.networks:
        photos, _ = REAL[name][1]()
        case = real_case(name, np.linspace(0, len(photos) - 1, options.photos).astype(int))
        for schedule in options.schedules:
            began = time.perf_counter()
            a = dmbp_jax.attribute(
                case.params,
                case.x,
                case.labels,
                apply_fn=case.apply_fn,
                config=SCHEDULES[schedule],
            )
            seconds = time.perf_counter() - began
            curve = insertion(
                case.params,
                case.x,
                case.labels,
                a.heatmap,
                apply_fn=case.apply_fn,
                points=options.points,
            )
            share = (-a.y_negative / (a.y_positive - a.y_negative)).mean()
            terms = [float(v.mean()) for v in (a.y_positive, a.y_negative, a.y_nuisance)]
            print(
                f"{name:<11} {schedule:<18} {float(curve.auc.mean()):9.4f}"
                + "".join(f" {value:9.2f}" for value in terms)
                + f" {float(share):15.3f} {a.history.shape[1]:6} {seconds:6.0f}",
                flush=True,
            )


COMMANDS = {
    "precision": compare_precisions,
    "epsilon": compare_optimizers,
    "schedules": compare_schedules,
}
