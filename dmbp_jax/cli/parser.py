"""The whole command line as two tables: what an option is, and which command takes which.

Free of JAX, so that `dmbp --help` and a misspelt option answer at once. One option has one name and
one meaning in every command; what a command says other than the table stands in its row.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dmbp_jax.catalogue import BIASES, CATALOGUE, ROWS, find_method
from dmbp_jax.cli.output import BAD_INPUT
from dmbp_jax.version import __version__

METHODS = tuple(method.name for method in CATALOGUE)
LOSSES = find_method("dmbp").variants
STYLES = ("panel", "overlay", "authors", "map")

Option = dict[str, Any]  # keyword arguments of `add_argument`


def as_path(text: str) -> Path:
    """A path as it was typed; "~" is the home folder, also where the shell has left it."""
    return Path(os.path.expanduser(text))  # of pathlib, an unknown user would be an error


def count_or_all(text: str) -> int | str:
    """A number from 1, or "all"."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 or all, got {text!r}")
    return int(text)


def option(help: str, **settings: Any) -> Option:
    """An option with a value."""
    return {"help": help, **settings}


def flag(help: str) -> Option:
    """An option without a value."""
    return option(help, action="store_true")


def number(help: str, default: int | None = None) -> Option:
    """An option with a whole number."""
    return option(help, metavar="N", type=int, default=default)


def file(help: str, metavar: str = "FILE") -> Option:
    """An option with the path of a file or folder."""
    return option(help, metavar=metavar, type=as_path)


OPTIONS: dict[str, Option] = {
    "images": file("picture file", "IMAGE") | {"nargs": "+"},
    "store": option("folder, s3://… or gs://…", metavar="STORE"),
    "--network": option("default resnet50; see dmbp networks", metavar="NAME", default="resnet50"),
    "--weights": file("read the weights from FILE, no download"),
    "--class-names": file("class names of a fine-tuned network: one a line, or JSON"),
    "--label": option(
        "class to explain, by number or name; default top1, the network's first choice",
        metavar="top1|N|NAME",
    ),
    "--labels": file("table file,label: a label for each image", "TABLE"),
    "--method": option(", ".join(METHODS), choices=METHODS, default="dmbp", metavar="M"),
    "--steps": number("steps of dmbp; default 200"),
    "--quick": flag("seven steps of dmbp, at a higher rate"),
    "--loss": option("variant of dmbp in the paper's Table 1; default all", choices=LOSSES),
    "--biases": option(
        "add what the biases of dmbp carry: spread, as coarse as their layers; refine, half of "
        "that to the pixels whose gradient pulls the same way; or carry, layer by layer back to "
        "the pixels; default refine with --quick, else drop, the paper's map",
        choices=BIASES,
    ),
    "--nonaffine": option(
        "freeze (default): normalisation statistics, attention weights and other gates of a "
        "network are constants at the image; refuse: only networks without any",
        choices=("freeze", "refuse"),
        default="freeze",
    ),
    "--batch-size": number("images at once; default 8", 8),
    "--output": file("folder, made if missing; default %(default)s", "OUT"),
    "--force": flag("overwrite earlier results"),
    "--quiet": flag("no progress bar"),
    "--no-compilation-cache": flag("compile again, and store no compiled program on disk"),
}
EXCLUSIVE = (("--label", "--labels"), ("--steps", "--quick"))  # of which one may be given


@dataclass(frozen=True)
class Command:
    """`dmbp NAME`; its file `dmbp_jax.cli.NAME` has `run(args) -> exit code`."""

    summary: str  # one line in `dmbp --help`
    description: str  # this and the example are printed as they are written
    example: str
    options: Mapping[str, Option]  # in order, each with what it says other than `OPTIONS`


def plain(*names: str) -> dict[str, Option]:
    """Options that are as in the table."""
    return {name: {} for name in names}


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "explain generated pictures, with no download",
        """\
Explain generated pictures with the built-in network, and compare with plain gradients: how much of
the red lies on the object of the label, and how much of the blue on its rival, the object that is
evidence against the label? Needs no download.
""",
        """\
example:
  dmbp demo -o dmbp-demo

Writes the pictures alone (scene-1.png, …), one panel for each label and comparison.png.
""",
        {"--output": {"default": Path("dmbp-demo")}}
        | plain("--steps", "--quick", "--force", "--quiet", "--no-compilation-cache"),
    ),
    "explain": Command(
        "explain what a network answers for photos",
        """\
Write one picture for each image: red pixels are evidence for the label, blue ones against it.
Images are cropped as the network needs it, and done in batches.
""",
        """\
examples:
  dmbp explain dog.jpg cat.jpg --network resnet50 --label "golden retriever" -o maps --npz
  dmbp demo && dmbp explain dmbp-demo/scene-4.png --network builtin --label star

The weights of resnet50 are downloaded once; --weights reads a file instead, and builtin needs
neither. Each picture goes to OUT/<name of the image>.<method>.png. If an image cannot be read the
others are still done, its reason goes to stderr, and the exit code is 2.
""",
        plain("images", "--network", "--weights", "--class-names", "--label", "--labels")
        | plain("--method")
        | {
            "--output": {"default": Path("dmbp-explain")},
            "--style": option(
                "panel: image, positive part, negative part and map side by side (default); "
                "overlay: both parts over the image, each on its own scale; authors: both parts on "
                "one scale, as the authors draw them (dmbp only); map: the map on white",
                choices=STYLES,
                default="panel",
            ),
            "--npz": flag("also write the arrays, beside each picture"),
        }
        | plain("--force", "--batch-size", "--steps", "--quick", "--loss", "--biases")
        | plain("--nonaffine", "--quiet", "--no-compilation-cache"),
    ),
    "run": Command(
        "explain many images, resumably",
        """\
Explain many images and store the maps. The same command again goes on where it stopped; every
image is done exactly once, also when processes are killed or several write to one store.
""",
        """\
examples:
  dmbp run photos -o maps.zarr --network resnet50 --quick
  dmbp run photos.csv -o s3://bucket/maps.zarr --save positive,negative --shards 0/8

IMAGES is a folder, a pattern, files, or a CSV table with the columns file,label. Exit code: 0 all
done; 1 done, and some images failed; 2 stopped by a mistake or a full store; 130 interrupted.
""",
        {
            "images": option(
                "folder, pattern, files or a table", metavar="IMAGES", type=os.path.expanduser
            ),
            "--output": OPTIONS["store"] | {"required": True, "type": str},
        }
        | plain("--network", "--weights", "--class-names", "--method", "--label", "--labels")
        | {
            "--save": option(
                "heatmap (summed over channels; default), map, positive, negative; several by "
                "commas",
                metavar="MAPS",
                default="heatmap",
            ),
            "--dtype": option("default float16", choices=("float16", "float32"), default="float16"),
            "--shard-size": number("images a shard; default 128", 128),
        }
        | plain("--steps", "--quick", "--biases", "--nonaffine")
        | {
            "--batch-size": number("images a device explains at once"),
            "--engine": option("default local", choices=("local", "ray"), default="local"),
            "--workers": number("processes of ray; default one for each GPU"),
            "--shards": option(
                "this is process i of n, from 0; default: what Slurm or Kubernetes say",
                metavar="i/n",
            ),
            "--quiet": flag("no progress line"),
        }
        | plain("--no-compilation-cache"),
    ),
    "report": Command(
        "show a large run as one page",
        """\
Write one HTML page about a large run: histograms over all rows, failures with their reasons, and
pictures with their maps to sort and filter. It needs no other file and no network.
""",
        """\
example:
  dmbp report maps.zarr -o page.html

Shown are the smallest and largest y, nuisance and probability, and a random sample.
""",
        {
            "store": {},
            "--output": option("default report.html", metavar="PAGE", default=Path("report.html")),
            "--images": file("of the pictures, if they have moved", "FOLDER"),
            "--most": number("pictures shown; default 2000", 2000),
            "--force": flag("overwrite an earlier page"),
        },
    ),
    "verify": Command(
        "check the stored maps of a large run",
        """\
Read every stored object of a large run and compare its size and SHA-256 with the commit record of
its shard. Shards that differ are opened again: the same dmbp run command does them once more.
""",
        """\
example:
  dmbp verify maps.zarr

Exit code: 0 everything is as it was committed; 1 some shards are not, each named; 2 no store, or
one whose description is damaged.
""",
        {"store": {}, "--dry-run": flag("only name the shards that differ")},
    ),
    "evaluate": Command(
        "measure how faithful maps are: the paper's tables",
        """\
Measure how faithful attribution maps are: insertion metrics of DMBP's variants (Table 1) and of all
methods (Table 2), rank correlation after the last layer is re-drawn (Table 3), and where the
dataset knows its objects, how well maps localise them.
""",
        """\
examples:
  dmbp evaluate --table all
  dmbp evaluate --table 1 --dataset imagenet --root ILSVRC2012 --network resnet50
  dmbp evaluate --table 2 --dataset voc --root VOCdevkit --network resnet50_voc --limit 200
  dmbp evaluate --table 2 --dataset csv --root photos --network resnet50 --option rise.n_masks=500
  dmbp evaluate --maps maps.zarr --methods gradient

Stopped or killed, the same command continues where it was. OUT gets tables.md, tables.csv and
evaluation.html, and dmbp-evaluation/ to go on from; other files in it are left alone. Pictures that
cannot be read are named on stderr; the others are evaluated and the exit code is 1.
""",
        {
            "--table": option("default all, and 2 with --maps", choices=("1", "2", "3", "all")),
            "--dataset": option(
                "default generated, and the pictures of --maps",
                choices=("generated", "imagenet", "voc", "csv"),
            ),
            "--maps": option(
                "score the maps of these stores (dmbp run), instead of the paper's rows; --methods "
                "adds rows that are computed",
                metavar="STORE",
                nargs="+",
            ),
            "--root": file("folder of the dataset", "DIR"),
            "--labels": option(
                "table file,label of csv (default DIR/labels.csv), or imagenet's ground-truth file"
            ),
            "--network": option(
                "see dmbp networks; default builtin for generated, that of --maps", default=None
            ),
            "--weights": {},
            "--class-names": {},
            "--methods": option(
                f"rows of the tables instead of the paper's: {', '.join(ROWS)}",
                metavar="M",
                nargs="+",
                choices=ROWS,
            ),
            "--images-per-class": option(
                "targets drawn for each class, a number or all; default 5 for imagenet, 4 for "
                "generated, all for voc and csv",
                metavar="N",
                type=count_or_all,
            ),
            "--limit": number("at most N targets, spread evenly over those drawn"),
            "--seed": number("of all random choices; default 0", 0),
            "--redraws": number("new last layers, Table 3; default 5", 5),
        }
        | plain("--steps", "--quick", "--biases", "--nonaffine")
        | {
            "--option": option(
                "option of a method, such as rise.n_masks=500; may be repeated",
                metavar="METHOD.NAME=VALUE",
                action="append",
                default=[],
            ),
            "--step": number("pixels inserted at a time; default 224"),
            "--points": number("number of points of a curve, instead of --step"),
            "--batch-size": {},
            "--output": option(
                "folder, made if missing; default dmbp-evaluate/DATASET-NETWORK-TABLE"
            ),
            "--force": flag("start over: remove the earlier results in OUT, no others"),
        }
        | plain("--quiet", "--no-compilation-cache"),
    ),
    "figures": Command(
        "draw the paper's figures",
        """\
Draw the paper's figures: 1, maps for two classes; 2, the mappings F, F+ and F-; 3, the insertion
metric; 4, beside FullGrad and Grad-CAM; 5, beside other gradient-based methods. Without IMAGE,
pictures with two rival objects are generated for the built-in network; no download is needed.
""",
        """\
examples:
  dmbp figures --quick -o dmbp-figures
  dmbp figures dog.jpg cat.jpg --network resnet50 --label "tiger cat" --label Labrador

Writes figure1.svg to figure5.svg. Needs matplotlib: pip install "dmbp-jax[figures]".
""",
        {
            "images": {"nargs": "*"},
            "--network": option(
                "default resnet50, or builtin without IMAGE; see dmbp networks", default=None
            ),
            "--weights": {},
            "--class-names": {},
            "--label": option(
                "class to explain; twice for both classes of Fig. 1; default: the network's first "
                "and second choice for each image",
                metavar="N|NAME",
                action="append",
            ),
            "--figures": option(
                "which figures; default all",
                metavar="N",
                type=int,
                nargs="+",
                default=[1, 2, 3, 4, 5],
            ),
            "--format": option(
                "svg and pdf keep lines and text as such; default svg",
                choices=("svg", "pdf", "png", "webp"),
                default="svg",
            ),
        }
        | {"--output": {"default": Path("dmbp-figures")}}
        | plain("--steps", "--quick", "--force", "--quiet", "--no-compilation-cache"),
    ),
    "networks": Command(
        "list the networks",
        """\
List every network: name, number of classes, input size, where its weights are or come from, and
what the file is checked by at every load: its SHA-256, or only the 8 hex digits of it that are part
of the file's name.
""",
        """\
example:
  dmbp networks
""",
        {},
    ),
    "convert": Command(
        "turn a PyTorch checkpoint into a file that loads in under a second",
        """\
Read a checkpoint (.pth in either PyTorch container, or .safetensors), fold BatchNorm into the
convolutions and write the result as safetensors. PyTorch is not needed, and nothing that a
checkpoint contains is executed.
""",
        """\
example:
  dmbp convert resnet50-0676ba61.pth resnet50.safetensors --network resnet50
  dmbp explain dog.jpg --network resnet50 --weights resnet50.safetensors
""",
        {
            "source": file("checkpoint to read", "IN"),
            "target": file("safetensors file to write", "OUT"),
            "--network": option("what it is (see dmbp networks)", default=None, required=True),
            "--class-names": {},
            "--force": flag("overwrite OUT"),
        },
    ),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, without importing JAX."""
    parser = _Parser(
        prog="dmbp",
        description="Attribution maps by Disentangled Masked Backpropagation: which pixels are "
        "evidence for a label, and which against it.",
        epilog="Start with: dmbp demo",
    )
    parser.add_argument("--version", action="version", version=f"dmbp-jax {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.description,
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.set_defaults(command=name)
        add_options(own, command.options)
    return parser


def add_options(parser: argparse.ArgumentParser, options: Mapping[str, Option]) -> None:
    """Add options, each with what it says other than `OPTIONS`."""
    groups: dict[tuple[str, ...], Any] = {}
    for name, changes in options.items():
        others = next((names for names in EXCLUSIVE if name in names), ())
        if others and others not in groups:
            groups[others] = parser.add_mutually_exclusive_group()
        flags = ("-o", name) if name == "--output" else (name,)
        groups.get(others, parser).add_argument(*flags, **(OPTIONS.get(name, {}) | changes))
