"""The commands, links, and code in the README and in docs/ work, and the whole project is in American English."""

import dataclasses
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml
from support.refresh_notebooks import readme

from dlv3p.__main__ import COMMANDS
from dlv3p.parameters import notebooks as parameters

ROOT = next(parent for parent in Path(__file__).parents if (parent / "pyproject.toml").is_file())
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/recipes/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BRITISH = re.compile(
    r".*(colour|grey|labell|neighbour|behaviour|favour|honour|harbour|labour|cancell(ed|ing)|travell|modell|levell|"
    r"catalogue|artefact|aluminium|aeroplane|kerb|tyre|defence|licence|judgement|learnt|whilst|towards|sceptic).*|"
    r".*metres?|.*centre[sd]?|.+(is|ys)(e|es|ed|ers?|ing|ations?)"
)
AMERICAN_TOO = re.compile(r".*wise|(no|prom|ra|a?r|disgu|prec|exerc|rev|adv|surpr|superv|compr|prem)is\w+")
AEROPLANE = "aeroplane"
"""A class of PASCAL VOC, wherever it occurs."""
KEPT = {
    "benchmarks/loader.py": {"fadvise"},  # of the operating system
    "cityscapes/demo/street.py": {"kerb"},  # seeds the random numbers: another name would be another city
    "cityscapes/masks/frame.py": {"grey"},  # part of the stamp in every mask ever written
    "dlv3p/annotations/coco.py": {"madvise"},  # a function of the operating system
    "dlv3p/data/class_table.py": {"unlabelled"},  # a name that people give to what is ignored
    "dlv3p/experiments/executors.py": {"cancelled"},  # a method of `concurrent.futures.Future`
    "dlv3p/experiments/sweep.py": {"cancelled"},
    "dlv3p/pictures/profiles.py": {"normalise"},  # a key of stored profiles
    "dlv3p/profiling/latency.py": {"normalise"},
    "tests/cityscapes/demo/test_demo_city.py": {"colour"},  # options and keys that must be refused
    "tests/project/test_commands.py": {"colour"},
    "tests/runs/test_run_check.py": {"colour"},
    "tests/weights/test_own_files.py": {"colour"},
}
"""British words that stay: file, and the words in it."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def commands(page: Path) -> list[list[str]]:
    """The words of every command in a page's shell blocks, without `...`."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"\s#\s.*|\s&&\s", line)]
    return [[word for word in shlex.split(part) if word != "..."] for part in parts if part and part.strip()]


def prose(path: Path) -> str:
    """The text of a file; of a notebook, the sources of its cells and their outputs as text."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join([cell.source for cell in cells] + shown)


def test_spelling_is_american() -> None:
    folders = ("cityscapes", "dlv3p", "benchmarks", "docs", "examples", "notebooks", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*")] + list(ROOT.glob("*.*"))
    found = {}
    for path in paths:
        if path.suffix in (".py", ".md", ".ipynb", ".yaml", ".toml") and path != Path(__file__):
            words = set(re.findall(r"[a-z]+", prose(path).lower())) - {AEROPLANE}
            if british := {word for word in words if BRITISH.fullmatch(word) and not AMERICAN_TOO.fullmatch(word)}:
                found[path.relative_to(ROOT).as_posix()] = british
    assert found == KEPT


def test_the_readme_is_one_page() -> None:
    assert len(README.read_bytes()) <= 10_000


def test_the_results_of_the_readme_are_those_that_the_report_shows() -> None:
    assert README.read_text(encoding="utf-8") == readme(), "run: tests/support/refresh_notebooks.py --parameters"


def test_the_tree_of_the_readme_names_every_subpackage() -> None:
    tree = README.read_text(encoding="utf-8").rpartition("```\n")[0].rpartition("```\n")[2]
    assert {path.parent.name for path in ROOT.glob("dlv3p/*/__init__.py")} <= set(re.findall(r"(\w+)/", tree))


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_the_readme_names_every_notebook(path: Path) -> None:
    assert f"](notebooks/{path.name}) |" in README.read_text(encoding="utf-8")


@pages
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_the_readme_and_contributing_lead_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", "".join(page.read_text() for page in ROOT.glob("*.md"))))
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= linked


@pages
def test_papermill_commands_name_notebooks_parameters_and_recipes_that_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] != "papermill" or words[1].isupper():
            continue
        path = ROOT / "notebooks" / words[1]
        notebook = nbformat.read(path, as_version=4)
        known = {
            field.name for field in dataclasses.fields(getattr(parameters, notebook.metadata["dlv3p"]["parameters"]))
        }
        asked = {words[place + 1] for place, word in enumerate(words) if word == "-p"}
        assert asked <= known, words
        recipes = [words[place + 1] for place, word in enumerate(words) if word == "-f"]
        assert all((ROOT / "notebooks" / recipe).is_file() for recipe in recipes), words


@pages
def test_other_commands_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] == "dlv3p":
            assert words[1] in COMMANDS, words
        elif words[0] == "python" and words[1] == "-m":
            assert find_spec(words[2]), words
        elif words[0] == "python":
            assert (ROOT / "notebooks" / words[1]).is_file() or (ROOT / words[1]).is_file(), words


def test_there_are_commands_to_check() -> None:
    """The tests above pass silently where they find none."""
    found = [words[0] for page in PAGES for words in commands(page)]
    assert found.count("papermill") >= 20
    assert found.count("dlv3p") >= 6
    assert found.count("python") >= 6


def test_the_lines_of_python_run(city: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are in the README, on a tiny city and with a small network."""
    (lines,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(list(filter(None, lines.splitlines()))) == 8
    small = "TrainParameters(channels=8, crop_height=64, crop_width=64, batch_size=2, workers=0, threads=1, "
    assert "TrainParameters(" in lines
    monkeypatch.chdir(workspace)
    names = {}
    exec(lines.replace('"demo_city"', repr(str(city))).replace("TrainParameters(data", f"{small}data"), names)
    assert 0 <= names["result"].scores.mean_iou <= 1
    assert names["network"].architecture == "deeplabv3plus"
    assert len(names["class_names"]) == 19


def test_the_license_and_the_citation_name_the_developers_and_the_version() -> None:
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "MIT License\n\nCopyright (c) 2026 the dlv3p developers\n" in (ROOT / "LICENSE").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": "The dlv3p developers"}]
    assert (citation["license"], citation["version"]) == (PROJECT["license"], PROJECT["version"])
