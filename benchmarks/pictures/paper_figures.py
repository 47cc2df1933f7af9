"""The paper's figures for SqueezeNet on real photos: the pictures of docs/figures.md.

Needs the real network and photos that `benchmarks/faithfulness/real_networks.py` describes:

    python -m benchmarks paper_figures docs/pictures

Writes figure1_photos.webp and so on. The second class of Fig. 1 is the network's best other one.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faithfulness.real_networks import REAL, photos, squeezenet
from benchmarks.faithfulness.real_photos import crop
from dmbp_jax import DMBP
from dmbp_jax.experiments.figures import Question, paper_figures
from dmbp_jax.experiments.figures_sheet import save_sheet

CHOSEN = ("tiger_cat", "oxcart", "dogsled")


def questions(chosen: Sequence[str]) -> list[Question]:
    """The chosen photos, their classes, and the network's best other class."""
    params, apply_fn, preprocess = squeezenet()
    names = (REAL / "imagenet_classes.txt").read_text("utf-8").splitlines()
    paths, labels = photos()
    found = []
    for name in chosen:
        (i,) = (i for i, path in enumerate(paths) if name in path.name)
        x, label = preprocess(paths[i]), int(labels[i])
        ranked = np.argsort(-np.asarray(apply_fn(params, x[None])[0]))
        other = int(next(choice for choice in ranked if choice != label))
        picture = crop(Image.open(paths[i]))
        found.append(Question(picture, x, (label, other), (names[label], names[other])))
    return found


def main() -> None:
    """Write the figures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the figures go, e.g. docs/pictures")
    parser.add_argument("--figures", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--photos", nargs="+", default=CHOSEN, help="parts of their names")
    parser.add_argument("--fast", action="store_true", help="DMBP.fast() instead of 200 steps")
    parser.add_argument("--format", default="webp", help="svg, pdf, png or webp (default)")
    args = parser.parse_args()
    params, apply_fn, _ = squeezenet()
    started = time.perf_counter()
    sheets = paper_figures(
        params,
        questions(args.photos),
        apply_fn=apply_fn,
        config=DMBP.fast() if args.fast else DMBP.paper(),
        numbers=args.figures,
        progress=True,
    )
    args.folder.mkdir(parents=True, exist_ok=True)
    for number, sheet in sheets:
        path = args.folder / f"figure{number}_photos.{args.format}"
        save_sheet(sheet, path)
        print(path, flush=True)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
