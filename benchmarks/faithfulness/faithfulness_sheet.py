"""Draws maps side by side from the results of `faithfulness.py`: a line for each picture.

python -m benchmarks faithfulness_sheet --network resnet20 --numbers 0 3 7 12 21 \
    --rows gradient fullgrad quick quick:spread quick:carry --picture docs/pictures/carried.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faithfulness import caltech, real_networks
from benchmarks.faithfulness.faithfulness import maps_file
from benchmarks.faithfulness.faithfulness_cases import NETWORKS, Case, check_row, make_case
from dmbp_jax.files import replacing
from dmbp_jax.models.builtin import MEAN, STD
from dmbp_jax.pictures import diverging, grid


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks faithfulness_sheet")
    parser.add_argument("--out", type=Path, default=Path("faithfulness"), help="folder of results")
    parser.add_argument("--half", default="report")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--deep", type=Path, help="weights of the deeper built-in network")
    parser.add_argument("--numbers", type=int, nargs="+", required=True, help="of the pictures")
    parser.add_argument("--rows", nargs="+", type=check_row, required=True)
    parser.add_argument("--side", type=int, default=128, help="of a cell, in pixels")
    parser.add_argument("--picture", type=Path, required=True)
    options = parser.parse_args()
    case = make_case(options.network, options.half, None, options.deep)
    if case is None:
        raise SystemExit(f"{options.network}: its files are absent")
    chosen = [case.names[number] for number in options.numbers]
    maps = {row: load_heatmaps(options, row, chosen) for row in options.rows}
    size = (options.side, options.side)
    lines = [
        [
            show(case, options.network, number).resize(size),
            *(diverging(one[i]).resize(size, Image.Resampling.NEAREST) for one in maps.values()),
        ]
        for i, number in enumerate(options.numbers)
    ]
    with replacing(options.picture) as part:
        sheet = grid(lines, captions=["picture", *options.rows])
        sheet.quantize(colors=128).save(part, format="PNG", optimize=True)


def load_heatmaps(options: argparse.Namespace, row: str, pictures: list[str]) -> list[np.ndarray]:
    """Heat maps (H, W) that the study keeps."""
    maps = []
    for picture in pictures:
        with np.load(maps_file(options, options.network, row, picture)) as stored:
            maps.append(stored["heatmap"])
    return maps


def show(case: Case, network: str, number: int) -> Image.Image:
    """The picture itself."""
    if network in ("squeezenet", "resnet20"):
        listed = real_networks.photos() if network == "squeezenet" else real_networks.cifar()
        paths = {path.name: path for path in listed[0]}
        return Image.open(paths[case.names[number]]).convert("RGB")
    if network.partition("-")[0] in caltech.NETWORKS:
        return caltech.picture(np.asarray(case.x[number]))
    x = np.asarray(case.x[number]) * STD + MEAN
    return Image.fromarray(np.uint8(np.clip(255 * x, 0, 255).round()))


if __name__ == "__main__":
    main()
