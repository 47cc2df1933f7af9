"""The paper's Figures 1 to 5 for any network and pictures: what is in them, and how it is drawn.

Maps are white where there is no evidence, red for the label, blue against it. A figure is a sheet
of tiles with captions, and curves. In SVG and PDF, lines and text stay lines and text, and pixels
are stored once, not enlarged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray
from PIL import Image, ImageFont

from dmbp_jax.catalogue import find_method
from dmbp_jax.dmbp.attribute import attribute
from dmbp_jax.dmbp.attribution import Attribution
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decomposition import bias_products
from dmbp_jax.errors import InputError, MissingPackageError
from dmbp_jax.files import replacing
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics import blur_images, insertion
from dmbp_jax.metrics.curves import pixel_ranks
from dmbp_jax.pictures import diverging, shared_scale
from dmbp_jax.pictures.fonts import find_font

COARSE = ("fullgrad", "gradcam")  # Fig. 4
SIGNED = ("integrated_gradients", "smoothgrad", "deeplift")  # Fig. 5, and
GUIDED = ("guided_backprop", "guided_gradcam")
SHOWN = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # shares of inserted pixels in Fig. 3
POINTS = 101  # of its curve
FORMATS = ("svg", "pdf", "png", "webp")
TILE, GAP, LINE = 1.7, 0.1, 0.22  # inches
CURVES = (4.5, 2.5)  # least width, and height, of the curves, inches
SETTINGS = {  # of matplotlib
    "font.size": 8,
    "axes.titlesize": 8,  # of captions
    "figure.titlesize": 8,  # of the titles of rows
    "figure.constrained_layout.w_pad": GAP / 2,
    "figure.constrained_layout.h_pad": GAP / 2,
    "svg.hashsalt": "dmbp-jax",  # the same sheet gives the same bytes
    "image.composite_image": False,
}
_NO_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # other formats have none


class Tile(NamedTuple):
    """A picture with a line of text above; None leaves its place empty."""

    picture: Image.Image | None
    caption: str = ""


class Curves(NamedTuple):
    """Scores by share of inserted pixels, name by name."""

    fractions: np.ndarray
    scores: Mapping[str, np.ndarray]


class Sheet(NamedTuple):
    """A figure: rows of tiles with their titles, and curves below."""

    rows: tuple[tuple[Tile, ...], ...]
    titles: tuple[str, ...]
    curves: Curves | None = None


@dataclass(frozen=True)
class Question:
    """A picture, and the two classes it is explained for.

    Attributes:
      picture: what the network sees, H × W.
      x: the same as its input, (H, W, C).
      labels: the label, and another class.
      names: their names.
    """

    picture: Image.Image
    x: np.ndarray
    labels: tuple[int, int]
    names: tuple[str, str]


class _Maps(NamedTuple):
    """What the figures share: the network, the questions, DMBP for both labels of each."""

    params: Any
    apply_fn: ApplyFn | None
    questions: Sequence[Question]
    x: np.ndarray  # (N, H, W, C)
    config: DMBP
    nonaffine: str
    attributions: Attribution  # of the labels; then, for Fig. 1, of the other classes


def paper_figures(
    params: Any,
    questions: Sequence[Question],
    *,
    apply_fn: ApplyFn | None = None,
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
    numbers: Sequence[int] = (1, 2, 3, 4, 5),
    progress: bool = False,
    nonaffine: str = "refuse",
) -> Iterator[tuple[int, Sheet]]:
    """Each number with the contents of that figure, made when it is asked for.

    Fig. 1: maps of every picture for both classes. Fig. 2: ∇F, ∇F⁺, ∇F⁻ and their products with x,
    of the first picture. Fig. 3: the first picture while its pixels are inserted, and the
    probability. Fig. 4: beside FullGrad and Grad-CAM. Fig. 5: beside Integrated Gradients,
    SmoothGrad, DeepLift and the guided methods.

    The questions are pictures of one size, with two classes each; the rest as `dmbp_jax.attribute`.
    """
    unknown = sorted(set(numbers) - set(_FIGURES))
    if unknown:
        raise InputError(f"numbers: Expected figures of 1 to {len(_FIGURES)}, got {unknown[0]}.")
    if not questions:
        raise InputError("questions: Expected at least one picture, got none.")
    x = np.stack([question.x for question in questions])
    classes = 2 if 1 in numbers else 1
    labels = np.array([question.labels[:classes] for question in questions]).T.ravel()
    attributions = attribute(
        params,
        np.concatenate([x] * classes),
        labels,
        apply_fn=apply_fn,
        config=config,
        progress=progress,
        return_masks=True,
        nonaffine=nonaffine,
    )
    maps = _Maps(params, apply_fn, questions, x, config, nonaffine, attributions)
    return ((number, _FIGURES[number](maps)) for number in numbers)


def draw_figures(
    params: Any,
    questions: Sequence[Question],
    folder: Path,
    *,
    format: str = "svg",
    **options: Any,
) -> list[Path]:
    """Draw the paper's figures into a folder that exists, as figure1.svg and so on.

    `paper_figures` takes the other options. In "svg" and "pdf" lines and text stay as such; other
    formats are "png" and "webp".
    """
    check_matplotlib()
    if format not in FORMATS:
        raise InputError(f"format: Expected one of {', '.join(FORMATS)}, got {format!r}.")
    files = []
    for number, sheet in paper_figures(params, questions, **options):
        files.append(folder / f"figure{number}.{format}")
        save_sheet(sheet, files[-1])
    return files


def _two_classes(maps: _Maps) -> Sheet:
    """Fig. 1: the same picture asked for two classes, on one scale."""
    rows = []
    for i, question in enumerate(maps.questions):
        pair = [np.asarray(maps.attributions.map[j]) for j in (i, i + len(maps.questions))]
        vmax = shared_scale(pair)
        tiles = [
            Tile(diverging(one, vmax=vmax), name)
            for one, name in zip(pair, question.names, strict=True)
        ]
        rows.append((Tile(question.picture, "image"), *tiles))
    return Sheet(tuple(rows), tuple("" for _ in rows))


def _overview(maps: _Maps) -> Sheet:
    """Fig. 2: the mappings F, F⁺, F⁻ of the first picture, and the maps they give."""
    question, label = maps.questions[0], maps.attributions[0]
    assert label.masks is not None  # asked for by `paper_figures`
    gradient, positive, negative = mappings(
        maps.params,
        question.x,
        question.labels[0],
        label.masks,
        apply_fn=maps.apply_fn,
        nonaffine=maps.nonaffine,
        config=maps.config,
    )
    parts = [np.asarray(part) for part in (label.positive, label.negative, label.map)]
    of_gradients, of_parts = shared_scale([positive, negative]), shared_scale(parts)
    rows = (
        (
            Tile(question.picture, "image x"),
            Tile(diverging(gradient), "∇F"),
            Tile(diverging(gradient * question.x), "∇F ⊙ x"),
        ),
        (
            Tile(diverging(parts[2], vmax=of_parts), "map = ∇F⁺ ⊙ x + ∇F⁻ ⊙ x"),
            Tile(diverging(positive, vmax=of_gradients), "∇F⁺"),
            Tile(diverging(parts[0], vmax=of_parts), "∇F⁺ ⊙ x"),
        ),
        (
            Tile(None),
            Tile(diverging(negative, vmax=of_gradients), "∇F⁻"),
            Tile(diverging(parts[1], vmax=of_parts), "∇F⁻ ⊙ x"),
        ),
    )
    titles = (
        f"original network, {question.names[0]}: y = {label.y:.2f}",
        f"filters masked by Σ: y⁺ = {label.y_positive:.2f}   (nuisance {label.y_nuisance:.2f})",
        f"filters masked by 1 − Σ: y⁻ = {label.y_negative:.2f}",
    )
    return Sheet(rows, titles)


def _insertion(maps: _Maps) -> Sheet:
    """Fig. 3: the first picture with its most important pixels inserted, and the probability."""
    question, label = maps.questions[0], maps.attributions[0]
    gradient = find_method("gradient").function(
        maps.params, question.x, question.labels[0], apply_fn=maps.apply_fn
    )
    heats = {"DMBP": label.heatmap, "gradient × input": gradient.sum(-1)}
    points = min(POINTS, label.heatmap.size + 1)
    curves = {
        name: insertion(
            maps.params, question.x, question.labels[0], heat, apply_fn=maps.apply_fn, points=points
        )
        for name, heat in heats.items()
    }
    to_picture = colours_of(question.x, question.picture)
    heat = np.asarray(label.heatmap)
    tiles = tuple(
        Tile(to_picture(insert(question.x, heat, share)), f"{share:.0%}") for share in SHOWN
    )
    first = next(iter(curves.values()))
    scores = {f"{name}, IM {one.auc:.3f}": np.asarray(one.scores) for name, one in curves.items()}
    title = f"{question.names[0]}: share of the pixels inserted, most important first"
    return Sheet((tiles,), (title,), Curves(np.asarray(first.fractions), scores))


def _beside(maps: _Maps, methods: Sequence[str]) -> Sheet:
    """Fig. 4 and 5: every picture with the maps of other methods, and that of DMBP."""
    labels = np.array([question.labels[0] for question in maps.questions])
    columns = [[Tile(question.picture, question.names[0]) for question in maps.questions]]
    for name in methods:
        method = find_method(name)
        linearised = {
            "nonaffine": maps.nonaffine,
            "pointwise": maps.config.pointwise,
            "segments": maps.config.segments,
        }
        options = {key: value for key, value in linearised.items() if key in method.options}
        heats = method.function(maps.params, maps.x, labels, apply_fn=maps.apply_fn, **options)
        heats = np.asarray(heats)
        if not method.signed:  # drawn from the minimum, as is usual for coarse maps
            heats = heats - heats.min((1, 2), keepdims=True)
        columns.append([Tile(diverging(heat), method.title) for heat in heats])
    ours = np.asarray(maps.attributions.map[: len(maps.questions)])
    columns.append([Tile(diverging(heat), "DMBP") for heat in ours])
    rows = tuple(zip(*columns, strict=True))
    return Sheet(rows, tuple("" for _ in rows))


def mappings(
    params: Any,
    x: ArrayLike,
    label: int,
    masks: Sequence[ArrayLike],
    *,
    apply_fn: ApplyFn | None = None,
    nonaffine: str = "refuse",
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """∇F, ∇F⁺ and ∇F⁻ at x (H, W, C): the linear mappings, before any product with x (Eq. 11).

    `masks` are Σ_l of every activation, as `attribute(..., return_masks=True)` keeps them; the
    slopes of smooth activations are as `config` says, with which they were learned.
    """
    slopes = {"pointwise": config.pointwise, "segments": config.segments}
    call = check_call(params, x, label, apply_fn, nonaffine=nonaffine, **slopes)
    graph = call.network.graph()
    frozen = graph.freeze(call.images)
    pairs = zip(graph.masked, masks, strict=True)
    sigma = [site.from_mask(jnp.asarray(mask)) for site, mask in pairs]
    # Frozen at x the network is affine: its gradient is the map of an input that is 1 everywhere.
    ones = jnp.ones_like(call.images)
    signs = ([jnp.ones_like(m) for m in sigma], sigma, [1 - m for m in sigma])
    open_, positive, negative = (
        np.asarray(bias_products(frozen, ones, masks, jnp.int32(label))[0][0]) for masks in signs
    )
    return open_, positive, negative


def insert(x: NDArray[Any], heatmap: NDArray[Any], share: float) -> NDArray[Any]:
    """X (H, W, C), blurred but for its most important pixels, as the insertion metric makes it."""
    ranks = np.asarray(pixel_ranks(jnp.asarray(heatmap)[None], "decreasing")[0])
    sharp = ranks < round(share * heatmap.size)
    blurred = np.asarray(blur_images(jnp.asarray(x)[None])[0])
    return np.where(sharp[..., None], x, blurred)


def colours_of(x: NDArray[Any], picture: Image.Image) -> Callable[[NDArray[Any]], Image.Image]:
    """From inputs like x to pictures, whatever the order, mean and scale of the channels.

    Preprocessing is an affine function of a pixel's colours; it is found from x and its picture by
    least squares.
    """
    values = x.reshape(-1, x.shape[-1]).astype(np.float64)
    design = np.column_stack([values, np.ones(len(values))])
    colours = np.asarray(picture.convert("RGB"), np.float64).reshape(-1, 3)
    weights = np.linalg.lstsq(design, colours, rcond=None)[0]

    def to_picture(other: NDArray[Any]) -> Image.Image:
        pixels = other @ weights[:-1] + weights[-1]
        return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))

    return to_picture


def check_matplotlib() -> None:
    """Say how to get matplotlib where it is absent, before anything is computed."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError(
            "figures: Expected matplotlib to be installed: pip install 'dmbp-jax[figures]'."
        )


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Draw a sheet; the suffix of the file is its format. Whole or not at all."""
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    columns = max(map(len, sheet.rows))
    heights = [GAP + TILE + LINE * (2 if title else 1) for title in sheet.titles]
    width = GAP + columns * (GAP + TILE)
    if sheet.curves:
        width, heights = max(width, CURVES[0]), [*heights, CURVES[1]]
    kind = path.suffix.removeprefix(".")
    with matplotlib.rc_context(SETTINGS):
        figure = Figure((width, sum(heights)), dpi=150, layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, title, row in zip(parts, sheet.titles, sheet.rows, strict=False):
            if title:
                text, style = _in_letters(title)
                part.suptitle(text, x=GAP / 2 / width, ha="left", weight="bold", **style)
            for axes, tile in zip(part.subplots(1, columns, squeeze=False)[0], row, strict=False):
                if tile.picture is not None:
                    text, style = _in_letters(tile.caption)
                    axes.set_title(text, loc="left", **style)
                    axes.imshow(np.asarray(tile.picture), interpolation="none")
            for axes in part.axes:
                axes.set_axis_off()
        if sheet.curves:
            _draw_curves(parts[-1].subplots(), sheet.curves)
        with replacing(path) as file:
            figure.savefig(file, format=kind, metadata=_NO_DATES.get(kind))


def _in_letters(text: str) -> tuple[str, dict[str, Any]]:
    """A line of text as it is, in a font that has its letters."""
    from matplotlib.font_manager import FontProperties, findfont

    path, text = find_font(text, ImageFont.truetype(findfont(FontProperties()), 16))
    return text, {"parse_math": False} | ({} if path is None else {"font": path})


def _draw_curves(axes: Any, curves: Curves) -> None:
    """One line for each name; the shares whose pictures are shown are marked on the first."""
    for i, (name, scores) in enumerate(curves.scores.items()):
        axes.plot(curves.fractions, scores, color=("#d62728", "#7f7f7f")[i % 2], label=name)
        if i == 0:
            marked = np.interp(SHOWN, curves.fractions, scores)
            axes.plot(SHOWN, marked, "o", color="#d62728", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="share of the pixels inserted")
    axes.set_ylabel("probability of the label")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")


_FIGURES: dict[int, Callable[[_Maps], Sheet]] = {
    1: _two_classes,
    2: _overview,
    3: _insertion,
    4: lambda maps: _beside(maps, COARSE),
    5: lambda maps: _beside(maps, SIGNED + GUIDED),
}
