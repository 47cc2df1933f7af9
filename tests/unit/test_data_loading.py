"""Decoding in threads: order, files that cannot be decoded, how far ahead, whose mistakes."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_folders import paint
from PIL import Image

from dmbp_jax.data import Loaded, Skipped, list_csv_folder, load_pictures
from dmbp_jax.errors import InputError


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((4, 4)))


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (4, 16), (8, 2)])
def test_bad_files_come_out_by_name_in_their_place(
    tmp_path: Path, workers: int, prefetch: int
) -> None:
    whole = paint(tmp_path / "00_good.jpg").read_bytes()
    (tmp_path / "01_empty.jpg").write_bytes(b"")
    (tmp_path / "02_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "03_text.jpg").write_text("I am no picture")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "04_huge.png")
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "05_animated.gif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (12, 10), (0, 255, 255, 0)).save(tmp_path / "06_cmyk.jpg")
    names = sorted(p.name for p in tmp_path.iterdir())
    (tmp_path / "labels.csv").write_text(
        "file,labels\n" + "".join(f"{name},1\n" for name in [*names, "07_absent.jpg"])
    )
    items = list(
        load_pictures(list_csv_folder(tmp_path), pixels, workers=workers, prefetch=prefetch)
    )
    found = [i.picture.name if isinstance(i, Loaded) else i.name for i in items]
    assert found == [*names, "07_absent.jpg"]
    good = [i.picture.name[:2] for i in items if isinstance(i, Loaded)]
    assert good == ["00", "05", "06"]
    reasons = {i.name[:2]: i.reason for i in items if isinstance(i, Skipped)}
    for key, reason in {
        "01": "empty",
        "02": "runcated",
        "03": "not a picture",
        "04": "too large",
        "07": "no such file",
    }.items():
        assert reason in reasons[key] and str(tmp_path) not in reasons[key]
    for item in items:
        if isinstance(item, Loaded):
            red, green, blue = item.x[2, 2]
            assert red > 240 and green < 15 and blue < 15


class Slow:
    """Counts how many pictures have been opened."""

    def __init__(self, name: str, opened: list[str]) -> None:
        self.name, self.labels, self.opened = name, (0,), opened

    def open(self) -> Image.Image:
        self.opened.append(self.name)
        return Image.new("RGB", (2, 2))

    def mask(self, label: int) -> None:
        return None


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited five seconds in vain")


def test_no_more_than_prefetch_pictures_are_decoded_ahead() -> None:
    opened: list[str] = []
    pictures = [Slow(str(i), opened) for i in range(50)]
    iterator = load_pictures(pictures, pixels, workers=4, prefetch=3)
    assert opened == []
    for taken in range(1, 11):
        next(iterator)
        assert len(opened) <= taken + 3
    wait_until(lambda: len(opened) == 13)
    iterator.close()  # pyrefly: ignore[missing-attribute]
    assert len(opened) == 13
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_mistakes_of_the_caller_are_not_swallowed() -> None:
    def broken(picture: Image.Image) -> np.ndarray:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(load_pictures([Slow("a", [])], broken))
    with pytest.raises(InputError, match="workers: Expected at least 1"):
        load_pictures([], pixels, workers=0)
    with pytest.raises(InputError, match="prefetch: Expected at least 1"):
        load_pictures([], pixels, prefetch=0)
