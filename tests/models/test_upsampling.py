"""Fused upsampling and argmax: not a pixel differs from torch's own, and the full-size logits are never there."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dlv3p.models import upsampling
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.profiling.process_memory import measurable, peak_kib, resident_kib, restart_peak


def expected_labels(logits, size, align_corners):
    """What is to be reproduced, by torch."""
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(dim=1)


def random_logits(shape, *, channels_last, quantum=0.0, spread=1.0, seed=0):
    """Normal logits, rounded to multiples of `quantum` where that is given, so that many are equal."""
    logits = spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if quantum:
        logits = (logits / quantum).round() * quantum
    return logits.contiguous(memory_format=torch.channels_last) if channels_last else logits


@pytest.fixture(autouse=True)
def one_thread():
    """Torch's threads as the tests found them, and one of them to start with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


sides = st.integers(1, 40)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 3, 4, 5, 8, 16, 19, 21, 37]), sides, sides),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    align_corners=st.booleans(),
    channels_last=st.booleans(),
    quantum=st.sampled_from([0.0, 1.0, 0.25, 2**-7]),
    spread=st.sampled_from([1e-3, 1.0, 1e4]),
    threads=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
@example((1, 19, 40, 40), (160, 160), False, True, 1.0, 1.0, 1, 0)
@example((1, 19, 33, 17), (129, 65), True, False, 1.0, 1.0, 2, 0)
def test_no_pixel_differs_from_interpolate_and_argmax(
    shape, size, align_corners, channels_last, quantum, spread, threads, seed
):
    torch.set_num_threads(threads)
    logits = random_logits(shape, channels_last=channels_last, quantum=quantum, spread=spread, seed=seed)
    labels = upsample_argmax(logits, size, align_corners=align_corners)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), expected_labels(logits, size, align_corners))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(256, 512), (65, 129)])
def test_no_pixel_of_a_cityscapes_image_differs(shape, channels_last, align_corners):
    logits = random_logits((1, 19, *shape), channels_last=channels_last)
    labels = upsample_argmax(logits, (1024, 2048), align_corners=align_corners)
    assert torch.equal(labels.long(), expected_labels(logits, (1024, 2048), align_corners))


@pytest.mark.parametrize("channels_last", [False, True])
def test_classes_that_differ_by_a_rounding_are_told_apart_as_torch_does(channels_last):
    """Every class is the first one plus roundings, so that the order of additions alone decides."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(1, 1, 30, 40, generator=generator)
    logits = first * (1 + 1e-7 * torch.randint(-1, 2, (1, 19, 30, 40), generator=generator))
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    for align_corners in (False, True):
        labels = upsample_argmax(logits, (117, 161), align_corners=align_corners)
        assert torch.equal(labels.long(), expected_labels(logits, (117, 161), align_corners))


def test_the_first_of_equal_classes_wins_and_hopeless_classes_never_do():
    logits = torch.zeros(1, 5, 4, 4)
    logits[:, 3:] = -1e3
    assert torch.equal(upsample_argmax(logits, (16, 16)), torch.zeros(1, 16, 16, dtype=torch.uint8))
    logits[:, 2] = torch.finfo(torch.float32).tiny
    assert torch.equal(upsample_argmax(logits, (16, 16)), torch.full((1, 16, 16), 2, dtype=torch.uint8))


def test_large_opposite_logits_do_not_hide_a_class_that_wins():
    """A class is passed over only where another is certainly better, whatever cancels between its corners."""
    for seed in range(20):
        logits = random_logits((1, 6, 9, 9), channels_last=True, seed=seed)
        logits[:, 1] = 1e6 * logits[:, 1].sign() + logits[:, 1]
        assert torch.equal(upsample_argmax(logits, (36, 36)).long(), expected_labels(logits, (36, 36), False))


@pytest.mark.skipif(not measurable(), reason="only Linux tells a process's peak")
def test_memory_at_cityscapes_size_peaks_below_five_megabytes():
    logits = random_logits((1, 19, 256, 512), channels_last=True)
    upsample_argmax(logits, (1024, 2048))  # compiles and asks torch, which is no memory of a prediction
    if upsampling._arithmetic(logits, (1024, 2048), align_corners=False) is None:
        pytest.skip("this torch upsamples in an order that is not known, and so does the work itself")
    restart_peak()
    before = resident_kib()
    upsample_argmax(logits, (1024, 2048))
    assert (peak_kib() - before) * 1024 < 5e6


def torch_s_labels(logits, size, align_corners):
    """What torch gives where it does the work itself: that of planes, unless the size is a multiple or small."""
    exact = not align_corners and all(long % short == 0 for long, short in zip(size, logits.shape[2:], strict=True))
    planes = logits if exact or sum(size) < upsampling.PROBED_SUM else logits.contiguous()
    return expected_labels(planes, size, align_corners)


SHAPES_AND_SIZES = [((3, 5), (12, 20)), ((40, 8), (160, 32)), ((33, 9), (65, 17)), ((33, 57), (129, 251))]


@pytest.mark.parametrize(("shape", "size"), SHAPES_AND_SIZES)
def test_a_torch_of_unknown_arithmetic_does_the_work_itself(shape, size, monkeypatch):
    monkeypatch.setattr(upsampling, "_probe", lambda *arguments: None)
    for channels_last in (False, True):
        for align_corners in (False, True):
            logits = random_logits((2, 7, *shape), channels_last=channels_last, quantum=0.25)
            labels = upsample_argmax(logits, size, align_corners=align_corners)
            assert labels.dtype == torch.uint8
            assert torch.equal(labels.long(), torch_s_labels(logits, size, align_corners))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"),
    [*SHAPES_AND_SIZES, ((16, 20), (64, 80)), pytest.param((65, 129), (517, 1025), marks=pytest.mark.slow)],
)
def test_no_pixel_of_float64_differs_from_torch_s_own(shape, size, channels_last, align_corners):
    for quantum in (0.0, 0.25):
        logits = random_logits((2, 19, *shape), channels_last=channels_last).double() * 1.1
        logits = (logits / quantum).round() * quantum if quantum else logits
        labels = upsample_argmax(logits, size, align_corners=align_corners)
        assert torch.equal(labels.long(), torch_s_labels(logits, size, align_corners))
        if not quantum:
            assert torch.equal(labels.long(), expected_labels(logits, size, align_corners))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_upsampled_in_single_and_strided_logits_are_torch_s_own_work(dtype):
    logits = random_logits((1, 7, 16, 20), channels_last=True).to(dtype)
    for size, align_corners in (((64, 80), False), ((97, 131), True)):
        labels = upsample_argmax(logits, size, align_corners=align_corners)
        assert torch.equal(labels.long(), expected_labels(logits.float(), size, align_corners))
    part = random_logits((1, 7, 16, 20), channels_last=True)[:, :, ::2, 3:]
    assert torch.equal(upsample_argmax(part, (64, 80)).long(), expected_labels(part, (64, 80), False))


@pytest.mark.skipif(not measurable(), reason="only Linux tells a process's peak")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("dtype", "shape", "megabytes"), [(torch.bfloat16, (128, 256), 10), (torch.float64, (127, 255), 75)]
)
def test_no_type_has_its_logits_at_full_size(dtype, shape, megabytes, align_corners):
    """Which would be 80 MB of bfloat16 and 319 MB of float64; a class of float64 has 17 MB."""
    logits = random_logits((1, 19, *shape), channels_last=True).to(dtype)
    upsample_argmax(logits, (1024, 2048), align_corners=align_corners)
    restart_peak()
    before = resident_kib()
    upsample_argmax(logits, (1024, 2048), align_corners=align_corners)
    assert (peak_kib() - before) * 1024 < megabytes * 1e6


def test_a_fused_position_has_one_rounding():
    before, after, left, right = upsampling.source_positions(5, 20, align_corners=False, fused=True)
    assert before[:4].tolist() == [0, 0, 0, 0]
    assert (before[-1], after[-1]) == (4, 4)
    assert np.allclose(left + right, 1)
    assert right[2:4].tolist() == [0.125, 0.375]
