"""What a large run takes: folders, patterns, files, tables; and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from small_runs import small_plan, tiny_network, write_pictures

from dmbp_jax.data.folders import list_folder
from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.errors import DataError, DmbpError, InputError
from dmbp_jax.runs.inputs import list_inputs, read_lines

NET = tiny_network()


def listed(images, labels=None):
    return list_inputs(images, labels, NET.label_index)


@pytest.fixture
def folder(tmp_path) -> Path:
    write_pictures(tmp_path / "b", 2)
    write_pictures(tmp_path / "a", 1)
    (tmp_path / "notes.txt").write_text("no picture", "utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def test_a_folder_is_searched_in_order(folder):
    inputs = listed(folder, 1)
    assert inputs.files == ("a/000.png", "b/000.png", "b/001.png")
    assert inputs.sizes == tuple((folder / file).stat().st_size for file in inputs.files)
    assert inputs.labels == (1, 1, 1)
    assert inputs.path(2) == folder / "b/001.png"
    assert len(list_folder(folder).files) == 4


def test_patterns_and_files(folder):
    assert listed(str(folder / "b/*.png")).files == ("000.png", "001.png")
    assert listed(str(folder / "**/000.png")).files == ("a/000.png", "b/000.png")
    one = listed([str(folder / "b/001.png"), folder / "b/001.png"])
    assert (one.files, one.root) == (("001.png",), folder / "b")


def test_a_table_of_rows(folder):
    table = folder / "rows.csv"
    table.write_text("file,label\nb/001.png,blue\na/000.png,\nb/001.png,0\ngone.png,1\n", "utf-8")
    inputs = listed(table)
    assert inputs.files == ("b/001.png", "a/000.png", "b/001.png", "gone.png")
    assert inputs.labels == (2, None, 0, 1)
    assert inputs.sizes[-1] is None  # not there: a failed row later, no reason to stop
    assert read_lines(inputs.lines(), inputs.root) == inputs


def test_labels_of_a_folder_in_a_table(folder):
    table = folder / "labels.csv"
    table.write_text("file,label\nb/001.png,2\na/000.png,red\nb/000.png,1\nb/001.png,1\n", "utf-8")
    inputs = listed(folder, table)
    assert inputs.files == ("a/000.png", "b/000.png", "b/001.png", "b/001.png")
    assert inputs.labels == (0, 1, 2, 1)


def test_names_of_a_table_start_from_the_pictures_or_from_the_table(folder):
    (folder / "tables").mkdir()
    table = folder / "tables" / "t.csv"
    table.write_text("file,label\n../b/000.png,2\n001.png,1\n", "utf-8")
    assert listed(folder / "b", table).labels == (2, 1)
    (folder / "t.csv").write_text("file,label\nb/000.png,2\nb/001.png,1\n", "utf-8")
    assert listed(str(folder / "b" / "*"), folder / "t.csv").labels == (2, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\na/000.png\n", "Expected the columns file,label"),
        ("file,label\n", "at least one row"),
        ("file,label\na/000.png,7\n", "line 2: label: Expected 0 <= label < 3, got 7"),
        ("file,label\na/000.png,purple\n", "line 2"),
        ("file,label\na/000.png,1\na/000.png,1\n", "line 3: Expected a file and label not named"),
        ("file,label\n,1\n", "line 2"),
    ],
)
def test_a_table_that_cannot_be_used_names_its_line(folder, text, words):
    (folder / "rows.csv").write_text(text, "utf-8")
    with pytest.raises(DataError, match=words):
        listed(folder / "rows.csv")


def test_what_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", tmp_path / "nothing", str(tmp_path / "*.jpg"), []):
        with pytest.raises(InputError, match="images: Expected"):
            listed(images)
    (folder / "rows.csv").write_text("file,label\nz.png,1\n", "utf-8")
    with pytest.raises(DataError, match=r"a row for every picture, got none for a/000\.png"):
        listed(folder, folder / "rows.csv")
    with pytest.raises(InputError, match="label: Expected none beside"):
        listed(folder / "rows.csv", 1)
    with pytest.raises(InputError, match=r"label: Expected none beside .* got 'top1'"):
        listed(folder / "rows.csv", "top1")
    for images in ([folder, folder / "rows.csv"], [""], [folder, ""]):
        with pytest.raises(InputError, match="images: Expected a table alone"):
            listed(images)
    with pytest.raises(InputError, match="label: Expected 0 <= label < 3, got 9"):
        listed(folder, 9)


def test_a_plan_is_cut_into_shards(tmp_path):
    plan = small_plan(write_pictures(tmp_path, 10), save=("positive", "heatmap"))
    assert plan.shards == 3
    assert [plan.rows(k) for k in range(3)] == [range(4), range(4, 8), range(8, 10)]
    assert plan.save == ("heatmap", "positive")
    assert plan.map_shape("heatmap") == (16, 16)
    assert plan.map_shape("positive") == (16, 16, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "method: Expected one of"),
        ({"save": "heatmap,sum"}, "save: Expected one of"),
        ({"save": ()}, "save: Expected at least one"),
        ({"dtype": "float8"}, "dtype: Expected one of"),
        ({"shard_size": 0}, "shard_size: Expected at least 1"),
        ({"config": 3}, "config: Expected a DMBP"),
        ({"method": "gradient"}, "config: Expected none"),
        ({"method": "gradient", "config": None, "save": "positive"}, "save: Expected heatmap"),
        ({"method": "gradcam", "config": None, "save": "map"}, "save: Expected heatmap"),
        ({"method": "gradient", "config": None, "options": {"stpes": 1}}, "options: Expected"),
        ({"nonaffine": "ignore"}, "nonaffine: Expected one of 'refuse', 'freeze', got 'ignore'"),
        ({"method": "gradient", "config": None, "nonaffine": "ignore"}, "nonaffine: Expected one"),
        ({"options": {"nonaffine": "freeze"}}, "options: Expected nonaffine as an argument"),
        (
            {"biases": "paint"},
            "biases: Expected one of 'drop', 'spread', 'refine', 'carry'",
        ),
        ({"options": {"biases": "carry"}}, "options: Expected biases as an argument"),
        ({"method": "gradient", "config": None, "biases": "carry"}, "biases: Expected none with"),
        ({"options": {"config": DMBP(steps=1)}}, "options: Expected config as an argument"),
        ({"network": "resnet5O"}, "resnet50"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, options, words):
    with pytest.raises(DmbpError, match=words):
        small_plan(write_pictures(tmp_path, 1), **options)


def test_missing_images_are_noticed_before_the_weights_are_loaded(tmp_path):
    with pytest.raises(InputError, match="images"):
        small_plan(tmp_path / "nothing", network="resnet50", weights=tmp_path / "none.pth")


def test_sizes_are_numbers_of_bytes(tmp_path):
    plan = small_plan(write_pictures(tmp_path, 2), config=DMBP(steps=1))
    assert np.array(plan.inputs.sizes).min() > 1000
