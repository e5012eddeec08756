"""Every optional package is asked for by the name of an extra that exists and that brings it."""

import ast
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from cityscapes.errors import MachineError, missing_packages, require
from dlv3p.parameters.choices import TRACKERS

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = [path for folder in ("cityscapes", "dlv3p", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
TEXTS = [*SOURCES, *(ROOT / "notebooks").rglob("*.ipynb"), *(ROOT / "examples").glob("*.py"), *ROOT.glob("*.md")]


def distributions_of(extra: str) -> set[str]:
    """Return the distributions that an extra brings, those of extras in it too."""
    found = set()
    for requirement in EXTRAS[extra]:
        name, _, inner = re.match(r"([\w-]+)(\[([\w,]+)\])?", requirement).groups()
        found |= set().union(*map(distributions_of, inner.split(","))) if inner else {name}
    return found


def requirements() -> list[tuple[str, tuple[str, ...], str]]:
    """Return where `require` is called, for which packages, and by which extra."""
    calls = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name("require") | ast.Attribute(attr="require"), args=[_, packages, ast.Constant(extra)]
                ):
                    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    match packages:
                        case ast.Name(name):
                            known = getattr(import_module(module), name)
                        case ast.Tuple():
                            known = ast.literal_eval(packages)
                        case _:  # put together from what other calls name
                            known = ()
                    calls.append((module, tuple(known), extra))
    return calls


def test_every_extra_that_is_named_exists():
    named = {
        (path.name, extra) for path in TEXTS for extra in re.findall(r"dlv3p\[([a-z0-9]+)\]", path.read_text("utf-8"))
    }
    assert len(named) > 5
    assert {(name, extra) for name, extra in named if extra not in EXTRAS} == set()


def test_every_required_package_is_brought_by_its_extra():
    calls, installed = requirements(), packages_distributions()
    asked = {extra for _, _, extra in calls} | set(TRACKERS[1:])  # an extra of the name of each tracker
    assert asked == EXTRAS.keys() - {"test"}
    for module, packages, extra in calls:
        for package in packages:
            names = {name.replace("_", "-").lower() for name in installed.get(package, [package])}
            assert names & distributions_of(extra), f"{module}: {package} does not come with {extra}"


def test_no_module_catches_a_missing_extra_by_itself():
    """The message has one place; the export command prints its own, since it only leaves a check out."""
    pattern = re.compile(r"pip install '?dlv3p\[")
    codes = {path: re.sub(r'""".*?"""', "", path.read_text("utf-8"), flags=re.S) for path in SOURCES}
    found = {str(path.relative_to(ROOT)) for path, code in codes.items() if pattern.search(code)}
    assert found == {"cityscapes/errors.py", "dlv3p/export/__main__.py"}


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    require("a test", ("json",), "timm")
    assert missing_packages(("json", "timm")) == ["timm"]
    with pytest.raises(MachineError) as refusal:
        require("a test", ("json", "timm"), "timm")
    assert str(refusal.value) == "a test needs timm; install with: pip install 'dlv3p[timm]'"


def test_urls_need_no_extra_but_for_s3():
    """Shards behind a URL are read by fsspec, which torch brings."""
    assert any(name.startswith("fsspec") for name in requires("torch"))
