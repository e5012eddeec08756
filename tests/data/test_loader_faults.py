"""Bad files, dead and hanging workers while training: one line with a remedy, and nothing good is lost."""

import os
import shutil
import signal
from dataclasses import replace
from multiprocessing import resource_sharer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import tiny

from cityscapes.dataset import open_cityscapes
from cityscapes.errors import InputError, MachineError
from cityscapes.workspace import generated_masks_folder
from dlv3p.data.augment import Augmentation
from dlv3p.data.batches import MOST_REPLACEMENTS, explain_worker_errors
from dlv3p.data.loader import TrainingSamples, WholeImages, make_samples, training_loader, validation_loader
from dlv3p.data.roots import open_split
from dlv3p.data.sampling import epoch_order
from dlv3p.pictures.gallery import crops_picture
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.training import checkpoints
from dlv3p.training.losses import make_loss
from dlv3p.training.optimizers import class_weights
from dlv3p.weights.checkpoint import load_checkpoint

CROP = Augmentation(33, 33, scale_low=1.0, scale_high=1.0)


@pytest.fixture
def split(city, workspace):
    """A copy of the training split that may be damaged."""
    open_split(city, "train")
    root = workspace / "city"
    shutil.copytree(city, root)
    return open_cityscapes(root, "train", generated=generated_masks_folder())


def load(split, *, workers, **options):
    loader = training_loader(TrainingSamples(split, CROP, seed=0), batch_size=2, workers=workers, **options)
    loader.sampler.epoch = 1
    return [tensor for batch in loader for tensor in batch]


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def as_jpeg(split, index):
    path = split.image_path(index)
    Image.open(path).save(path, "JPEG", quality=95)
    return path


@pytest.mark.parametrize(("share", "workers"), [(0.3, 0), (0.6, 1), (0.99, 0)])
def test_t1_a_truncated_png_is_named_in_one_line_from_the_worker(split, workers, share):
    cut(split.image_path(4), share)
    with pytest.raises(InputError) as caught:
        load(split, workers=workers)
    assert str(caught.value).startswith(f"{split.image_path(4)}: cannot be read as an image")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_t1_a_truncated_jpeg_is_named_too(split, share):
    cut(as_jpeg(split, 4), share)
    with pytest.raises(InputError, match=f"{split.image_path(4).name}: cannot be read"):
        load(split, workers=0)


def test_t1_a_truncated_mask_is_named_too(split):
    cut(split.mask_path(2), 0.6)
    with pytest.raises(InputError, match=f"{split.mask_path(2).name}: cannot be read"):
        load(split, workers=0)


def test_t1_a_run_stops_at_a_bad_file_and_resumes_when_it_is_fixed(city, workspace, monkeypatch):
    root = workspace / "city"
    shutil.copytree(city, root)
    path = next(iter(sorted((root / "leftImg8bit" / "train").rglob("*.png"))))
    whole, save = path.read_bytes(), checkpoints.save_checkpoint

    def cuts_a_file(target, content):
        save(target, content)
        cut(path, 0.5)

    monkeypatch.setattr(checkpoints, "save_checkpoint", cuts_a_file)
    parameters = tiny(root, run="bad", workers=1, class_weights="none", checkpoint_minutes=10.0)
    with pytest.raises(InputError, match=path.name):
        train(parameters)
    assert load_checkpoint(checkpoint_path("bad", "last"))["epoch"] == 1
    path.write_bytes(whole)
    monkeypatch.setattr(checkpoints, "save_checkpoint", save)
    assert len(train(parameters).history) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_t1_skip_warns_once_and_takes_the_same_replacement_every_time(split, capsys, workers):
    whole = load(split, workers=0)
    cut(split.image_path(4), 0.5)
    skipped = load(split, workers=workers, skip_bad=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {split.image_path(4)}: cannot be read")
    assert all(torch.equal(a, b) for a, b in zip(skipped, load(split, workers=0, skip_bad=True), strict=True))
    crops, before = torch.cat(skipped[::2]), torch.cat(whole[::2])
    differing = [i for i in range(6) if not torch.equal(crops[i], before[i])]
    assert len(differing) == 1
    replacement = TrainingSamples(split, CROP, seed=0)[1, 5][0]
    assert torch.equal(crops[differing[0]], replacement)


def test_t1_skip_does_not_hide_that_everything_is_bad(split):
    for index in range(len(split)):
        cut(split.image_path(index), 0.5)
    with pytest.raises(InputError, match=f"{MOST_REPLACEMENTS} more bad samples in a row"):
        load(split, workers=0, skip_bad=True)


def in_worker(split, monkeypatch, act):
    """Let a worker, and no other process, do something when it reads the mask of sample 3."""
    parent, mask = os.getpid(), split.mask

    def acting(index):
        if index == 3 and os.getpid() != parent:
            act()
        return mask(index)

    monkeypatch.setattr(split, "mask", acting)


def test_t2_a_killed_worker_is_an_error_of_the_machine_with_a_remedy(split, monkeypatch):
    in_worker(split, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    message = r"a loader worker died \(signal 9\), .* /dev/shm; .* fewer workers.* The next images to be read were "
    with pytest.raises(MachineError, match=message) as caught:
        load(split, workers=2)
    named = str(caught.value).rpartition("were ")[2].split(", ")
    order = epoch_order(0, 1, len(split)).tolist()
    batches = [[split.name(index) for index in order[first : first + 2]] for first in range(0, len(order), 2)]
    assert named in batches
    assert batches.index(named) <= order.index(3) // 2
    assert caught.value.exit_status == 4
    assert "\n" not in str(caught.value)


def test_t2_the_next_to_be_read_are_named_as_they_are_shown(split):
    order = epoch_order(0, 1, len(split)).tolist()
    loader = training_loader(TrainingSamples(split, CROP, seed=0), batch_size=2, workers=0)
    loader.sampler.epoch = 1
    whole = validation_loader(WholeImages(split, image_scale=1.0), workers=0)
    lifted = TrainingSamples(split, CROP, seed=0, class_uniform=SimpleNamespace(choose=lambda *_: (5, (0, 0))))
    for batches, expected in (
        (loader, [split.name(index) for index in order[2:4]]),
        (whole, [split.name(1)]),
        (training_loader(lifted, batch_size=2, workers=0), [split.name(5)] * 2),
    ):
        next(iter(batches))
        assert batches.next_names() == expected
    assert len(list(whole)) == len(split)
    assert whole.next_names() == []


def test_t2_a_worker_that_exits_is_reported(split, monkeypatch):
    in_worker(split, monkeypatch, lambda: os._exit(1))
    with pytest.raises(MachineError, match="a loader worker died"):
        load(split, workers=1)


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError])
def test_t2_a_worker_that_exits_while_it_sends_a_batch_is_reported(split, monkeypatch, error):
    def gone(descriptor):
        raise error

    monkeypatch.setattr(resource_sharer.DupFd, "detach", gone)
    with pytest.raises(MachineError, match="a loader worker died"):
        load(split, workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_t2_an_error_of_another_connection_is_not_a_workers(split, monkeypatch, workers):
    def gone(index):
        raise ConnectionResetError("some server")

    monkeypatch.setattr(split, "mask", gone)
    with pytest.raises(ConnectionResetError, match="some server"):
        load(split, workers=workers)


def test_t2_a_worker_that_dies_during_a_step_is_reported(split):
    loader = training_loader(TrainingSamples(split, CROP, seed=0), batch_size=2, workers=1)
    batches = iter(loader)
    next(batches)

    def step():
        os.kill(loader.loader._iterator._workers[0].pid, signal.SIGKILL)
        signal.pause()  # until the signal that a child has died

    with pytest.raises(MachineError, match=r"a loader worker died \(signal 9\)"), explain_worker_errors():
        step()


def test_t2_other_errors_of_a_step_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), explain_worker_errors():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_t3_a_worker_that_hangs_is_an_error_after_the_timeout(split, monkeypatch):
    in_worker(split, monkeypatch, signal.pause)
    with pytest.raises(MachineError, match=r"returned nothing for 1 s; .* loader_timeout") as caught:
        load(split, workers=1, timeout=1)
    assert caught.value.exit_status == 4


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_l9_a_mask_without_any_label_contributes_nothing(split, monkeypatch, name):
    monkeypatch.setattr(split, "mask", lambda index: np.full((64, 128), 255, np.uint8))
    image, mask = load(split, workers=0)[:2]
    assert (mask == 255).all()
    logits = torch.randn(2, 19, *mask.shape[1:], generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = make_loss(name, None)
    value = loss(logits, mask)
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()
    half = mask.clone()
    half[0] = 7
    assert loss(logits, half).item() == pytest.approx(loss(logits[:1], half[:1]).item(), rel=1e-5)
    assert image.isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"class_uniform": 1.0}, {"decoded_cache": True}], ids=str)
def test_t1_a_whole_run_that_skips_passes_over_bad_images_and_masks(split, workspace, capsys, changes):
    cut(split.image_path(0), 0.5)
    cut(split.mask_path(1), 0.5)
    parameters = tiny(split.root, run="skips", epochs=1, on_bad_sample="skip", **changes)
    assert crops_picture(parameters, split)
    assert class_weights(split, skip_bad=True).isfinite().all()
    loader = training_loader(make_samples(parameters, split), batch_size=2, workers=0, skip_bad=True)
    assert len(list(loader)) == len(split) // 2
    with pytest.raises(InputError, match=split.image_path(0).name):
        crops_picture(replace(parameters, on_bad_sample="stop", class_uniform=0.0), split)
    with pytest.raises(InputError, match=split.mask_path(1).name):
        class_weights(split)
