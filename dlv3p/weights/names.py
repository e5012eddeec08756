"""Map the names of entries in public files to ours, and back.

A table has our names on the left and the file's on the right. A name stands for everything below it, and of several
that match the longest counts, so that a table works in both directions.
"""

import re
from collections.abc import Mapping

Names = Mapping[str, str]

RESNET = {"backbone": "backbone"}
FLAT = {"backbone": ""}

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
ATTRIBUTES = ("model", "net")
"""Names under which a LightningModule usually keeps its network; no public file begins with one."""

VAINF_MOBILENET = {
    **{f"backbone.features.{index}": f"backbone.low_level_features.{index}" for index in range(4)},
    **{f"backbone.features.{index}": f"backbone.high_level_features.{index}" for index in range(4, 18)},
}
TORCHVISION_MOBILENET = {"backbone.features": "backbone"}
YOR_RESNET = {
    "backbone.conv1": "resnet.layer_0.0",
    "backbone.bn1": "resnet.layer_0.1",
    **{f"backbone.layer{stage}": f"resnet.layer_{stage}" for stage in range(1, 5)},
}


def _torchvision_aspp(theirs: str) -> dict[str, str]:
    """Return the names of the ASPP of torchvision and VainF, which is at the name `theirs`."""
    branches = {f"aspp.branch{index}": f"{theirs}.convs.{index}" for index in range(4)}
    names = {"aspp.pool.conv": f"{theirs}.convs.4.1", "aspp.pool.bn": f"{theirs}.convs.4.2"}
    for ours, block in (branches | {"aspp.project": f"{theirs}.project"}).items():
        names |= {f"{ours}.conv": f"{block}.0", f"{ours}.bn": f"{block}.1"}
        names |= _separable(f"{ours}.conv", f"{block}.0")
    return names


def _separable(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.depthwise": f"{theirs}.body.0", f"{ours}.pointwise": f"{theirs}.body.1"}


VAINF_PLUS = {
    **_torchvision_aspp("classifier.aspp"),
    "decoder.low.conv": "classifier.project.0",
    "decoder.low.bn": "classifier.project.1",
    "decoder.fuse.conv": "classifier.classifier.0",
    **_separable("decoder.fuse.conv", "classifier.classifier.0"),
    "decoder.fuse.bn": "classifier.classifier.1",
    "classifier": "classifier.classifier.3",
}
VAINF_V3 = {
    **_torchvision_aspp("classifier.classifier.0"),
    "head.conv": "classifier.classifier.1",
    **_separable("head.conv", "classifier.classifier.1"),
    "head.bn": "classifier.classifier.2",
    "classifier": "classifier.classifier.4",
}
TORCHVISION = {
    **_torchvision_aspp("classifier.0"),
    "head.conv": "classifier.1",
    "head.bn": "classifier.2",
    "classifier": "classifier.4",
    "auxiliary.conv": "aux_classifier.0",
    "auxiliary.bn": "aux_classifier.1",
    "auxiliary.classifier": "aux_classifier.4",
}
CHENXI = {
    **{f"aspp.branch{index}.conv": f"aspp.aspp{index + 1}" for index in range(4)},
    **{f"aspp.branch{index}.bn": f"aspp.aspp{index + 1}_bn" for index in range(4)},
    "aspp.pool.conv": "aspp.aspp5",
    "aspp.pool.bn": "aspp.aspp5_bn",
    "aspp.project.conv": "aspp.conv2",
    "aspp.project.bn": "aspp.bn2",
    "classifier": "aspp.conv3",
}
YOR = {
    "aspp.branch0.conv": "aspp.convs.0.0",
    "aspp.branch0.bn": "aspp.convs.0.1",
    **{f"aspp.branch{index}.conv": f"aspp.convs.{index}.dilated_conv.0" for index in range(1, 4)},
    **{f"aspp.branch{index}.bn": f"aspp.convs.{index}.dilated_conv.1" for index in range(1, 4)},
    "aspp.pool.conv": "aspp.convs.4.pool.1",
    "aspp.pool.bn": "aspp.convs.4.pool.2",
    "aspp.project.conv": "aspp.project.0",
    "aspp.project.bn": "aspp.project.1",
    "decoder.low.conv": "decoder.project_low_level_features.0",
    "decoder.low.bn": "decoder.project_low_level_features.1",
    "decoder.fuse.conv": "decoder.classifer.0",  # sic, as in the files
    "decoder.fuse.bn": "decoder.classifer.1",
    "classifier": "decoder.classifer.3",
}
MINDSPORE = {
    "backbone": "resnet",
    **{f"aspp.branch{index}.conv": f"aspp.aspp{index + 1}.aspp_conv.0" for index in range(4)},
    **{f"aspp.branch{index}.bn": f"aspp.aspp{index + 1}.aspp_conv.1" for index in range(4)},
    "aspp.pool.conv": "aspp.aspp_pooling.conv.0",
    "aspp.pool.bn": "aspp.aspp_pooling.conv.1",
    "aspp.project.conv": "aspp.conv1",
    "aspp.project.bn": "aspp.bn1",
    "classifier": "aspp.conv2",
}

MINDSPORE_LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""MindSpore's and PyTorch's names of the tensors of a batch norm."""

_DOTTED_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])(?=\.)")


def to_ours(name: str, names: Names) -> str | None:
    """Return our name of an entry in a public file, None when the table has none."""
    return _replaced(name, {theirs: ours for ours, theirs in names.items()})


def to_theirs(name: str, names: Names) -> str:
    """Return the name in a public file of one of our entries; entries without one keep their name."""
    return _replaced(name, names) or name


def without_wrappers(name: str) -> str:
    """Remove what wrappers of the network or of a part of it add to names, in any order and number.

    DataParallel and FSDP add `module`, torch.compile `_orig_mod`; a LightningModule has the network below `model` or
    `net`, at the beginning of the name only.
    """
    words = [word for word in name.split(".") if word not in WRAPPERS]
    while len(words) > 2 and words[0] in ATTRIBUTES:
        del words[0]
    return ".".join(words)


def join_dotted(name: str) -> str:
    """Write `norm1` where a DenseNet file from before 2018 has `norm.1`; leave all other names as they are."""
    return _DOTTED_LAYER.sub(r"\1\2", name)


def _replaced(name: str, table: Mapping[str, str]) -> str | None:
    words = name.split(".")
    for length in range(len(words), -1, -1):
        stem, rest = ".".join(words[:length]), words[length:]
        if stem in table:
            return ".".join([table[stem], *rest] if table[stem] else rest)
    return None
