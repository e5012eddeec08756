"""The order of samples and every sample are functions of (seed, epoch, index); folders are found and masks are made."""

import pytest
import torch

from cityscapes.errors import InputError, MissingInputError, ParameterError
from cityscapes.layout import LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX
from cityscapes.workspace import demo_city_folder, generated_masks_folder
from dlv3p.data.augment import Augmentation
from dlv3p.data.loader import TrainingSamples, WholeImages, training_loader, validation_loader
from dlv3p.data.roots import open_for_viewing, open_images, open_split, resolve_data_root
from dlv3p.data.sampling import EpochSampler, epoch_order

CROP = Augmentation(32, 48, color_jitter=0.3)


def batches(split, *, workers, epoch=1, seed=0):
    loader = training_loader(TrainingSamples(split, CROP, seed=seed), batch_size=2, workers=workers)
    loader.sampler.epoch = epoch
    return list(loader)


def same(one, other):
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


def test_workers_and_the_global_random_state_change_no_byte(city, workspace):
    split = open_split(city, "train")
    torch.manual_seed(1)
    alone = batches(split, workers=0)
    torch.manual_seed(2)
    assert same(alone, batches(split, workers=2))


def test_epochs_and_seeds_give_other_samples(city, workspace):
    split = open_split(city, "train")
    first = batches(split, workers=0)
    assert not same(first, batches(split, workers=0, epoch=2))
    assert not same(first, batches(split, workers=0, seed=1))


def test_loading_draws_nothing_from_the_global_random_state(city, workspace):
    split = open_split(city, "train")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    batches(split, workers=0)
    assert torch.equal(torch.rand(1), expected)


def test_an_epoch_visits_every_sample_once_and_each_epoch_in_another_order():
    orders = [tuple(epoch_order(0, epoch, 50)) for epoch in range(4)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(orders)) == 4


def test_only_whole_batches_are_trained_on():
    sampler = EpochSampler(10, 4, seed=0)
    assert len(list(sampler)) == len(sampler) == 8


def test_a_split_smaller_than_a_batch_gives_one_batch(city, workspace):
    loader = training_loader(TrainingSamples(open_split(city, "train"), CROP, seed=0), batch_size=64, workers=0)
    assert [image.shape[0] for image, _ in loader] == [6]


def test_validation_visits_every_image_whole_and_in_order(city, workspace):
    split = open_split(city, "val")
    loaded = list(validation_loader(WholeImages(split, image_scale=0.5), workers=0))
    assert [tuple(mask.shape) for _, mask in loaded] == [(1, 64, 128)] * 3
    assert [tuple(image.shape) for image, _ in loaded] == [(1, 3, 32, 64)] * 3
    assert all(
        torch.equal(mask[0], torch.from_numpy(split.mask(i).astype("int64"))) for i, (_, mask) in enumerate(loaded)
    )


def test_opening_a_split_makes_its_masks_and_images_alone_need_none(city, workspace):
    assert not open_images(city, "val").has_mask(0)
    split = open_split(city, "val")
    assert split.mask(0).shape == (64, 128)
    frame = split.frames[0]
    assert frame.generated(generated_masks_folder(), TRAIN_IDS_SUFFIX).is_file()


def test_a_split_without_polygons_takes_the_masks_that_came_with_it(city, workspace, tmp_path_factory):
    root = tmp_path_factory.mktemp("bare")
    made = open_split(city, "val")
    for frame in made.frames:
        for source, target in (
            (frame.image(city), frame.image(root)),
            (frame.generated(made.generated, LABEL_IDS_SUFFIX), frame.annotation(root, LABEL_IDS_SUFFIX)),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    expected = made.mask(1)
    for path in generated_masks_folder().rglob("*.png"):
        path.unlink()
    assert (open_split(root, "val").mask(1) == expected).all()


def test_broken_polygons_stop_a_run_with_the_command_that_lists_them(city, workspace, tmp_path_factory):
    root = tmp_path_factory.mktemp("broken")
    frame = open_images(city, "val").frames[0]
    for path in (frame.image(root), frame.annotation(root, POLYGONS_SUFFIX)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{")
    with pytest.raises(InputError, match=r"python cityscapes/generate_gt\.py --root .* --splits val"):
        open_split(root, "val")


def test_a_data_root_is_found_from_the_workspace_and_through_variables(workspace, monkeypatch, tmp_path_factory):
    (workspace / "data" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert resolve_data_root("data/mine") == (workspace / "data" / "mine").resolve()
    monkeypatch.setenv("CITYSCAPES_DATASET", str(workspace / "data" / "mine"))
    assert resolve_data_root("$CITYSCAPES_DATASET") == (workspace / "data" / "mine").resolve()


def test_a_data_root_that_does_not_exist_is_refused_with_what_is_allowed(workspace):
    with pytest.raises(MissingInputError, match=r"data_root='nowhere'.*'demo_city'"):
        resolve_data_root("nowhere")


@pytest.mark.parametrize("open_one", [open_split, open_images, open_for_viewing])
@pytest.mark.parametrize("split", ["", "../val", "val/../../x", "/val", ".git"])
def test_a_split_is_a_folder_of_the_data_set(city, workspace, open_one, split):
    with pytest.raises(ParameterError, match="split="):
        open_one(city, split)


def test_the_demo_city_is_drawn_on_first_use(workspace, monkeypatch):
    drawn = []
    monkeypatch.setattr("cityscapes.demo.city.write_demo_city", lambda root: drawn.append(root) or root)
    assert resolve_data_root("demo_city") == demo_city_folder()
    assert drawn == [demo_city_folder()]
