"""Draws the results of `faithfulness.py`: IM against passes, and maps side by side.

python -m benchmarks faithfulness_picture --networks resnet50 resnet50-mosaics vgg16 resnet20 \
    --picture docs/pictures/faithfulness.png
python -m benchmarks faithfulness_sheet --network resnet20 --numbers 0 3 7 12 21 \
    --rows gradient fullgrad quick quick:spread quick:carry --picture docs/pictures/carried.png
"""

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.faithfulness import caltech, real_networks
from benchmarks.faithfulness.faithfulness import as_record, maps_file, read_lines
from benchmarks.faithfulness.faithfulness_cases import NETWORKS, Case, check_row, make_case
from dmbp_jax.files import replacing
from dmbp_jax.models.builtin import MEAN, STD
from dmbp_jax.pictures import diverging, grid

_SIZE, _MARGIN = 480, 60
_MOST = 10_000  # passes at the right edge
_LABELS = {
    "gradient": "ND",
    "integrated_gradients": "IG",
    "smoothgrad": "SmoothGrad",
    "deeplift": "DeepLift",
    "guided_backprop": "Guided BP",
    "fullgrad": "FullGrad",
    "gradcam": "Grad-CAM",
    "paper": "DMBP paper",
    "quick": "DMBP quick",
    "quick:spread": "DMBP quick, spread",
    "quick:carry": "DMBP quick, carry",
    "quick:refine": "DMBP quick, refined",
    "blur_ig": "Blur IG",
    "guided_gradcam": "Guided Grad-CAM",
    "lpr": "LPR",
    "rise": "RISE",
    "paper:carry": "DMBP paper, carry",
}


def draw_panels() -> None:
    """IM against passes from the results of `faithfulness`: a panel for each network."""
    parser = _parser(draw_panels)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, required=True)
    options = parser.parse_args()
    panels = []
    for network in options.networks:
        lines = read_lines(options.out / f"{network}.jsonl", options.half)
        if not lines:
            raise SystemExit(f"{network}: Expected results in {options.out}, got none.")
        records = {row: as_record(of_row) for row, of_row in lines.items()}
        panels.append(draw_panel(NETWORKS[network], points_of(records)))
    columns = 2
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * _SIZE, rows * _SIZE), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index % columns * _SIZE, index // columns * _SIZE))
    with replacing(options.picture) as part:
        sheet.save(part, format="PNG")


def points_of(records: dict) -> dict[str, tuple[int, float]]:
    """Passes and mean IM of every row that has a label, where all pictures were measured."""
    most = max(len(record["pictures"]) for record in records.values())
    points = {}
    for row, record in records.items():
        method = row.partition(":")[0]  # its number of samples is not part of the label
        label = _LABELS.get(row if method in ("paper", "quick") else method)
        if label and len(record["pictures"]) == most:
            points[label] = record["passes"], float(np.mean(record["numbers"]["IM"]))
    return points


def draw_panel(title: str, points: dict[str, tuple[int, float]]) -> Image.Image:
    """IM upwards, passes to the right on a logarithmic scale; DMBP in red."""
    panel = Image.new("RGB", (_SIZE, _SIZE), "white")
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    low, high = (side(im for _, im in points.values()) for side in (min, max))
    low, high = math.floor(10 * low) / 10, math.ceil(10 * high) / 10
    span = _SIZE - 2 * _MARGIN

    def place(passes: float, im: float) -> tuple[float, float]:
        right = _MARGIN + span * math.log10(passes) / math.log10(_MOST)
        return right, _MARGIN + span * (high - im) / (high - low)

    pen.rectangle((*place(1, high), *place(_MOST, low)), outline="gray")
    for passes in (1, 10, 100, 1000, 10_000):
        x, y = place(passes, low)
        pen.text((x, y + 4), str(passes), "black", font, anchor="ma")
    for im in np.arange(low, high + 0.01, 0.1):
        x, y = place(1, im)
        pen.text((x - 6, y), f"{im:.1f}", "black", font, anchor="rm")
        pen.line((x, y, *place(_MOST, im)), "lightgray")
    pen.text((_MARGIN, _MARGIN // 3), f"{title}", "black", font)
    pen.text((_SIZE // 2, _SIZE - _MARGIN // 3), "passes of one picture", "black", font, "mm")
    pen.text((6, _MARGIN - 22), "IM", "black", font)
    taken: list[tuple[float, float]] = []
    for label, (passes, im) in sorted(points.items(), key=lambda item: -item[1][1]):
        x, y = place(passes, im)
        colour = "red" if label.startswith("DMBP") else "blue"
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        while any(abs(x - right) < 120 and abs(y - down) < 12 for right, down in taken):
            y += 1  # labels stand below one another
        taken.append((x, y))
        pen.text((x + 7, y), label, colour, font, anchor="lm")
    return panel


def draw_sheet() -> None:
    """Maps side by side from the results of `faithfulness`: a line for each picture."""
    parser = _parser(draw_sheet)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--deep", type=Path, help="weights of the deeper built-in network")
    parser.add_argument("--numbers", type=int, nargs="+", required=True, help="of the pictures")
    parser.add_argument("--rows", nargs="+", type=check_row, required=True)
    parser.add_argument("--side", type=int, default=128, help="of a cell, in pixels")
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


def _parser(command: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=command.__doc__)
    parser.add_argument("--out", type=Path, default=Path("faithfulness"), help="folder of results")
    parser.add_argument("--half", default="report")
    parser.add_argument("--picture", type=Path, required=True)
    return parser


COMMANDS = {"faithfulness_picture": draw_panels, "faithfulness_sheet": draw_sheet}
