"""Links and names of files in the documentation lead somewhere: pages, anchors, pictures, scripts.

What leaves the repository is not asked for; links to its own address are followed in the checkout.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/dmbp-jax/dmbp-jax"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "llms.txt")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]
FENCE = re.compile(r"^( *)(`{3,}|:{3,}).*?^\1\2", flags=re.M | re.S)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]: *(\S+)", flags=re.M)
TAG = re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
GITHUB = str.maketrans(dict.fromkeys("!\"#$%&'()*+,./:;<=>?@[\\]^`{|}~…", ""))  # not in anchors
FOLDERS = r"(?:\.ci|benchmarks|convert|dmbp_jax|docs|models|notebooks|tests)"
NAMED = re.compile(rf"(?<![\w./-])({FOLDERS}/[\w./-]*\w)")
MADE = {"docs/notebooks"}  # not in the checkout: written by a build


def markdown(page: Path) -> str:
    """The Markdown of a page; of a notebook that of its cells."""
    text = page.read_text("utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", markdown(page)), flags=re.M)
    found: list[str] = []
    for heading in headings:
        anchor = heading.lower().translate(GITHUB).replace(" ", "-")
        again = sum(re.sub(r"-\d+$", "", other) == anchor for other in found)
        found.append(f"{anchor}-{again}" if again else anchor)
    return set(found)


def links(text: str) -> list[str]:
    """What the links and pictures of some Markdown lead to; code is no link."""
    prose = CODE.sub(" ", FENCE.sub("", text))
    return ["".join(link) for link in LINK.findall(prose)] + TAG.findall(prose)


def broken(page: Path, link: str) -> str | None:
    """What is wrong with a link, if it can be followed here."""
    if link.startswith(REPOSITORY):
        path = re.sub(r"^/(?:blob|tree)/main/?", "", link.removeprefix(REPOSITORY))
        page, link = ROOT / "README.md", path.strip("/") or "README.md"
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return f"{link}: no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    assert [wrong for link in links(markdown(page)) if (wrong := broken(page, link))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    """Also in code and commands: `python benchmarks/….py`."""
    names = set(NAMED.findall(markdown(page))) - MADE
    missing = [
        name
        for name in names
        if not (ROOT / name).exists() and not (ROOT / f"{name}.ipynb").exists()  # in lists of pages
    ]
    if missing and page.name == "CHANGELOG.md":
        pytest.skip("names what was")
    assert sorted(missing) == []


def test_every_picture_is_shown():
    """A picture that no page shows is one that nobody looks at when it changes."""
    listed = subprocess.run(
        ["git", "ls-files", "docs/pictures"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    shown = "\n".join(markdown(page) for page in PAGES)
    assert [path for path in listed if Path(path).name not in shown] == []


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("docs/speed.md", None),
        ("docs/sped.md", "docs/sped.md: no such file"),
        ("docs/ecosystem.md#pytorch", None),
        ("docs/ecosystem.md#torch", "docs/ecosystem.md#torch: no such heading"),
        (f"{REPOSITORY}/blob/main/LICENSE", None),
        (f"{REPOSITORY}/blob/main/LICENCE", "LICENCE: no such file"),
        ("https://example.org/nothing", None),
        ("#limits", None),
        ("#limit", "#limit: no such heading"),
    ],
)
def test_what_is_found_broken(link, wrong):
    assert broken(ROOT / "README.md", link) == wrong


def test_links_are_found_in_every_form():
    text = (
        '[a](one.md) ![b](<two.png>) [c](three.md#x "title") `[d](four.md)`\n'
        '```\n[e](five.md)\n```\n[f]: six.md\n<img src="seven.png">\n'
    )
    assert sorted(links(text)) == sorted(["one.md", "two.png", "three.md#x", "six.md", "seven.png"])
