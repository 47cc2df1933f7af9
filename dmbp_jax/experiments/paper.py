"""The paper's Tables 1, 2 and 3, every number as printed; what it does not have is a dash.

They were measured with published weights, so they stand beside those weights and no others.
"""

from statistics import fmean

from dmbp_jax.catalogue import find_method

DASH = "–"
Setting = tuple[str, str]  # dataset, network

_VOC_VGG16, _VOC_RESNET50 = ("voc", "vgg16_voc"), ("voc", "resnet50_voc")
_IMAGENET_VGG16, _IMAGENET_RESNET50 = ("imagenet", "vgg16"), ("imagenet", "resnet50")

# fmt: off
_COLUMNS = {
    1: ("gradient", *find_method("dmbp").rows),
    2: ("gradient", "integrated_gradients", "smoothgrad", "blur_ig", "deeplift", "guided_backprop",
        "guided_gradcam", "lpr", "rise", "fullgrad", "gradcam", "dmbp"),
    3: ("guided_backprop", "guided_gradcam", "dmbp"),
}
_PRINTED: dict[int, dict[tuple[Setting, str], tuple[str, ...]]] = {
    1: {
        (_VOC_VGG16, "im"): (".36", ".62", ".51", ".57"),
        (_VOC_VGG16, "cim"): (".09", ".06", ".18", ".16"),
        (_VOC_RESNET50, "im"): (".30", ".58", ".59", ".61"),
        (_VOC_RESNET50, "cim"): (".15", ".15", ".22", ".22"),
        (_IMAGENET_VGG16, "im"): (".24", ".37", ".37", ".39"),
        (_IMAGENET_RESNET50, "im"): (".26", ".50", ".51", ".57"),
    },
    2: {
        (_VOC_VGG16, "im"):
            (".36", ".43", ".55", ".36", ".41", ".32", ".35", ".40", ".41", ".28", ".35", ".57"),
        (_VOC_VGG16, "cim"):
            (".09", ".06", ".06", ".08", ".07", ".06", ".12", ".07", ".13", ".10", ".13", ".16"),
        (_VOC_RESNET50, "im"):
            (".30", ".36", ".47", ".27", ".34", ".39", ".50", ".40", ".51", ".44", ".51", ".61"),
        (_VOC_RESNET50, "cim"):
            (".15", ".16", ".15", ".15", ".15", ".13", ".19", ".14", ".21", ".14", ".21", ".22"),
        (_IMAGENET_VGG16, "im"):
            (".23", ".28", ".38", ".21", ".30", ".32", ".36", ".28", ".28", ".43", ".48", ".41"),
        (_IMAGENET_RESNET50, "im"):
            (".26", ".30", ".40", ".27", ".29", ".43", ".50", ".33", ".33", ".53", ".55", ".56"),
    },
    3: {
        (_VOC_VGG16, "rank"): (".99", ".25", ".02"),
        (_VOC_RESNET50, "rank"): (".99", ".28", "-.03"),
        (_IMAGENET_VGG16, "rank"): (".99", ".35", ".00"),
        (_IMAGENET_RESNET50, "rank"): (".99", ".45", ".00"),
    },
}
# fmt: on


def paper_value(table: int, measure: str, method: str, dataset: str, network: str | None) -> str:
    """What the paper reports for a network with the published weights (else None), or a dash.

    "Grad" of Table 2 is ND of Table 1; the two differ by up to .02 for ImageNet, of which Table 1
    has a subset. The "avg" is the mean of the IM and cIM of this network.

    Example:
      >>> paper_value(1, "im", "dmbp", "imagenet", "vgg16")
      '.39'
    """
    if network is None or method not in _COLUMNS.get(table, ()):
        return DASH
    if measure == "avg":
        own = [paper_value(table, one, method, dataset, network) for one in ("im", "cim")]
        known = [float(text) for text in own if text != DASH]
        return f"{fmean(known):.3f}".lstrip("0") if known else DASH
    printed = _PRINTED[table].get(((dataset, network), measure))
    return DASH if printed is None else printed[_COLUMNS[table].index(method)]
