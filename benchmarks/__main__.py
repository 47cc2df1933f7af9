"""`python -m benchmarks NAME …` runs a command of one of the rooms; without a name, lists them.

A script is a file with a function `main`, which has the name of the file and does what the first
line of the file says; or with several `COMMANDS`, name -> function, each of which says it itself.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A function of a script, and what it does in its own words."""

    path: Path
    function: str
    does: str

    @property
    def room(self) -> str:
        """The folder of the script."""
        return self.path.parent.name


def commands() -> dict[str, Command]:
    """Every command by its name, in the order of rooms and files; nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*/*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "main" in functions:
            found[path.stem] = Command(path, "main", _first_line(tree))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMANDS":
                assert isinstance(node.value, ast.Dict)
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    assert isinstance(key, ast.Constant)
                    name, function = str(key.value), ast.unparse(value)
                    found[name] = Command(path, function, _first_line(functions[function]))
    return found


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


def main() -> None:
    """Run the command that the first argument names, with the others."""
    found = commands()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help"):
        print("usage: python -m benchmarks NAME [options]; NAME --help has its options\n")
        for known, command in found.items():
            print(f"{command.room + '/':14}{known:22}{command.does}")
        return
    if name not in found:
        sys.exit(f"NAME: Expected one of {', '.join(found)}, got {name!r}.")
    sys.argv[:2] = [f"python -m benchmarks {name}"]
    script = import_module(f"benchmarks.{found[name].room}.{found[name].path.stem}")
    sys.exit(getattr(script, found[name].function)())


if __name__ == "__main__":
    main()
