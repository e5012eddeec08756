"""Hostile polygon files: each is drawn within the label table or refused in one line, in 2 seconds and 300 MB.

A child process reads, draws and encodes everything, so that a file that hurts, hurts nobody else. Its memory is capped
by the operating system, and time is counted as work of the processor, for a busy machine is nobody's fault.

    python tests/cityscapes/masks/test_polygon_fuzz.py 1234    shows generated file 1234 and what becomes of it
"""

import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from copy import deepcopy
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityscapes.errors import UserError
from cityscapes.labels import CITYSCAPES, LABEL_BY_ID
from cityscapes.layout import Frame
from cityscapes.masks.polygons import MAX_FILE_BYTES, MAX_OBJECTS, MAX_POINTS, parse_polygons

MANY = 10_000
GENERATED = [1_000, pytest.param(MANY, marks=pytest.mark.slow)]
THROUGH_FILES = 20
"""Every so many generated ones also go through a file and `make_masks`."""
SECONDS, BYTES = 2.0, 300_000_000
"""The limits that are promised for a polygon file, whatever it holds."""

SQUARE = [[1, 1], [9, 1], [9, 7], [1, 7]]
PLACE = re.compile(r"/\w*|\bline \d+|\bbyte \d+|\bkey '|labels that|nested|larger than|NaN|Infinity|digits")
"""How a refusal says where: a JSON pointer, a line, a byte, or a word that can be searched for."""


def document(objects: object = (), **members: object) -> bytes:
    return json.dumps({"imgHeight": 32, "imgWidth": 64, "objects": objects, **members}).encode()


def thing(polygon: object = SQUARE, label: object = "car", **members: object) -> dict[str, object]:
    return {"label": label, "polygon": polygon, **members}


def box(width: int, height: int) -> list[list[int]]:
    return [[0, 0], [width, 0], [width, height], [0, height]]


def zigzag(points: int, height: int, *, stride: int = 1) -> list[list[int]]:
    return [[i * stride % 2048, height * (i % 2)] for i in range(points)]


def cut(share: float) -> bytes:
    content = document([thing(), thing(label="road")])
    return content[: int(share * len(content))]


def with_text(old: str, new: str, content: bytes = b"") -> bytes:
    content = content or document([thing()])
    assert old.encode() in content
    return content.replace(old.encode(), new.encode("utf-8", "surrogatepass"), 1)


ACCEPTED: dict[str, bytes] = {
    "no objects": document(),
    "byte order mark": b"\xef\xbb\xbf" + document([thing()]),
    "blanks around": b"\n\t " + document([thing()]) + b" \r\n",
    "members nobody knows": document([thing(id=7, draw=True, user="x", date=None)], comment={"deep": [[[{}]]]}),
    "escaped label": with_text('"car"', r'"\u0063ar"'),
    "lone surrogate in a member nobody knows": with_text('"imgHeight"', r'"comment": "\ud800", "imgHeight"'),
    "long member nobody knows": document([thing()], comment="x" * (MAX_FILE_BYTES - 1000)),
    "polygon without points": document([thing([])]),
    "polygon of one point": document([thing([[3, 3]])]),
    "polygon of two points": document([thing([[3, 3], [40, 20]])]),
    "polygon of one point twice": document([thing([[3, 3], [3, 3]])]),
    "horizontal line": document([thing([[3, 3], [20, 3], [50, 3]])]),
    "vertical line": document([thing([[3, -9], [3, 90]])]),
    "crossing itself": document([thing([[0, 0], [60, 30], [60, 0], [0, 30]])]),
    "closed twice": document([thing([*SQUARE, SQUARE[0], SQUARE[0]])]),
    "star of hundreds": document([thing([[i * 29 % 64, i * 17 % 32] for i in range(900)])]),
    "slightly outside": document([thing([[-3, -3], [70, -3], [70, 40], [-3, 40]])]),
    "far outside": document([thing([[-(10**6), -(10**6)], [10**6, -(10**6)], [10**6, 10**6]])]),
    "wholly outside": document([thing([[100, 100], [900, 100], [500, 900]])]),
    "fractions": document([thing([[0.9, -0.9], [50.5, 1e1], [-0.0, 31.999]])]),
    "deleted, and called something else": document([thing(label="gone", deleted=1), thing(deleted=False)]),
    "group of a known class": document([thing(label="cargroup"), thing(label="polegroup")]),
    "not drawn": document([thing(label="license plate"), thing(label="license plategroup")]),
    "one pixel": document([thing()], imgHeight=1, imgWidth=1),
    "one row": document([thing(box(16384, 1))], imgHeight=1, imgWidth=16384),
    "one column": document([thing(box(1, 16384))], imgHeight=16384, imgWidth=1),
    "largest frame": document([thing(box(16000, 4000))], imgHeight=4096, imgWidth=16384),
    "most objects": document([thing()] * MAX_OBJECTS),
    "most objects in many rows": document([thing()] * MAX_OBJECTS, imgHeight=16384),
    "most points": document([thing([[i % 64, i % 32] for i in range(MAX_POINTS)])]),
    "most crossings": document([thing(zigzag(4090, 1024))], imgHeight=1024, imgWidth=2048),
    "most crossings, unsorted": document([thing(zigzag(4090, 1024, stride=1931))], imgHeight=1024, imgWidth=2048),
    "most paint": document([thing(box(2048, 1024))] * 2000, imgHeight=1024, imgWidth=2048),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "blank": (b" \n ", "not valid JSON"),
    **{f"cut at {share:.0%}": (cut(share), "not valid JSON") for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)},
    "HTML": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "not valid JSON at line 1"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8 at byte 0"),
    "UTF-16": (document([thing()]).decode().encode("utf-16"), "not UTF-8 at byte 0"),
    "UTF-16 without a mark": (document([thing()]).decode().encode("utf-16-le"), "not valid JSON"),
    "Latin-1": (with_text('"car"', '"f\udce4hre"').replace(b"\xed\xb3\xa4", b"\xe4"), "not UTF-8 at byte"),
    "a surrogate as bytes": (with_text('"car"', '"\ud800"'), "not UTF-8 at byte"),
    "zeros": (b"\0" * 4096, "not valid JSON"),
    "zero bytes behind": (document() + b"\0\0", "not valid JSON"),
    "two documents": (document() + document(), "not valid JSON"),
    "comma behind the last": (with_text("[[1, 1]", "[[1, 1],,"), "not valid JSON"),
    "single quotes": (document().replace(b'"', b"'"), "not valid JSON"),
    "a list": (b"[]", "found a list"),
    "null": (b"null", "found null"),
    "a number": (b"7", "found the number 7"),
    "a string": (b'"imgHeight imgWidth objects"', "found a string"),
    "NaN": (with_text("[9, 7]", "[NaN, 7]"), ""),
    "Infinity": (with_text("[9, 7]", "[9, Infinity]"), ""),
    "minus Infinity": (with_text("[9, 7]", "[9, -Infinity]"), ""),
    "NaN where nobody looks": (with_text('"imgHeight"', '"x": NaN, "imgHeight"'), ""),
    "1e308": (with_text("[9, 7]", "[9, 1e308]"), "/objects/0/polygon/2"),
    "1e999": (with_text("[9, 7]", "[9, 1e999]"), ""),
    "coordinate beyond a million": (document([thing(), thing([[0, 0], [10**6 + 1, 0]])]), "/objects/1/polygon/1"),
    "coordinate of 400 digits": (document([thing([[0, 0], [10**400, 0]])]), ""),
    "5000 digits as a side": (with_text("64", "9" * 5000), ""),
    "5000 digits as a coordinate": (with_text("[9, 7]", f"[9, {'7' * 5000}]"), ""),
    "5000 digits where nobody looks": (with_text('"imgHeight"', f'"x": {"7" * 5000}, "imgHeight"'), ""),
    **{
        f"{key} is {name}": (document([thing()], **{key: value}), f"/{key}")
        for key in ("imgHeight", "imgWidth")
        for name, value in {
            "zero": 0, "negative": -64, "a fraction": 64.5, "a whole fraction": 64.0, "true": True, "a string": "64",
            "null": None, "a list": [64], "16385": 16385, "1e9": 10**9, "2**40": 2**40, "2**63": 2**63,
        }.items()
    },
    "too many pixels": (document(imgHeight=16384, imgWidth=16384), "million pixels"),
    **{
        f"without {key}": (with_text(f'"{key}"', '"x"'), f"/{key}: is missing")
        for key in ("imgHeight", "imgWidth", "objects")
    },
    "objects are an object": (document({"0": thing()}), "/objects: expected a list"),
    "objects are a string": (document("car"), "/objects: expected a list"),
    "an object is a list": (document([thing(), []]), "/objects/1: expected an object"),
    "an object is null": (document([None]), "/objects/0: expected an object"),
    "label is missing": (document([{"polygon": SQUARE}]), "/objects/0/label: is missing"),
    "label is a number": (document([thing(label=26)]), "/objects/0/label: expected a string"),
    "label is a list": (document([thing(label=["car"])]), "/objects/0/label: expected a string"),
    "polygon is missing": (document([thing(), {"label": "car"}]), "/objects/1/polygon: is missing"),
    "polygon is a number": (document([thing(7)]), "/objects/0/polygon: expected a list"),
    "polygon is an object": (document([thing({"0": [1, 2]})]), "/objects/0/polygon: expected a list"),
    "point is a number": (document([thing([[1, 2], 3])]), "/objects/0/polygon/1"),
    "point is a string of two": (document([thing(["ab", "cd"])]), "/objects/0/polygon/0"),
    "point is an object of two": (document([thing([{"x": 1, "y": 2}])]), "/objects/0/polygon/0"),
    "point of three": (document([thing([[1, 2, 3]])]), "/objects/0/polygon/0"),
    "point of none": (document([thing([[1, 2], []])]), "/objects/0/polygon/1"),
    "points one level too deep": (document([thing([SQUARE])]), "/objects/0/polygon/0"),
    "coordinates are strings": (document([thing([["1", "2"], ["3", "4"]])]), "/objects/0/polygon/0"),
    "coordinates are booleans": (document([thing([[True, False]])]), "/objects/0/polygon/0"),
    "coordinates are null": (document([thing([[1, 2], [None, None]])]), "/objects/0/polygon/1"),
    "deleted is a string": (document([thing(deleted="yes")]), "/objects/0/deleted"),
    "deleted is two": (document([thing(deleted=2)]), "/objects/0/deleted"),
    "a key twice": (with_text('"imgWidth": 64', '"imgWidth": 64, "imgWidth": 65'), "duplicate key 'imgWidth'"),
    "a key twice in an object": (with_text('"label"', '"label": "road", "label"'), "duplicate key 'label'"),
    "unknown label": (document([thing(label="carr"), thing(label="carr")]), "'carr' x 2"),
    "the label group": (document([thing(label="group")]), "'group' x 1"),
    "an unknown group": (document([thing(label="xgroup")]), "'xgroup' x 1"),
    "an empty label": (document([thing(label="")]), "'' x 1"),
    "a label with a null byte": (document([thing(label="car\0")]), r"'car\x00' x 1"),
    "a label of a lone surrogate": (with_text('"car"', r'"\ud800"'), ""),
    "a label of many lines": (document([thing(label="car\nerror: all is well\x1b[2J")]), r"car\nerror"),
    "a label of a million letters": (document([thing(label="x" * 10**6)]), "'xxx"),
    "ten thousand unknown labels": (document([thing(label=f"a{i}") for i in range(9999)]), "and 9979 more"),
    "a million points": (document([thing([[1234, 567]] * 10**6)]), "larger than 8 MB"),
    "a million points, written tightly": (with_text("[[1, 1]", "[" + "[1,1]," * 10**6 + "[1, 1]"), f"{MAX_POINTS}"),
    "a hundred thousand objects": (document([thing([], label="")] * 10**5), f"at most {MAX_OBJECTS}"),
    "a million empty objects": (document([{}] * 10**6), f"at most {MAX_OBJECTS}"),
    "200,000 brackets": (b"[" * 200_000, ""),
    "200,000 brackets, closed": (with_text('"imgHeight"', f'"x": {"[" * 200_000}{"]" * 200_000}, "imgHeight"'), ""),
    "objects in objects": (with_text('"imgHeight"', '"x": ' + '{"objects": ' * 50_000), ""),
    "tall zigzags": (document([thing(zigzag(20_000, 8191))] * 2, imgHeight=8192, imgWidth=2048), "image rows in total"),
    "ten thousand tall lines": (document([thing([[0, 0], [9, 16384]])] * 9999, imgHeight=16384), "image rows in total"),
    "ten thousand whole images": (document([thing(box(16384, 64))] * 9999, imgHeight=64, imgWidth=16384), "span"),
    "larger than 8 MB": (b" " * (MAX_FILE_BYTES + 1), "larger than 8 MB"),
}  # fmt: skip

CORPUS = ACCEPTED | {name: content for name, (content, _) in REFUSED.items()}

HOSTILE = [
    None, True, False, 0, -1, 1, 2, 64.5, -0.0, 1e18, 1e308, float("nan"), float("inf"), 2**31, 2**40, 2**63, 10**30,
    16384, 16385, "", "group", "road", "cargroup", "64", "\0", "\ud800", "\U0001f697" * 40, "a\nb", [], {}, [[]], [[1]],
    [1, 2], [[1, 2]], [[1, 2], [3, 4, 5]], {"label": "car"}, {"label": "sky", "polygon": []}, [[10**6, -(10**6)]] * 3,
]  # fmt: skip
JUNK = [b"", b"\0", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"-", b"1e999", b"\\u", b"\xed\xa0\x80"]


def generated(number: int) -> bytes:
    """Make the generated file of this number: a right document, altered in its structure, its bytes, or both."""
    random_ = random.Random(number)
    value: Any = json.loads(document([thing(box(40, 30)), thing(label="road", deleted=0), thing(label="skygroup")]))
    for _ in range(random_.choice((0, 0, 1, 1, 1, 2, 4))):
        alter(value, random_)
    content = json.dumps(value).encode("utf-8", "surrogatepass")
    for _ in range(random_.choice((0, 0, 0, 1, 1, 3))):
        start = random_.randrange(len(content) + 1)
        end = random_.choice((start, start + 1, start + random_.randrange(40), len(content)))
        middle = random_.choice((random_.choice(JUNK), random_.randbytes(3), content[start:end] * 2))
        content = content[:start] + middle + content[end:]
    return random_.choice((b"",) * 20 + (b"\xef\xbb\xbf", b"\xff\xfe")) + content


def alter(value: Any, random_: random.Random) -> None:
    """Walk down to some place of a document and replace, remove, repeat, rename or bury what is there."""
    while type(value) in (dict, list) and value:
        key = random_.choice(list(value)) if type(value) is dict else random_.randrange(len(value))
        inner = value[key]
        if type(inner) in (dict, list) and inner and random_.random() < 0.8:
            value = inner
            continue
        kind = random_.randrange(6)
        if kind == 0:
            del value[key]
        elif kind == 1 and type(value) is list:
            value[key:key] = [inner] * random_.choice((1, 5, 300))
        elif kind == 2 and type(value) is dict:
            value[random_.choice(("label", "polygon", "objects", "deleted", "Label", ""))] = value.pop(key)
        elif kind == 3:
            for _ in range(random_.choice((1, 2, 40, 200))):
                inner = [inner]
            value[key] = inner
        elif kind == 4 and type(inner) in (int, float):
            value[key] = inner + random_.choice((1, -50, 100, 0.5, 10**5, -(10**7)))
        else:
            value[key] = deepcopy(random_.choice(HOSTILE))
        return


def outcome(content: bytes, folder: Path | None = None) -> dict[str, Any]:
    """Read, draw and encode one file; say what became of it: its message, its ids, its seconds, or its bug."""
    from cityscapes.files.png_write import encode_png
    from cityscapes.masks.draw import draw_instance_ids, draw_label_ids, rgba_of_label_ids, to_label_ids
    from cityscapes.masks.frame import Job, make_masks

    found: dict[str, Any] = {}
    started = time.process_time()
    try:
        if folder is None and len(content) <= MAX_FILE_BYTES:
            annotation = parse_polygons(content, "frame.json")
            label_ids = draw_label_ids(annotation)
            found["ids"] = np.flatnonzero(sum(np.bincount(row, minlength=256) for row in label_ids)).tolist()
            for table in (None, CITYSCAPES.label_id_to_train_id, rgba_of_label_ids(CITYSCAPES)):
                encode_png(label_ids, made_from=content, table=table)
            # Instance ids number a thousand objects; and both rasters of the largest frame are more than is allowed.
            if len(annotation.polygons) < 1000 and label_ids.size < 2**24:
                found["agree"] = bool((to_label_ids(draw_instance_ids(annotation)) == label_ids).all())
        else:
            with tempfile.TemporaryDirectory(dir=folder) as root:
                job = Job(Frame("val", "ulm", "000000", "000000"), Path(root), Path(root) / "masks", "rgba", force=True)
                job.polygons.parent.mkdir(parents=True)
                job.polygons.write_bytes(content)
                result = make_masks(job)
                found["files"] = sorted(path.name for path in (Path(root) / "masks").rglob("*.*"))
                if result.problem:
                    found["message"] = result.problem.replace(str(job.polygons), "frame.json")
    except UserError as error:
        found["message"] = str(error)
    except BaseException as error:
        found["bug"] = repr(error)[:500]
    return found | {"seconds": time.process_time() - started}


def in_the_child(generated_files: int) -> None:
    """Warm up, cap the memory, let everything through and print what became of it, a JSON object."""
    import resource

    outcome(document([thing()]))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES,) * 2)
    before = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    with tempfile.TemporaryDirectory() as folder:
        corpus = {name: outcome(content) for name, content in CORPUS.items()}
        files = {name: outcome(content, Path(folder)) for name, content in CORPUS.items()}
        drawn = [outcome(generated(number)) for number in range(generated_files)]
        numbers = range(0, generated_files, THROUGH_FILES)
        written = [outcome(generated(number), Path(folder)) for number in numbers]
    grown = 1024 * (int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) - before)
    print(json.dumps({"corpus": corpus, "files": files, "drawn": drawn, "written": written, "grown": grown}))


@pytest.fixture(scope="module", params=GENERATED)
def outcomes(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What became of the corpus and of so many generated files, in a child process of little memory."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is capped through /proc, which this system has not")
    words = [sys.executable, __file__, "of", str(request.param)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["drawn"]) == request.param
    return found


def check(found: dict[str, Any], name: object) -> None:
    """Check what holds for every file there is."""
    assert "bug" not in found, f"{name}: {found['bug']}"
    assert found["seconds"] < SECONDS, name
    if "message" in found:
        assert found["message"].startswith("frame.json: "), name
        assert found["message"].isprintable(), name
        assert len(found["message"]) < 2000, name
        assert PLACE.search(found["message"].removeprefix("frame.json: ")), (name, found["message"])
    assert found.get("agree", True), f"{name}: instance ids and label ids differ"
    assert set(found.get("ids", ())) <= {label_id for label_id in LABEL_BY_ID if label_id >= 0}, name


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS) >= 61
    assert len(CORPUS) == len(ACCEPTED) + len(REFUSED)


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_drawn_is_drawn(outcomes: dict[str, Any], name: str) -> None:
    for part in ("corpus", "files"):
        check(outcomes[part][name], name)
        assert "message" not in outcomes[part][name]
    assert len(outcomes["files"][name]["files"]) >= 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_line_that_names_the_place(outcomes: dict[str, Any], name: str) -> None:
    for part in ("corpus", "files"):
        check(outcomes[part][name], name)
        assert REFUSED[name][1] in outcomes[part][name].get("message", "")
        assert "message" in outcomes[part][name]
    assert outcomes["files"][name]["files"] == []


def test_generated_files_are_drawn_or_refused(outcomes: dict[str, Any]) -> None:
    for number, found in enumerate(outcomes["drawn"]):
        check(found, number)
    for number, found in zip(range(0, len(outcomes["drawn"]), THROUGH_FILES), outcomes["written"], strict=True):
        check(found, number)
        assert bool(found["files"]) == ("message" not in found)
        assert found.get("message") == outcomes["drawn"][number].get("message")


def test_generated_files_reach_many_refusals_and_many_drawings(outcomes: dict[str, Any]) -> None:
    """A generator that only ever makes broken JSON would prove little."""
    refused = Counter(re.sub(r"\W*\d+|'.*?'", "", f["message"])[:40] for f in outcomes["drawn"] if "message" in f)
    assert 0.1 * len(outcomes["drawn"]) < sum(refused.values()) < 0.9 * len(outcomes["drawn"])
    assert len([kind for kind, count in refused.items() if count >= 5]) >= 12
    assert len({tuple(found["ids"]) for found in outcomes["drawn"] if "ids" in found}) >= 5


def test_all_of_them_together_stay_within_the_memory(outcomes: dict[str, Any]) -> None:
    assert outcomes["grown"] < BYTES


def single(value: float) -> float:
    """Round to the nearest float32, which makes one double operation the float32 operation."""
    return struct.unpack("f", struct.pack("f", value))[0]


def by_the_rule(content: bytes) -> list[list[int]]:
    """Draw a right document by the written rule in plain Python, a row and an edge at a time; rows of label ids."""
    value = json.loads(content)
    height, width = value["imgHeight"], value["imgWidth"]
    image = [[0] * width for _ in range(height)]
    for item in value["objects"]:
        name = item["label"]
        if name not in CITYSCAPES.by_name:
            name = name[: -len("group")]
        points = [(int(x), int(y)) for x, y in item["polygon"]]
        if item.get("deleted") or CITYSCAPES.by_name[name].label_id < 0 or len(points) < 2:
            continue
        edges = list(zip(points[:-1], points[1:], strict=True))
        if points[-1] != points[0]:
            edges.append((points[-1], points[0]))
        for y in range(height):
            crossings = []
            for (x0, y0), (x1, y1) in edges:
                if y0 != y1 and min(y0, y1) <= y + 0.5 <= max(y0, y1):
                    slope = single(single(x1 - x0) / single(y1 - y0))
                    crossings.append(single(single(single(y + 0.5 - y0) * slope) + single(x0)))
            crossings.sort()
            for a, b in zip(crossings[0::2], crossings[1::2], strict=True):
                for x in range(ceil(a - 0.5), floor(b + 0.5) + 1):
                    if 0 <= x < width:
                        image[y][x] = CITYSCAPES.by_name[name].label_id
    return image


NAMES = st.sampled_from(["road", "car", "cargroup", "polegroup", "license plate", "bicycle", "ego vehicle"])
NEAR = st.tuples(st.integers(-8, 40), st.integers(-8, 30)) | st.tuples(st.floats(-8, 40), st.floats(-8, 30))
FAR = st.tuples(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
THINGS = st.builds(
    thing, st.lists(NEAR, max_size=8) | st.lists(NEAR | FAR, max_size=20), NAMES, deleted=st.sampled_from([0, 0, 0, 1])
)


@settings(max_examples=400, deadline=None)
@given(st.lists(THINGS, max_size=6), st.integers(1, 24), st.integers(1, 34))
def test_any_annotation_is_drawn_as_the_written_rule_says(objects: list, height: int, width: int) -> None:
    from cityscapes.masks.draw import draw_label_ids

    content = document(objects, imgHeight=height, imgWidth=width)
    drawn = draw_label_ids(parse_polygons(content, "frame.json"))
    assert np.count_nonzero(drawn != np.array(by_the_rule(content))) == 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case [number]:
            print(generated(int(number)), outcome(generated(int(number))), sep="\n")
        case ["of", count]:
            in_the_child(int(count))
        case _:
            in_the_child(MANY)
