"""The paper's numbers: transcribed whole, averaged as printed, and shown only where they belong."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny_evaluation import SHORT, network, run

from dmbp_jax.data import Dataset, list_generated
from dmbp_jax.errors import InputError
from dmbp_jax.experiments import Settings
from dmbp_jax.experiments.paper import paper_value

NETWORKS = {
    "VOC/VGG16": ("voc", "vgg16_voc"),
    "VOC/RN50": ("voc", "resnet50_voc"),
    "ImNet/VGG16": ("imagenet", "vgg16"),
    "ImNet/RN50": ("imagenet", "resnet50"),
}
IM_AND_CIM = (
    "VOC/VGG16 im",
    "VOC/VGG16 cim",
    "VOC/RN50 im",
    "VOC/RN50 cim",
    "ImNet/VGG16 im",
    "ImNet/RN50 im",
)
RANK = tuple(f"{name} rank" for name in NETWORKS)
# As printed, column by column: the code has them row by row.
TABLE_1 = """
gradient                .36  .09  .30  .15  .24  .26
dmbp-positive           .62  .06  .58  .15  .37  .50
dmbp-positive-negative  .51  .18  .59  .22  .37  .51
dmbp                    .57  .16  .61  .22  .39  .57
"""
TABLE_2 = """
gradient                .36  .09  .30  .15  .23  .26  .23
integrated_gradients    .43  .06  .36  .16  .28  .30  .27
smoothgrad              .55  .06  .47  .15  .38  .40  .34
blur_ig                 .36  .08  .27  .15  .21  .27  .22
deeplift                .41  .07  .34  .15  .30  .29  .26
guided_backprop         .32  .06  .39  .13  .32  .43  .28
guided_gradcam          .35  .12  .50  .19  .36  .50  .34
lpr                     .40  .07  .40  .14  .28  .33  .27
rise                    .41  .13  .51  .21  .28  .33  .31
fullgrad                .28  .10  .44  .14  .43  .53  .32
gradcam                 .35  .13  .51  .21  .48  .55  .37
dmbp                    .57  .16  .61  .22  .41  .56  .42
"""
TABLE_3 = """
guided_backprop         .99   .99  .99  .99
guided_gradcam          .25   .28  .35  .45
dmbp                    .02  -.03  .00  .00
"""


def rows(table: str, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """Method -> column -> number as printed."""
    lines = [line.split() for line in table.strip().splitlines()]
    return [(method, dict(zip(columns, texts, strict=True))) for method, *texts in lines]


@pytest.mark.parametrize(
    ("number", "table", "columns"),
    [(1, TABLE_1, IM_AND_CIM), (2, TABLE_2, (*IM_AND_CIM, "Avg")), (3, TABLE_3, RANK)],
)
def test_every_number_of_the_paper_is_there(
    number: int, table: str, columns: tuple[str, ...]
) -> None:
    for method, printed in rows(table, columns):
        for column, text in printed.items():
            if column != "Avg":
                where, measure = column.split()
                dataset, name = NETWORKS[where]
                assert paper_value(number, measure, method, dataset, name) == text


def test_the_average_of_table_2_is_the_printed_one() -> None:
    """To rounding, with no exception: halves go up."""
    for method, printed in rows(TABLE_2, (*IM_AND_CIM, "Avg")):
        found = [
            paper_value(2, measure, method, *NETWORKS[where])
            for where, measure in map(str.split, IM_AND_CIM)
        ]
        mean = sum(map(Decimal, found)) / len(found)
        assert mean.quantize(Decimal(".01"), ROUND_HALF_UP) == Decimal(printed["Avg"])


def test_they_stand_only_where_they_belong() -> None:
    assert paper_value(2, "avg", "dmbp", "voc", "vgg16_voc") == ".365"
    assert paper_value(2, "avg", "dmbp", "imagenet", "vgg16") == ".410"
    for elsewhere in [
        (1, "cim", "dmbp", "imagenet", "resnet50"),
        (1, "im", "dmbp", "generated", "builtin"),
        (1, "im", "dmbp", "voc", "resnet50"),
        (1, "im", "dmbp", "imagenet", "resnet50_voc"),
        (1, "im", "dmbp", "imagenet", None),
        (1, "avg", "dmbp", "generated", "builtin"),
        (1, "im", "rise", "imagenet", "resnet50"),
        (2, "im", "dmbp-positive", "imagenet", "resnet50"),
        (2, "inside", "dmbp", "voc", "resnet50_voc"),
        (3, "rank", "gradient", "imagenet", "resnet50"),
        (3, "rank", "guided_backprop", "generated", "builtin"),
        (3, "rank_absolute", "dmbp", "imagenet", "resnet50"),
    ]:
        assert paper_value(*elsewhere) == "–"


def test_weights_of_your_own_do_not_stand_beside_the_paper(tmp_path: Path) -> None:
    def resnet50(params: Any, x: jax.Array) -> jax.Array:
        return network(params, x)

    dataset = Dataset("imagenet", list_generated(size=2).pictures)
    papers = {}
    for published in (None, "resnet50"):
        result = run(
            tmp_path, SHORT, apply_fn=resnet50, dataset=dataset, crop=None, published=published
        )
        papers[published] = result.table(1).cell("gradient", "im").paper
    assert papers == {None: "–", "resnet50": ".26"}
    assert "resnet50 on imagenet" in str(result)
    with pytest.raises(InputError, match="name: Expected a network's name, got 'resnet5'"):
        run(tmp_path, SHORT, published="resnet5")


@pytest.mark.slow
def test_our_tables_have_the_papers_average(tmp_path: Path) -> None:
    settings = Settings(tables=(2,), methods=["gradient", "deeplift"], points=3, limit=4)
    dataset = Dataset("voc", list_generated(size=4).pictures)
    result = run(tmp_path, settings, dataset=dataset, published="vgg16_voc")
    for method, expected in (("gradient", ".225"), ("deeplift", ".240")):
        row = next(row for row in result.table(2).rows if row.method == method)
        mean = (row.cells["im"].mean + row.cells["cim"].mean) / 2
        assert row.cells["avg"].mean == pytest.approx(mean, rel=1e-12)
        assert row.cells["avg"].paper == expected
    assert "|   Avg | paper |" in str(result)
