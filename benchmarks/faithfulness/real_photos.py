"""Tables 1 and 2 (IM) on 24 real photos with SqueezeNet v1.0, all methods, target = true class.

Needs the weights and photos that lie outside the repository (`DMBP_REAL`, see
`real_networks.py`). Prints the settings and the tables and writes them, with one number for
each photo and method, to OUT/real_photos.json; stopped, it continues where it was:

    python -m benchmarks real_photos --steps 60 --rise-masks 1000
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faithfulness.real_networks import (
    HAVE_REAL,
    REAL,
    photos,
    preprocess_squeezenet,
    squeezenet,
)
from dmbp_jax.data import Dataset, FilePicture
from dmbp_jax.experiments import Evaluation, Settings, evaluate


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


def main() -> None:
    """Parse the settings, evaluate, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


if __name__ == "__main__":
    main()
