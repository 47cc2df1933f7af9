"""The paper's own numbers, as far as the project has them; the rest is a dash, never a guess."""

_TABLE_1 = {  # (dataset, network) -> IM of ND and the three variants
    ("imagenet", "resnet50"): (".26", ".50", ".51", ".57"),
    ("imagenet", "vgg16"): (".24", ".37", ".37", ".39"),
}
_VARIANTS = ("gradient", "dmbp-positive", "dmbp-positive-negative", "dmbp")

# Range over the paper's networks and datasets, so it is shown beside any network.
_TABLE_3 = {"dmbp": "≈ 0", "guided_backprop": ".99", "guided_gradcam": ".25–.45"}

DASH = "–"


def paper_value(table: int, measure: str, method: str, dataset: str, network: str) -> str:
    """What the paper reports, or a dash.

    "Grad" of Table 2 is ND of Table 1.

    Example:
      >>> paper_value(1, "im", "dmbp", "imagenet", "vgg16")
      '.39'
    """
    if table == 3 and measure == "rank":
        return _TABLE_3.get(method, DASH)
    known = _TABLE_1.get((dataset, network))
    if measure != "im" or known is None or method not in _VARIANTS:
        return DASH
    if table == 2 and method != "gradient":
        return DASH
    return known[_VARIANTS.index(method)]
