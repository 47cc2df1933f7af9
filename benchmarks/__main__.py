"""`python -m benchmarks NAME …` runs a script of one of the rooms; without a name, lists them.

A script is a file with a function `main`; the first line of its docstring says what it does.
"""

import ast
import runpy
import sys
from pathlib import Path


def scripts() -> dict[str, Path]:
    """Every script by its name, which is that of its file."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*/*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = path
    return found


def first_line(path: Path) -> str:
    """What a script does, in its own words."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]


def main() -> None:
    """Run the script that the first argument names, with the others."""
    found = scripts()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help"):
        print("usage: python -m benchmarks NAME [options]; NAME --help has its options\n")
        for known, path in found.items():
            print(f"{path.parent.name + '/':14}{known:22}{first_line(path)}")
        return
    if name not in found:
        sys.exit(f"NAME: Expected one of {', '.join(found)}, got {name!r}.")
    del sys.argv[1]
    room = found[name].parent.name
    runpy.run_module(f"benchmarks.{room}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
