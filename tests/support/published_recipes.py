"""What the sources of the recipes publish, as literals: sizes, steps and settings of their trainings."""

PARAMETERS = {  # as published
    "voc_deeplabv3_mobilenet_v2_os16_vainf": 5_113_877,
    "voc_deeplabv3_resnet50_os16_vainf": 39_638_869,
    "voc_deeplabv3_resnet101_os16_vainf": 58_630_997,
    "voc_deeplabv3plus_mobilenet_v2_os16_vainf": 5_225_717,
    "voc_deeplabv3plus_resnet50_os16_vainf": 39_761_845,
    "voc_deeplabv3plus_resnet101_os16_vainf": 58_753_973,
    "cityscapes_deeplabv3plus_resnet101_os16_vainf": 58_753_459,
    "cityscapes_deeplabv3plus_resnet101_os16_pruned_starlight": 58_753_459,  # before it is pruned
    "voc_deeplabv3_resnet101_os16_chenxi": 58_040_661,
    "voc_deeplabv3_resnet101_os16_gn_ws_chenxi": 58_040_661,
    "voc_deeplabv3_resnet50_os16_stigma": 39_048_533,
    "voc_deeplabv3_densenet161_os16_stigma": 43_200_341,
    "voc_deeplabv3_densenet201_os16_stigma": 32_683_157,
    "voc_deeplabv3_vovnet39_os16_stigma": 29_513_621,
    "voc_deeplabv3_vovnet57_os16_stigma": 43_553_621,
    "voc_deeplabv3_resnet101_os16_mindspore_s16": 58_040_661,
    "voc_deeplabv3_resnet101_os8_mindspore_s8_r1": 58_040_661,
    "voc_deeplabv3_resnet101_os8_mindspore_s8_r2": 58_040_661,
    "voc_deeplabv3_resnet101_os16_deepspark": 58_040_661,
}
YOR_PARAMETERS = {"resnet50": 39_804_436, "resnet101": 58_796_564, "resnet152": 74_440_212}

GMACS = {  # of an image of 513 x 513, as published
    "voc_deeplabv3_resnet101_os16_vainf": 71.70,
    "voc_deeplabv3plus_mobilenet_v2_os16_vainf": 16.82,
    "voc_deeplabv3_resnet101_os16_chenxi": 71.06,
    "voc_deeplabv3_densenet161_os16_stigma": 64.35,
    "voc_deeplabv3_vovnet57_os16_stigma": 68.17,
}

STEPS = {  # what the sources' epochs and batches come to
    "vainf": 30_000,
    "starlight": 30_000,
    "stigma": 50 * 661,
    "mindspore_s16": 300 * 41,
    "s8_r1": 800 * 82,
    "s8_r2": 300 * 11,
    "deepspark": 200 * 45,
    "yor": 30 * 371,
    "40k_mmseg": 40_000,
    "80k_mmseg": 80_000,
    "90k_detectron2": 90_000,
    "voc_deeplabv3_resnet101_os16_chenxi": 50 * 661,
    "gn_ws_chenxi": 50 * 661,
    "cityscapes_deeplabv3_resnet101_os16_chenxi": 480 * 148,
}

NO_SCALE = {"scale_low": 1.0, "scale_high": 1.0, "scale_distribution": "log_uniform"}  # which draws nothing then
COMMON = {  # what all sources share, unless a source's own row says otherwise
    "optimizer": "sgd", "backbone_rate_factor": 1.0, "weight_decay": 1e-4, "schedule": "poly", "final_rate_factor": 0.0,
    "warmup_steps": 0, "gradient_norm": 0.0, "average_decay": 0.0, "loss": "cross_entropy", "class_weights": "none",
    "teacher": "", "class_uniform": 0.0, "image_scale": 1.0, "auxiliary_head": False, "norm": "batch",
    "norm_epsilon": 1e-5, "norm_momentum": 0.1, "backbone_norm_momentum": 0.0, "atrous_rates": "",
    "multi_grid": "1 1 1", "image_pooling": True, "aspp_dropout": 0.1, "align_corners": False,
    "convolution_bias": False, "separable": "off", "decoder_convolutions": 1, "low_level_channels": 48, "channels": 256,
    "head_initialization": "he_normal",
    "scale_low": 0.5, "scale_high": 2.0, "scale_distribution": "uniform", "color_jitter": 0.0, "blur": 0.0,
}  # fmt: skip
VAINF = {  # rates below 1e-6 are not used: a ten-thousandth
    "learning_rate": 0.01, "backbone_rate_factor": 0.1, "final_rate_factor": 1e-4, "backbone_norm_momentum": 0.01,
    "batch_size": 16, "steps": 30_000,
}  # fmt: skip
VAINF_STREETS = VAINF | {"crop": (768, 768), "color_jitter": 0.5}
CHENXI = {
    "learning_rate": 0.007, "norm_momentum": 0.0003, "backbone_norm_momentum": 0.05, "aspp_dropout": 0.0,
    "align_corners": True, "head_initialization": "fan_out_normal", "scale_distribution": "log_uniform",
    "crop": (513, 513), "batch_size": 16, "epochs": 50, "steps": 0,
}  # fmt: skip
OTHER_EPSILON = {"norm_epsilon": 0.0003, "norm_momentum": 0.1, "backbone_norm_momentum": 0.0}
MINDSPORE = {
    "schedule": "cosine", "multi_grid": "1 2 4", "atrous_rates": "6 12 18", "aspp_dropout": 0.7, "align_corners": True,
    "head_initialization": "xavier", "crop": (513, 513), "steps": 0,
}  # fmt: skip
YOR = {
    "optimizer": "adamw", "learning_rate": 0.001, "backbone_rate_factor": 0.1, "schedule": "step", "step_epochs": 10,
    "step_factor": 0.5, "loss": "focal", "focal_gamma": 2.0, "aspp_dropout": 0.0, "align_corners": True,
    "convolution_bias": True, "low_level_channels": 64, "color_jitter": 0.3, **NO_SCALE, "blur": 2.0,
    "head_initialization": "torch", "crop": (1024, 1024), "batch_size": 8, "epochs": 30, "steps": 0,
    "precision": "float16",
}  # fmt: skip
MMSEG = {  # rates end at 1e-4: a hundredth
    "learning_rate": 0.01, "weight_decay": 5e-4, "final_rate_factor": 0.01, "auxiliary_head": True, "channels": 512,
    "separable": "normalized", "decoder_convolutions": 2, "head_initialization": "fan_out_normal", "color_jitter": 0.5,
    "crop": (512, 1024), "batch_size": 8,
}  # fmt: skip
MMSEG_STRIDE_16 = MMSEG | {"multi_grid": "1 2 4", "loss": "hard_pixels", "hard_share": 0.19}  # 100,000 of 524,288
DETECTRON2 = {  # whose heads start from a uniform distribution by fan-in alone: the header says so
    "learning_rate": 0.01, "warmup_steps": 1000, "loss": "hard_pixels", "hard_share": 0.2, "multi_grid": "1 2 4",
    "decoder_convolutions": 2, "head_initialization": "xavier", "crop": (512, 1024), "batch_size": 16,
    "steps": 90_000,
}  # fmt: skip

PUBLISHED_SETTINGS = {  # by the end of a recipe's name, the longest that fits
    "vainf": VAINF | {"crop": (513, 513)},
    "cityscapes_deeplabv3plus_mobilenet_v2_os16_vainf": VAINF_STREETS | NO_SCALE | {"learning_rate": 0.1},
    "cityscapes_deeplabv3plus_resnet101_os16_vainf": VAINF_STREETS | NO_SCALE | {"learning_rate": 0.1},
    "cityscapes_deeplabv3plus_resnet50_os8": VAINF_STREETS | {"steps": 0, "epochs": 162},
    "cityscapes_deeplabv3plus_resnet50_os16": VAINF_STREETS | {"steps": 0, "epochs": 162},
    "starlight": VAINF | {"crop": (513, 513), "color_jitter": 0.5} | NO_SCALE,
    "chenxi": CHENXI,
    "gn_ws_chenxi": CHENXI | {"norm": "group", "norm_momentum": 0.1, "backbone_norm_momentum": 0.0},
    "cityscapes_deeplabv3_resnet101_os16_chenxi": CHENXI
    | {"learning_rate": 0.1, "backbone_rate_factor": 0.1, "crop": (769, 769), "batch_size": 20, "epochs": 480},
    "resnet50_os16_stigma": CHENXI,
    "stigma": CHENXI | OTHER_EPSILON,
    "mindspore_s16": MINDSPORE | {"learning_rate": 0.08, "batch_size": 256, "epochs": 300},
    "mindspore_s8_r1": MINDSPORE | {"learning_rate": 0.02, "batch_size": 128, "epochs": 800},
    "mindspore_s8_r2": MINDSPORE | {"learning_rate": 0.008, "batch_size": 128, "epochs": 300, "train_split": "train"},
    "deepspark": MINDSPORE | {"learning_rate": 0.015, "batch_size": 32, "epochs": 200},
    "yor": YOR,
    "os8_40k_mmseg": MMSEG | {"steps": 40_000},
    "os8_80k_mmseg": MMSEG | {"steps": 80_000},
    "os16_40k_mmseg": MMSEG_STRIDE_16 | {"steps": 40_000},
    "os16_80k_mmseg": MMSEG_STRIDE_16 | {"steps": 80_000},
    "90k_detectron2": DETECTRON2,
}
OWN_CHOICES = {  # where a recipe leaves its source on purpose: the value, and what its header says of it
    "cityscapes_deeplabv3plus_mobilenet_v2_os16_vainf": {
        "learning_rate": (0.01, "learning rate 0.01, because a user reports 30 mIoU with"),
        "scale_low": (0.5, "random scale, which that loader"),
        "scale_high": (2.0, "random scale, which that loader"),
        "scale_distribution": ("uniform", "random scale, which that loader"),
    },
    "cityscapes_deeplabv3plus_resnet50_os8": {
        "scale_distribution": ("log_uniform", "scales are log-uniform"),
        "final_rate_factor": (0.0, "falls to 0, there to a ten-thousandth"),
        "gradient_norm": (5.0, "gradients are clipped to a norm of 5"),
        "backbone_norm_momentum": (0.0, "the backbone's norms have a momentum of 0.1, there 0.01"),
    },
}
for alike, other in (("mobilenet_v2_os16_vainf", "resnet101_os16_vainf"), ("resnet50_os8", "resnet50_os16")):
    street = "cityscapes_deeplabv3plus_"
    OWN_CHOICES[street + other] = OWN_CHOICES[street + alike]

NEVER_VALIDATED = "and keeps the best, in the source no validation during training"
EVERY_100 = "in the source every 100 steps"
FLOOR = "the backbone's learning rate falls to 1e-7, in the source to 1e-6"
TRUNCATED = "scaled sizes are rounded, in the source truncated"
CONTRAST = "contrast changes before saturation, in the source at random before or after it"
UNLIKE = {  # what a header has to say, for no parameter says it
    "_vainf": [EVERY_100, FLOOR, "biases start from zero"],
    "starlight": [EVERY_100, FLOOR],
    "chenxi": ["bilinearly, in the source with a Lanczos filter", "last batch is dropped", NEVER_VALIDATED],
    "stigma": ["bilinearly, in the source with a Lanczos filter", "last batch is dropped", NEVER_VALIDATED],
    "mindspore_s16": ["bilinearly, not bicubically", TRUNCATED, NEVER_VALIDATED],
    "s8_r1": [TRUNCATED, NEVER_VALIDATED],
    "s8_r2": [TRUNCATED, NEVER_VALIDATED],
    "yor": [
        "blurred, before its colors change, in the source 30 %, after it",
        "the hue is unchanged, in the source it changes by up to 0.1",
        "in the source each in half",
        "not by all",
        CONTRAST,
        "last batch is dropped (371 steps per epoch, not 372)",
        "the best epoch is kept, in the source the last",
    ],
    "mmseg": [
        "torchvision's stem",
        "the hue by up to 18 of 180",
        "75 % at most",
        "in the source on whole channels before the classifier",
        "rescaled",
        CONTRAST,
        TRUNCATED,
        "from N(0, 0.01)",
    ],
    "os8_40k_mmseg": ["averaged over labeled pixels, in the source over all"],
    "os8_80k_mmseg": ["averaged over labeled pixels, in the source over all"],
    "os16_40k_mmseg": ["in the source their sum divided by the number of all pixels"],
    "os16_80k_mmseg": ["in the source their sum divided by the number of all pixels"],
    "detectron2": [
        "in the source not to the norms",
        "from 7 values",
        "torchvision's stem",
        "by fan-in alone",
        "N(0, 0.001)",
    ],
    "deepspark": ["what its code's 0.3 meant in MindSpore at the time", TRUNCATED, NEVER_VALIDATED],
}
UNLIKE |= {  # those of VainF for each data set
    f"voc_deeplabv3{plus}_{backbone}_os16_vainf": [
        "padding lies to the right and below",
        "pads all four sides",
        TRUNCATED,
    ]
    for plus in ("", "plus")
    for backbone in ("mobilenet_v2", "resnet50", "resnet101")
}
UNLIKE |= {
    f"cityscapes_deeplabv3plus_{backbone}_os16_vainf": ["change in this order, in the source in a random one"]
    for backbone in ("mobilenet_v2", "resnet101")
}
