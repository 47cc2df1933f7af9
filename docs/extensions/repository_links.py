"""Links that leave `docs/`: notebooks lead to their page here, other files to the repository.

Pages are read on the repository's site as well, where such links are relative.
"""

import re

from sphinx.application import Sphinx

REPOSITORY = "https://github.com/dmbp-jax/dmbp-jax/blob/main/"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
LINK = re.compile(r"\]\(\.\./([^)#\s]+)")


def target(match: re.Match[str]) -> str:
    """Where a link to a file outside of `docs/` leads on the site."""
    path = match.group(1)
    if path.startswith("notebooks/"):
        return f"]({path}"
    return f"]({PAGES.get(path, REPOSITORY + path)}"


def rewrite(app: Sphinx, page: str, source: list[str]) -> None:
    """Rewrite the links of one page."""
    up = "../" * page.count("/")
    source[0] = LINK.sub(target, source[0])
    if up:  # a notebook is one folder deeper here than in the repository
        source[0] = source[0].replace("](../docs/", "](../").replace("(docs/", f"({up}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Before the page is parsed."""
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
