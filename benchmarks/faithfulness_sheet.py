"""Draws maps side by side from the results of `faithfulness.py`: a line for each picture.

python benchmarks/faithfulness_sheet.py --network resnet20 --numbers 0 3 7 12 21 \
    --rows gradient fullgrad quick quick:spread quick:carry --picture docs/pictures/carried.png
"""

import argparse
from pathlib import Path

import numpy as np
import real_networks
from faithfulness_cases import NETWORKS, Case, make_case
from PIL import Image

from dmbp_jax.files import replacing
from dmbp_jax.models.builtin import MEAN, STD
from dmbp_jax.pictures import diverging, grid


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python benchmarks/faithfulness_sheet.py")
    parser.add_argument("--out", type=Path, default=Path("faithfulness"), help="folder of results")
    parser.add_argument("--half", default="report")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--deep", type=Path, help="weights of the deeper built-in network")
    parser.add_argument("--numbers", type=int, nargs="+", required=True, help="of the pictures")
    parser.add_argument("--rows", nargs="+", required=True)
    parser.add_argument("--side", type=int, default=128, help="of a cell, in pixels")
    parser.add_argument("--picture", type=Path, required=True)
    options = parser.parse_args()
    case = make_case(options.network, options.half, None, options.deep)
    if case is None:
        raise SystemExit(f"{options.network}: its files are absent")
    maps = {row: load_heatmaps(options, row) for row in options.rows}
    lines = [
        [show(case, options.network, i), *(diverging(maps[row][i]) for row in options.rows)]
        for i in options.numbers
    ]
    cells = [
        [one.resize((options.side,) * 2, _SMOOTH[i == 0]) for i, one in enumerate(line)]
        for line in lines
    ]
    with replacing(options.picture) as part:
        grid(cells, captions=["picture", *options.rows]).save(part, format="PNG")


_SMOOTH = {True: Image.Resampling.BICUBIC, False: Image.Resampling.NEAREST}  # pictures, maps


def load_heatmaps(options: argparse.Namespace, row: str) -> np.ndarray:
    """Heat maps (N, H, W) that the study keeps."""
    name = f"{options.network} {options.half} {row}.npz"
    with np.load(options.out / "maps" / name) as stored:
        return stored["heatmap"]


def show(case: Case, network: str, number: int) -> Image.Image:
    """The picture itself."""
    if network in ("squeezenet", "resnet20"):
        listed = real_networks.photos() if network == "squeezenet" else real_networks.cifar()
        paths = {path.name: path for path in listed[0]}
        return Image.open(paths[case.names[number]]).convert("RGB")
    x = np.asarray(case.x[number]) * STD + MEAN
    return Image.fromarray(np.uint8(np.clip(255 * x, 0, 255).round()))


if __name__ == "__main__":
    main()
