"""Class names in any script: drawn in a font that has them, else written in ASCII."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dmbp_jax.experiments.figures import Sheet, Tile, save_sheet
from dmbp_jax.pictures import fonts, grid

USUAL = ImageFont.load_default(16)
FOLDERS = fonts._folders


@pytest.fixture(autouse=True)
def no_fonts(monkeypatch, tmp_path):
    """A system without fonts but those that a test copies here."""
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path / "fonts"])
    for cached in (fonts._search, fonts._system_fonts):
        cached.cache_clear()
    yield tmp_path / "fonts"
    for cached in (fonts._search, fonts._system_fonts):
        cached.cache_clear()


@pytest.fixture(name="with_font")
def one_font(no_fonts):
    """Matplotlib's font as that of the system, beside a file that is none."""
    matplotlib = pytest.importorskip("matplotlib")
    source = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    (no_fonts / "sub").mkdir(parents=True)
    (no_fonts / "a.ttf").write_bytes(b"no font")
    return Path(shutil.copy(source, no_fonts / "sub"))


def drawn(text: str, font=USUAL) -> np.ndarray:
    picture = Image.new("RGB", (300, 30), "white")
    ImageDraw.Draw(picture).text((8, 8), text, fill="black", font=font)
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiger cat, 3.5 %", "tiger cat, 3.5 %"),
        ("猫 (3): y 1", r"\u732b (3): y 1"),
        ("Ǩočka", "Kočka"),
        ("🐈", r"\U0001f408"),
        ("a\u200bb", r"a\u200bb"),
    ],
)
def test_letters_that_no_font_has_are_written_in_ascii(text, expected):
    path, shown = fonts.find_font(text, USUAL)
    assert path is None
    assert shown == expected or shown == expected.replace("č", "c")


def test_folders_are_where_the_variables_of_the_system_say(monkeypatch):
    monkeypatch.setenv("XDG_DATA_DIRS", "/one:/two")
    monkeypatch.setenv("WINDIR", "/windows")
    monkeypatch.setenv("HOME", "/home")
    assert {"/one/fonts", "/two/fonts", "/windows/Fonts", "/home/.fonts"} <= set(FOLDERS())


def test_a_title_is_never_drawn_as_boxes(no_fonts):
    tile = Image.new("RGB", (300, 10))
    for text, same in (("猫", r"\u732b"), ("ab", "ab")):
        np.testing.assert_array_equal(*(np.asarray(grid([[tile]], title=t)) for t in (text, same)))


def test_a_font_of_the_system_is_taken_where_it_has_the_letters(with_font):
    letters = "‱⅔♞"
    assert fonts.find_font("plain", USUAL) == (None, "plain")
    assert fonts.find_font(f"a {letters}", USUAL) == (with_font, f"a {letters}")
    assert fonts.find_font(f"{letters}猫", USUAL)[0] is None
    tile = Image.new("RGB", (300, 10))
    picture = np.asarray(grid([[tile]], title=letters))
    font = ImageFont.truetype(with_font, 18)
    np.testing.assert_array_equal(picture[:30, :300], drawn(letters, font))


def test_figures_write_names_as_they_are(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    tile = Tile(Image.new("RGB", (4, 4)), "猫 costs $1 or $2")
    save_sheet(Sheet(((tile,),), ("title 猫",)), tmp_path / "a.png")
    assert not [one for one in recwarn if "Glyph" in str(one.message)]
    assert (tmp_path / "a.png").stat().st_size > 0
