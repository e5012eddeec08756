"""Faults of mask making, M1 to M13 of the fault table: injected, and met as promised.

Every bad file is listed in one line, the exit status says what kind of fault it was, and good masks stay as they are.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import run_command
from cityscapes.generate_gt import generate_masks, main
from cityscapes.layout import COLOR_SUFFIX, LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame
from cityscapes.masks.polygons import MAX_OBJECTS, MAX_POINTS

COMMAND = Path(__file__).parents[3] / "cityscapes" / "generate_gt.py"
HEIGHT, WIDTH = 24, 48
FRAMES = [Frame("val", "ulm", "000000", f"{i:06}") for i in range(6)]
GOOD = FRAMES[0]
BOX = [[4, 4], [20, 4], [20, 12], [4, 12]]


def thing(polygon: object = BOX, label: object = "car", **members: object) -> dict:
    return {"label": label, "polygon": polygon, **members}


def polygon_file(**members: object) -> bytes:
    return json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": [thing()], **members}).encode()


class Run(NamedTuple):
    """What a run of the command ended with and said."""

    status: int
    errors: list[str]
    warnings: list[str]
    stdout: str


class City:
    """A data set of six frames whose masks are made, and the command that makes them."""

    def __init__(self, folder: Path, command: Callable[..., Run]) -> None:
        self.root, self.output, self._command = folder / "city", folder / "masks", command
        for frame in FRAMES:
            self.inject({frame: polygon_file()})
        assert self.run().status == 0

    def run(self, *options: str) -> Run:
        return self._command("--root", self.root, "--output", self.output, "--splits", "val", *options)

    def inject(self, faults: dict[Frame, bytes]) -> None:
        for frame, content in faults.items():
            path = frame.annotation(self.root, POLYGONS_SUFFIX)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def masks(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(self.output.rglob("*.png*"))}

    def mask(self, frame: Frame, suffix: str = LABEL_IDS_SUFFIX) -> np.ndarray:
        return np.array(Image.open(frame.generated(self.output, suffix)))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Run]:
    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["generate_gt.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        stdout, stderr = capsys.readouterr()
        lines = stderr.splitlines()
        errors, warnings = ([x for x in lines if x.startswith(kind)] for kind in ("error: ", "warning: "))
        assert len(errors) + len(warnings) == len(lines), stderr
        return Run(end.value.code, errors, warnings, stdout)

    return run


@pytest.fixture
def city(tmp_path: Path, command: Callable[..., Run]) -> City:
    return City(tmp_path, command)


def refused(city: City, *faults: tuple[bytes, str]) -> None:
    """Inject a fault into a frame each: all are listed with their place, and no mask changes but a missing one."""
    before = city.masks()
    missing = GOOD.generated(city.output, TRAIN_IDS_SUFFIX)
    for start in range(0, len(faults), len(FRAMES) - 1):
        some = dict(zip(FRAMES[1:], faults[start:], strict=False))  # the rest comes with the next five
        city.inject({frame: polygon_file() for frame in FRAMES})
        city.inject({frame: content for frame, (content, _) in some.items()})
        missing.unlink()
        for options in ((), ("--force",)):
            run = city.run(*options)
            assert run.status == 3
            assert len(run.errors) == len(some), run.errors
            for line, (frame, (_, place)) in zip(run.errors, some.items(), strict=True):
                assert f"{frame.annotation(city.root, POLYGONS_SUFFIX)}: " in line
                assert place in line
                assert line.isprintable()
            assert city.masks() == before


def accepted(city: City, content: bytes) -> Run:
    """Give one frame this content and make its masks anew, which succeeds."""
    city.inject({frame: polygon_file() for frame in FRAMES} | {GOOD: content})
    run = city.run("--force")
    assert (run.status, run.errors) == (0, [])
    return run


def test_m1_files_that_are_not_json_are_listed_with_the_place(city):
    whole = polygon_file()
    refused(
        city,
        (b"", "line 1, column 1"),
        (whole[: len(whole) // 2], "line 1, column "),
        (b"<html>\n<body>404 Not Found</body></html>", "line 1, column 1"),
        (whole.decode().encode("utf-16"), "byte 0"),
        (whole[:-1], "line 1, column "),
        (b"\0" * 100, "line 1, column 1"),
    )


def test_m1_more_bad_files_than_a_terminal_holds_are_counted(city):
    city.inject({Frame("val", "ulm", "000001", f"{i:06}"): b"" for i in range(60)})
    run = city.run()
    assert run.status == 3
    assert len(run.errors) == 51
    assert "and 10 more" in run.errors[-1]
    assert "frames failed                 60" in run.stdout


def test_m2_a_byte_order_mark_is_accepted(city):
    before = city.mask(GOOD)
    accepted(city, b"\xef\xbb\xbf" + polygon_file())
    np.testing.assert_array_equal(city.mask(GOOD), before)


def test_m3_missing_members_and_wrong_types_are_named_by_their_pointer(city):
    without = {key: polygon_file().replace(f'"{key}"'.encode(), b'"x"') for key in ("imgHeight", "imgWidth", "objects")}
    refused(
        city,
        *((content, f"/{key}: is missing") for key, content in without.items()),
        (polygon_file(objects={}), "/objects: expected a list"),
        (polygon_file(objects=[thing(), thing(), thing(), {"label": "car"}]), "/objects/3/polygon: is missing"),
        (polygon_file(objects=[{"polygon": BOX}]), "/objects/0/label: is missing"),
        (polygon_file(objects=[thing(), 7]), "/objects/1: expected an object"),
        (polygon_file(objects=[thing("all")]), "/objects/0/polygon: expected a list"),
        (polygon_file(objects=[thing([[1, 2], [3]])]), "/objects/0/polygon/1: expected a point"),
        (b"[]", "expected an object with imgHeight"),
    )


def test_m4_impossible_sizes_are_refused_with_the_limits(city):
    expected = "/imgWidth: expected a whole number of pixels from 1 to 16384"
    sides = (0, -1, 64.5, True, "64", 16385, 10**9, 2**40)
    refused(
        city,
        *((polygon_file(imgWidth=side), expected) for side in sides),
        (polygon_file(imgHeight=2**40), "/imgHeight: expected a whole number of pixels from 1 to 16384"),
        (polygon_file(imgHeight=16384, imgWidth=16384), "more than 64 million pixels"),
    )


def test_m5_numbers_that_are_not_finite_or_beyond_all_images_are_refused(city):
    refused(
        city,
        *((polygon_file().replace(b"[20, 12]", f"[20, {x}]".encode()), x) for x in ("NaN", "Infinity", "-Infinity")),
        *((polygon_file().replace(b"[20, 12]", f"[20, {x}]".encode()), "/0/polygon/2") for x in ("1e308", "-1000001")),
    )


def test_m6_what_lies_outside_is_cut_off_at_the_edge(city):
    accepted(city, polygon_file(objects=[thing([[-5, -9], [WIDTH + 9, -9], [WIDTH + 9, 5], [-5, 5]])]))
    assert (city.mask(GOOD)[:5] == 26).all()
    assert (city.mask(GOOD)[5:] == 0).all()


def test_m7_polygons_of_less_than_two_points_are_skipped_with_a_warning_and_two_are_a_line(city):
    run = accepted(city, polygon_file(objects=[thing([]), thing([[3, 3]]), thing([[9, 2], [9, 7]], "road")]))
    assert len(run.warnings) == 2
    for place, points, line in zip(("/objects/0/", "/objects/1/"), (0, 1), run.warnings, strict=True):
        assert f"{GOOD.annotation(city.root, POLYGONS_SUFFIX)}: {place}polygon: skipped" in line
        assert f"of {points} point" in line
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[2:7, 9] = 7
    np.testing.assert_array_equal(city.mask(GOOD), drawn)


def test_m8_endless_files_are_refused_with_the_limits(city):
    refused(
        city,
        (polygon_file(objects=[thing([[0, 0]] * 10**6)]), f"at most {MAX_POINTS}"),
        (polygon_file(objects=[thing([[12345, 67890]] * 10**6)]), "larger than 8 MB"),
        (polygon_file(objects=[{}] * 10**5), f"at most {MAX_OBJECTS}"),
        (b"[" * 200_000, ""),
        (polygon_file().replace(b"24", b"9" * 5000), ""),
        (polygon_file(objects=[thing([[0, 0], [9, 8000]] * 9000)], imgHeight=8000), "image rows in total"),
    )


def test_m9_unknown_labels_are_listed_with_their_counts_and_keys_stand_once(city):
    many = [thing(label=label) for label in ("xgroup", "group", "carr", "carr", "cargroup", "")]
    refused(
        city,
        (polygon_file(objects=many), "'carr' x 2, 'xgroup' x 1, 'group' x 1, '' x 1"),
        (polygon_file(objects=[thing(label=26)]), "/objects/0/label: expected a string"),
        (polygon_file().replace(b'"label"', b'"label": "road", "label"'), "duplicate key 'label'"),
    )
    accepted(city, polygon_file(objects=[thing(label="cargroup"), thing([[30, 4], [40, 4], [40, 20]], "polegroup")]))
    assert set(np.unique(city.mask(GOOD))) == {0, 18, 26}


def test_m10_deleted_objects_and_license_plates_are_not_drawn(city):
    before = city.mask(GOOD)
    whole = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    others = [thing(whole, "road", deleted=1), thing(whole, "nothing", deleted=1), thing(whole, "license plate")]
    accepted(city, polygon_file(objects=[thing(), *others]))
    np.testing.assert_array_equal(city.mask(GOOD), before)
    assert set(np.unique(before)) == {0, 26}


@pytest.mark.parametrize("kills", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_m11_a_run_killed_again_and_again_ends_as_if_it_never_was(tmp_path, kills):
    frames = [Frame("val", "ulm", "000000", f"{i:06}") for i in range(60)]
    for i, frame in enumerate(frames):
        path = frame.annotation(tmp_path, POLYGONS_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(polygon_file(objects=[thing([[i, 0], [900, i], [400, 390]])], imgHeight=400, imgWidth=1000))

    def tree(name: str) -> dict[str, bytes]:
        paths = (tmp_path / name).rglob("*_gtFine_*")
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in paths}

    generate_masks(tmp_path, tmp_path / "clean", splits=["val"])
    clean = tree("clean")
    assert len(clean) == 180
    arguments = [sys.executable, COMMAND, "--root", tmp_path, "--output", tmp_path / "out", "--splits", "val"]
    seed = random.randrange(10**6)
    moments, left = random.Random(seed), []
    for _ in range(kills):
        wanted = len(list((tmp_path / "out").rglob("*.png"))) + moments.randrange(1, 40)
        with subprocess.Popen(
            [*arguments, "--workers", str(moments.randint(1, 3))], stdout=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 300
            while len(list((tmp_path / "out").rglob("*.png"))) < wanted and time.monotonic() < deadline:
                pass
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, f"seed {seed}: too late to kill it"
        left.append({name: content for name, content in tree("out").items() if not name.endswith(".tmp")})
        assert left[-1].items() <= clean.items(), f"seed {seed}: half a file under its final name"
    assert [len(files) for files in left] == sorted({len(files) for files in left}), f"seed {seed}: finished masks lost"
    report = generate_masks(tmp_path, tmp_path / "out", splits=["val"])
    assert (report.written + report.up_to_date, report.failed) == (60, ())
    assert report.up_to_date >= len(left[-1]) // 3 - 3, f"seed {seed}: finished masks were made again"
    assert tree("out") == clean, f"seed {seed}"


@pytest.mark.parametrize("suffix", [LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, COLOR_SUFFIX])
def test_m12_a_mask_that_differs_from_its_polygons_is_kept_until_forced(city, suffix):
    before = city.masks()
    changed = [frame.generated(city.output, suffix) for frame in FRAMES[2:4]]
    for path in changed:
        pixels = np.array(Image.open(path))
        pixels[0, 0] = 33
        Image.fromarray(pixels).save(path)
    damaged = city.masks()
    run = city.run()
    assert run.status == 3
    assert len(run.errors) == 2
    for path, line in zip(changed, run.errors, strict=True):
        assert str(path) in line
        assert "--force" in line
    assert city.masks() == damaged
    assert city.run("--force").status == 0
    assert city.masks() == before


def test_m12_masks_of_polygons_that_changed_are_kept_until_forced(city):
    before = city.masks()
    city.inject({GOOD: polygon_file(objects=[thing(label="bus")])})
    run = city.run()
    assert (run.status, len(run.errors)) == (3, 1)
    assert GOOD.name in run.errors[0]
    assert city.masks() == before
    assert city.run("--force").status == 0
    assert 28 in city.mask(GOOD)


def test_m13_a_folder_that_another_process_writes_to_is_refused_and_names_it(city):
    before = city.masks()
    code = (
        "import sys; from cityscapes.files.locks import lock_folder\n"
        "with lock_folder(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(city.output)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        run = city.run("--force")
        assert (run.status, len(run.errors)) == (7, 1)
        for expected in (str(city.output), f"process {holder.pid} on {os.uname().nodename} since 20"):
            assert expected in run.errors[0]
        assert city.masks() == before
        holder.kill()
    assert city.run("--force").status == 0
