"""Find the parameters that an unknown name most likely means: other tools' names for them, and misspellings."""

import difflib
from collections.abc import Sequence

SYNONYMS = {
    "learning_rate": ("lr", "base_lr", "lr0", "rate"),
    "batch_size": ("bs", "batch", "train_batch_size", "samples_per_gpu"),
    "precision": ("amp", "fp16", "half", "bf16", "mixed_precision", "use_amp", "dtype"),
    "backbone": ("encoder", "encoder_name", "backbone_name", "net", "arch"),
    "architecture": ("model", "model_name", "decoder", "network", "head"),
    "crop_height": ("imgsz", "img_size", "image_size", "input_size", "crop_size", "size", "resolution", "patch_size"),
    "crop_width": ("imgsz", "img_size", "image_size", "input_size", "crop_size", "size", "resolution", "patch_size"),
    "image_scale": ("resize", "scale", "downsample"),
    "height": ("imgsz", "img_size", "image_size", "size", "resolution"),
    "width": ("imgsz", "img_size", "image_size", "size", "resolution"),
    "output_stride": ("os", "stride", "downsample_factor"),
    "output_strides": ("os", "stride", "strides", "output_stride"),
    "initial_weights": ("pretrained", "weights", "encoder_weights", "ckpt", "checkpoint", "finetune", "init"),
    "data_root": ("data", "dataset", "root", "path", "data_dir", "data_path", "dataset_root"),
    "run": ("name", "exp", "exp_name", "experiment", "project", "run_name", "output_dir", "save_dir"),
    "epochs": ("num_epochs", "max_epochs", "n_epochs", "epoch", "ep"),
    "steps": ("iters", "iterations", "max_iters", "max_steps", "total_itrs", "total_steps"),
    "optimizer": ("optim", "opt", "solver"),
    "schedule": ("scheduler", "lr_scheduler", "lr_policy", "lr_schedule", "sched"),
    "weight_decay": ("wd", "decay", "l2"),
    "warmup_steps": ("warmup", "warmup_epochs", "warmup_iters"),
    "gradient_norm": ("grad_clip", "clip", "clip_grad", "max_grad_norm", "gradient_clip_val"),
    "accumulation": ("accum", "grad_accum", "accumulate", "accumulate_grad_batches", "gradient_accumulation"),
    "average_decay": ("ema", "ema_decay", "model_ema"),
    "loss": ("criterion", "loss_fn", "loss_type"),
    "class_weights": ("class_weight", "weighted_loss", "balance"),
    "norm": ("bn", "batch_norm", "sync_bn", "group_norm"),
    "norm_momentum": ("bn_momentum", "bn_mom", "momentum"),
    "validate_every": ("val_interval", "val_every", "eval_interval", "val_freq", "check_val_every_n_epoch"),
    "patience": ("early_stopping", "early_stop", "early_stopping_patience"),
    "workers": ("num_workers", "n_workers", "jobs", "loader_workers"),
    "device": ("gpu", "cuda", "gpus", "gpu_id", "devices", "accelerator"),
    "processes": ("gpus", "num_gpus", "devices", "nproc", "world_size", "ddp"),
    "seed": ("random_seed", "random_state", "manual_seed"),
    "color_jitter": ("jitter", "hsv", "brightness", "augment"),
    "tensorboard": ("tb", "logger", "log", "wandb"),
    "flip": ("tta", "hflip", "mirror"),
    "scales": ("tta", "multi_scale", "ms"),
}
"""A parameter: what it is called elsewhere."""

SIMILAR = 0.6
"""From this likeness on (difflib's ratio), a name is taken for a misspelling of another; below, it is noise."""
SHORT = 3
"""Up to so many letters, a name is like too many others: only synonyms and shared words count."""


def nearest(name: str, names: Sequence[str], *, number: int = 5) -> list[str]:
    """Return up to so many of `names`, the likeliest meaning of `name` first: synonyms, then similar names.

    Names that share a word with a synonym follow: who asks for `lr` may mean another rate.
    """
    name = name.lower()
    meant = [known for known in names if name in SYNONYMS.get(known, ())]
    ranks = {known: max([_likeness(name, known), *(_likeness(one, known) - 1 for one in meant)]) for known in names}
    near = [known for known in names if ranks[known] >= SIMILAR or _shared(known, [name, *meant])]
    return sorted(near, key=lambda known: -ranks[known])[:number]


def likely(name: str, names: Sequence[str]) -> str:
    """Return the one of `names` that `name` most likely means; "" if none is likely."""
    best = nearest(name, names, number=1)
    return best[0] if best and _likeness(name.lower(), best[0]) >= SIMILAR else ""


def _likeness(name: str, known: str) -> float:
    """Return 2 for a synonym; for any other name its similarity, and more if one is a word of the other."""
    if name in SYNONYMS.get(known, ()):
        return 2.0
    ratio = difflib.SequenceMatcher(None, name, known).ratio() if len(name) > SHORT or name == known else 0.0
    return ratio + 0.3 * _shared(known, [name])


def _shared(known: str, names: Sequence[str]) -> bool:
    """Return whether a name has a word in common with one of the others."""
    return any(set(known.split("_")) & set(name.split("_")) for name in names)
