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


FLAG: Option = {"action": "store_true"}
NUMBER: Option = {"metavar": "N", "type": int}
PATH: Option = {"metavar": "FILE", "type": as_path}

OPTIONS: dict[str, Option] = {
    "images": {"metavar": "IMAGE", "nargs": "+", "type": as_path, "help": "picture file"},
    "store": {"metavar": "STORE", "help": "folder, s3://… or gs://…"},
    "--network": {
        "metavar": "NAME",
        "default": "resnet50",
        "help": "default resnet50; see dmbp networks",
    },
    "--weights": PATH | {"help": "read the weights from FILE, no download"},
    "--class-names": PATH | {"help": "class names of a fine-tuned network: one a line, or JSON"},
    "--label": {
        "metavar": "top1|N|NAME",
        "help": "class to explain, by number or name; default top1, the network's first choice",
    },
    "--labels": PATH | {"metavar": "TABLE", "help": "table file,label: a label for each image"},
    "--method": {
        "choices": METHODS,
        "default": "dmbp",
        "metavar": "M",
        "help": ", ".join(METHODS),
    },
    "--steps": NUMBER | {"help": "steps of dmbp; default 200"},
    "--quick": FLAG | {"help": "six steps of dmbp, at a higher rate"},
    "--loss": {
        "choices": LOSSES,
        "help": "variant of dmbp in the paper's Table 1; default all",
    },
    "--biases": {
        "choices": BIASES,
        "help": "add what the biases of dmbp carry: spread, as coarse as their layers, or carry, "
        "back to the pixels; default carry with --quick, else drop, the paper's map",
    },
    "--nonaffine": {
        "choices": ("freeze", "refuse"),
        "default": "freeze",
        "help": "freeze (default): normalisation statistics, attention weights and other gates of "
        "a network are constants at the image; refuse: only networks without any",
    },
    "--batch-size": NUMBER | {"default": 8, "help": "images at once; default 8"},
    "--output": {"type": as_path},
    "--force": FLAG | {"help": "overwrite earlier results"},
    "--quiet": FLAG | {"help": "no progress bar"},
    "--no-compilation-cache": FLAG
    | {"help": "compile again, and store no compiled program on disk"},
}
EXCLUSIVE = (("--label", "--labels"), ("--steps", "--quick"))  # of which one may be given


@dataclass(frozen=True)
class Command:
    """`dmbp NAME`; its file `dmbp_jax.cli.NAME` has `run(args) -> exit code`.

    Attributes:
      summary: one line in `dmbp --help`.
      description, example: printed as they are written.
      options: its options in order, each with what it says other than `OPTIONS`.
    """

    summary: str
    description: str
    example: str
    options: Mapping[str, Option]


def plain(*names: str) -> dict[str, Option]:
    """Options that are as in the table."""
    return {name: {} for name in names}


def output(default: str, metavar: str = "OUT") -> dict[str, Option]:
    """The option `-o`: the folder of the results."""
    help = f"folder, made if missing; default {default}"
    return {"--output": {"metavar": metavar, "default": Path(default), "help": help}}


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
        output("dmbp-demo", "DIR")
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
        | output("dmbp-explain")
        | {
            "--style": {
                "choices": STYLES,
                "default": "panel",
                "help": "panel: image, positive part, negative part and map side by side "
                "(default); overlay: both parts over the image, each on its own scale; authors: "
                "both parts on one scale, as the authors draw them (dmbp only); map: the map on "
                "white",
            },
            "--npz": FLAG | {"help": "also write the arrays, beside each picture"},
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
            "images": {
                "metavar": "IMAGES",
                "type": os.path.expanduser,
                "help": "folder, pattern, files or a table",
            },
            "--output": OPTIONS["store"] | {"required": True, "type": str},
        }
        | plain("--network", "--weights", "--class-names", "--method", "--label", "--labels")
        | {
            "--save": {
                "metavar": "MAPS",
                "default": "heatmap",
                "help": "heatmap (summed over channels; default), map, positive, negative; "
                "several by commas",
            },
            "--dtype": {
                "choices": ("float16", "float32"),
                "default": "float16",
                "help": "default float16",
            },
            "--shard-size": NUMBER | {"default": 128, "help": "images a shard; default 128"},
        }
        | plain("--steps", "--quick", "--biases", "--nonaffine")
        | {
            "--batch-size": {"default": None, "help": "images a device explains at once"},
            "--engine": {
                "choices": ("local", "ray"),
                "default": "local",
                "help": "default local",
            },
            "--workers": NUMBER | {"help": "processes of ray; default one for each GPU"},
            "--shards": {
                "metavar": "i/n",
                "help": "this is process i of n, from 0; default: what Slurm or Kubernetes say",
            },
            "--quiet": {"help": "no progress line"},
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
            "--output": {
                "metavar": "PAGE",
                "default": Path("report.html"),
                "help": "default report.html",
            },
            "--images": PATH | {"metavar": "FOLDER", "help": "of the pictures, if they have moved"},
            "--most": NUMBER | {"default": 2000, "help": "pictures shown; default 2000"},
            "--force": {"help": "overwrite an earlier page"},
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

Exit code: 0 everything is as it was committed; 1 some shards are not, each named; 2 no store.
""",
        {"store": {}, "--dry-run": FLAG | {"help": "only name the shards that differ"}},
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
            "--table": {
                "choices": ("1", "2", "3", "all"),
                "help": "default all, and 2 with --maps",
            },
            "--dataset": {
                "choices": ("generated", "imagenet", "voc", "csv"),
                "help": "default generated, and the pictures of --maps",
            },
            "--maps": {
                "metavar": "STORE",
                "nargs": "+",
                "help": "score the maps of these stores (dmbp run), instead of the paper's rows; "
                "--methods adds rows that are computed",
            },
            "--root": PATH | {"metavar": "DIR", "help": "folder of the dataset"},
            "--labels": {
                "help": "table file,label of csv (default DIR/labels.csv), or imagenet's "
                "ground-truth file"
            },
            "--network": {
                "default": None,
                "help": "see dmbp networks; default builtin for generated, that of --maps",
            },
            "--weights": {},
            "--class-names": {},
            "--methods": {
                "metavar": "M",
                "nargs": "+",
                "choices": ROWS,
                "help": f"rows of the tables instead of the paper's: {', '.join(ROWS)}",
            },
            "--images-per-class": {
                "metavar": "N",
                "type": count_or_all,
                "help": "targets drawn for each class, a number or all; default 5 for imagenet, 4 "
                "for generated, all for voc and csv",
            },
            "--limit": NUMBER | {"help": "at most N targets, spread evenly over those drawn"},
            "--seed": NUMBER | {"default": 0, "help": "of all random choices; default 0"},
            "--redraws": NUMBER | {"default": 5, "help": "new last layers, Table 3; default 5"},
        }
        | plain("--steps", "--quick", "--biases", "--nonaffine")
        | {
            "--option": {
                "metavar": "METHOD.NAME=VALUE",
                "action": "append",
                "default": [],
                "help": "option of a method, such as rise.n_masks=500; may be repeated",
            },
            "--step": NUMBER | {"help": "pixels inserted at a time; default 224"},
            "--points": NUMBER | {"help": "number of points of a curve, instead of --step"},
            "--batch-size": {},
            "--output": {
                "metavar": "OUT",
                "help": "folder, made if missing; default dmbp-evaluate/DATASET-NETWORK-TABLE",
            },
            "--force": {"help": "start over: remove the earlier results in OUT, no others"},
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
            "--network": {
                "default": None,
                "help": "default resnet50, or builtin without IMAGE; see dmbp networks",
            },
            "--weights": {},
            "--class-names": {},
            "--label": {
                "metavar": "N|NAME",
                "action": "append",
                "help": "class to explain; twice for both classes of Fig. 1; default: the "
                "network's first and second choice for each image",
            },
            "--figures": NUMBER
            | {"nargs": "+", "default": [1, 2, 3, 4, 5], "help": "which figures; default all"},
            "--format": {
                "choices": ("svg", "pdf", "png", "webp"),
                "default": "svg",
                "help": "svg and pdf keep lines and text as such; default svg",
            },
        }
        | plain("--steps", "--quick")
        | output("dmbp-figures")
        | plain("--force", "--quiet", "--no-compilation-cache"),
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
            "source": PATH | {"metavar": "IN", "help": "checkpoint to read"},
            "target": PATH | {"metavar": "OUT", "help": "safetensors file to write"},
            "--network": {
                "default": None,
                "required": True,
                "help": "what it is (see dmbp networks)",
            },
            "--class-names": {},
            "--force": {"help": "overwrite OUT"},
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
