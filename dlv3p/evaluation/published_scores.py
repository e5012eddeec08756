"""What others have published for DeepLabV3 and DeepLabV3+, each number with its protocol and its source.

Only numbers whose protocol is known are here. They stand for other trainings than yours: a difference below a point is
within what two runs of one recipe differ by.
"""

from typing import NamedTuple


class PublishedScore(NamedTuple):
    """A mIoU, 0 to 1; `data` and `protocol` are named as in an evaluation of ours."""

    network: str
    data: str
    protocol: str
    mean_iou: float
    source: str


def _scores(data: str, protocol: str, source: str, percents: dict[str, float]) -> list[PublishedScore]:
    return [PublishedScore(network, data, protocol, round(p / 100, 4), source) for network, p in percents.items()]


CITYSCAPES, VOC = "Cityscapes val", "PASCAL VOC 2012 val"

PUBLISHED_SCORES = (
    *_scores(
        CITYSCAPES,
        "whole_image",
        "mmsegmentation, 80k steps of 512x1024",
        {
            "DeepLabV3 ResNet-18 stride 8": 76.70,
            "DeepLabV3 ResNet-50 stride 8": 79.32,
            "DeepLabV3 ResNet-101 stride 8": 80.20,
            "DeepLabV3 ResNet-101 stride 16, multi-grid": 78.36,
            "DeepLabV3+ ResNet-18 stride 8": 76.89,
            "DeepLabV3+ ResNet-50 stride 8": 80.09,
            "DeepLabV3+ ResNet-101 stride 8": 80.97,
            "DeepLabV3+ ResNet-101 stride 16, multi-grid": 79.90,
        },
    ),
    *_scores(
        CITYSCAPES,
        "six_scales_flip",
        "mmsegmentation, 80k steps of 512x1024",
        {
            "DeepLabV3 ResNet-18 stride 8": 78.27,
            "DeepLabV3 ResNet-50 stride 8": 80.57,
            "DeepLabV3 ResNet-101 stride 8": 81.21,
            "DeepLabV3 ResNet-101 stride 16, multi-grid": 79.84,
            "DeepLabV3+ ResNet-18 stride 8": 78.76,
            "DeepLabV3+ ResNet-50 stride 8": 81.13,
            "DeepLabV3+ ResNet-101 stride 8": 82.03,
            "DeepLabV3+ ResNet-101 stride 16, multi-grid": 81.33,
        },
    ),
    *_scores(
        CITYSCAPES,
        "windows_769",
        "mmsegmentation, 80k steps of 769x769",
        {"DeepLabV3 ResNet-50 stride 8": 79.89, "DeepLabV3 ResNet-101 stride 8": 79.67},
    ),
    *_scores(
        CITYSCAPES,
        "windows_769_six_scales_flip",
        "mmsegmentation, 80k steps of 769x769",
        {"DeepLabV3 ResNet-50 stride 8": 81.06, "DeepLabV3 ResNet-101 stride 8": 80.81},
    ),
    *_scores(
        CITYSCAPES,
        "whole_image",
        "VainF/DeepLabV3Plus-Pytorch",
        {"DeepLabV3+ MobileNetV2 stride 16": 72.1, "DeepLabV3+ ResNet-101 stride 16": 76.2},
    ),
    *_scores(
        VOC,
        "voc_padded_513",
        "chenxi116/DeepLabv3.pytorch",
        {"DeepLabV3 ResNet-101 stride 16": 76.49, "DeepLabV3 ResNet-101 stride 16, group norm": 77.20},
    ),
    *_scores(
        VOC,
        "voc_padded_513",
        "stigma0617/VoVNet-DeepLabV3",
        {
            "DeepLabV3 ResNet-50 stride 16": 74.27,
            "DeepLabV3 ResNet-101 stride 16": 76.81,
            "DeepLabV3 DenseNet-161 stride 16": 76.13,
            "DeepLabV3 DenseNet-201 stride 16": 75.63,
            "DeepLabV3 VoVNet-39 stride 16": 75.71,
            "DeepLabV3 VoVNet-57 stride 16": 77.40,
        },
    ),
    *_scores(
        VOC,
        "voc_long_side_513",
        "MindSpore model zoo",
        {"DeepLabV3 ResNet-101 stride 16": 77.37, "DeepLabV3 ResNet-101 stride 8": 78.84},
    ),
    *_scores(VOC, "voc_long_side_513_five_scales", "MindSpore model zoo", {"DeepLabV3 ResNet-101 stride 8": 79.70}),
    *_scores(
        VOC, "voc_long_side_513_five_scales_flip", "MindSpore model zoo", {"DeepLabV3 ResNet-101 stride 8": 79.89}
    ),
    *_scores(
        VOC,
        "voc_center_crop_513",
        "VainF/DeepLabV3Plus-Pytorch",
        {
            "DeepLabV3 MobileNetV2 stride 16": 70.1,
            "DeepLabV3 ResNet-50 stride 16": 76.9,
            "DeepLabV3 ResNet-101 stride 16": 77.3,
            "DeepLabV3+ MobileNetV2 stride 16": 71.1,
            "DeepLabV3+ ResNet-50 stride 16": 77.2,
            "DeepLabV3+ ResNet-101 stride 16": 78.3,
        },
    ),
    *_scores(
        VOC,
        "voc_center_crop_513",
        "jfzhang95/pytorch-deeplab-xception",
        {"DeepLabV3+ MobileNetV2 stride 16": 70.81, "DeepLabV3+ ResNet-101 stride 16": 78.43},
    ),
)
