"""The rooms of docs/architecture.md: who imports whom, who lists methods.

The imports are read, not run, so those inside functions and for type checkers count as well.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from dmbp_jax.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
FOLDERS = {"dmbp_jax": "dmbp_jax", "models": "dmbp_jax.models", "convert": "dmbp_jax.convert"}
GROUND = ("errors", "version", "checks", "files", "catalogue")  # modules, free of JAX
BESIDE = ("networks", "data", "pictures", "convert", "models")
DOOR = "dmbp_jax"  # the root package and its public names
FLOORS = (
    GROUND,
    ("graph",),
    ("engine",),
    ("dmbp",),
    ("methods", "metrics"),
    BESIDE,  # know the ground floor and each other, nothing else
    ("experiments", "runs"),
    ("cli", DOOR),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"jax", "jaxlib", "flax", "optax"}
NAMES = {method.name for method in CATALOGUE}


def package_files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """The import name of a file of the package."""
    folder, *inside = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((FOLDERS[folder], *(part for part in inside if part != "__init__")))


def room_of(module: str) -> str:
    """The room of `dmbp_jax.room.file`; the door for the root package and its public names."""
    inside = module.split(".")[1:]
    return inside[0] if inside and inside[0] in FLOOR else DOOR


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported anywhere in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: Expected absolute imports."
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def wrong_imports(module: str, source: str) -> list[str]:
    """Imports of a file that point upwards, or bring JAX to the ground floor."""
    own, wrong = room_of(module), []
    for line, name in imports(source):
        package = name.split(".")[0]
        if package in HEAVY and own in GROUND:
            wrong.append(f"line {line}: {name} on the ground floor")
        if package == "dmbp_jax":
            other = room_of(name)
            beyond = own in BESIDE and other not in (*GROUND, *BESIDE)
            sideways = {own, other} == {"methods", "metrics"}
            if FLOOR[other] > FLOOR[own] or beyond or sideways:
                wrong.append(f"line {line}: {name}, {other} from {own}")
    return wrong


def method_lists(source: str) -> list[str]:
    """Collections of a file that name four or more methods."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            parts = [*node.keys, *node.values]
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts = node.elts
        else:
            continue
        names = NAMES & {part.value for part in parts if isinstance(part, ast.Constant)}
        if len(names) >= 4:
            found.append(f"line {node.lineno}: {', '.join(sorted(names))}")
    return found


def test_every_file_is_in_a_room() -> None:
    for path in package_files():
        module = module_of(path)
        assert module == DOOR or room_of(module) != DOOR, f"{name_of(path)}: Expected a room."


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rooms = {room_of(module_of(path)) for path in package_files()} - {DOOR}
    missing = [room for room in sorted(rooms) if not re.search(rf"`{room}(\.py|/)?`", text)]
    assert not missing


def test_files_that_the_map_names_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|md))`", text)
    places = (ROOT / "dmbp_jax", ROOT)  # models/ and convert/ lie at the top
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert len(named) > 20 and missing == ["cli/NAME.py"]


def test_imports_point_down() -> None:
    wrong = [
        f"{name_of(path)}, {offence}"
        for path in package_files()
        if module_of(path) != DOOR
        for offence in wrong_imports(module_of(path), path.read_text("utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_imports_go_round_in_a_circle() -> None:
    """Those inside functions and for type checkers count as well; the door imports on first use."""
    sources = {module_of(path): path.read_text("utf-8") for path in package_files()}
    below = {module: set() for module in sources if module != DOOR}
    for module, found in below.items():
        for _, name in imports(sources[module]):
            while name not in sources and "." in name:
                name = name.rpartition(".")[0]
            if name in below:
                found.add(name)
    tuple(TopologicalSorter(below).static_order())  # a CycleError names the circle


def test_methods_are_listed_in_the_catalogue_only() -> None:
    """The heads of the paper's printed tables are no list that another method would join."""
    found = [
        f"{name_of(path)}, {offence}"
        for path in package_files()
        if name_of(path) not in ("dmbp_jax/catalogue.py", "dmbp_jax/experiments/paper.py")
        for offence in method_lists(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


# --- the reading itself ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module, source, wrong",
    [
        ("dmbp_jax.engine.chunks", "from dmbp_jax.dmbp.config import DMBP", True),
        ("dmbp_jax.dmbp.loop", "import dmbp_jax.engine.chunks", False),
        ("dmbp_jax.graph.model", "def f():\n    from dmbp_jax import methods", True),
        ("dmbp_jax.graph.model", "if TYPE_CHECKING:\n    import dmbp_jax.cli.demo", True),
        ("dmbp_jax.methods.rise", "from dmbp_jax.metrics import insertion", True),
        ("dmbp_jax.metrics.curves", "from dmbp_jax.methods import METHODS", True),
        ("dmbp_jax.methods.rise", "from dmbp_jax.networks.network import load", True),
        ("dmbp_jax.networks.network", "from dmbp_jax.graph.model import bind", True),
        ("dmbp_jax.networks.network", "from dmbp_jax.convert import convert", False),
        ("dmbp_jax.experiments.tables", "from dmbp_jax import __version__", True),
        ("dmbp_jax.cli.demo", "from dmbp_jax import attribute", False),
        ("dmbp_jax.checks", "import jax.numpy as jnp", True),
        ("dmbp_jax.checks", "from flax import linen", True),
        ("dmbp_jax.checks", "import numpy as np", False),
        ("dmbp_jax.checks", "from dmbp_jax.errors import InputError", False),
        ("dmbp_jax.checks", "from dmbp_jax.graph.model import bind", True),
        ("dmbp_jax.graph.model", "import jax", False),
    ],
)
def test_wrong_imports_are_found(module: str, source: str, wrong: bool) -> None:
    assert bool(wrong_imports(module, source)) == wrong


@pytest.mark.parametrize(
    "source, found",
    [
        ("X = ('gradient', 'rise', 'lpr', 'dmbp')", True),
        ("X = ['gradient', 'rise', 'lpr', 'dmbp-positive', 'gradient']", False),
        ("X = {'gradient': 1, 'rise': 2, 'lpr': 3, 'dmbp': 4}", True),
        ("X = {1: 'gradient', 2: 'rise', 3: 'lpr', 4: 'dmbp'}", True),
        ("f(choices={'gradient', 'rise', 'lpr', 'dmbp'})", True),
        ("X = ('gradient', 'rise', 'lpr')", False),
    ],
)
def test_lists_of_methods_are_found(source: str, found: bool) -> None:
    assert bool(method_lists(source)) == found


def test_no_function_takes_more_than_six_positional_arguments():
    """What has more is given by name, so that a call can be read."""
    functions = ast.FunctionDef, ast.AsyncFunctionDef
    for path in package_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, functions):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
                count = len([name for name in names if name not in ("self", "cls")])
                assert count <= 6, f"{name_of(path)}: {node.name} takes {count}"
