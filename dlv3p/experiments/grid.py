"""Read a sweep from YAML: the jobs that a grid, a list, or both make of one notebook; all are checked together."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

from cityscapes.errors import MissingInputError, ParameterError, UserError
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import NOTEBOOKS, output_folder, workspace
from dlv3p.experiments.jobs import Job, check_job, refuse_duplicates
from dlv3p.jupyter.papermill_words import parameters_class
from dlv3p.parameters.files import read_config, read_mapping
from dlv3p.parameters.training import check_run_name

KEYS = ("notebook", "recipe", "fixed", "grid", "list", "slurm")
WANTED = f"holds no sweep; its keys are {', '.join(KEYS)} (docs/cluster.md)"
NOT_SWEPT = ("sweep", "replay")
"""Notebooks that start others."""
MOST_JOBS = 10_000
LONGEST_LAYOUT = 4
"""Characters after the colon in `run: 'mine-{learning_rate:.1e}'`; more might ask for a name of a gigabyte."""


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep, its name, and the options of Slurm that its file sets."""

    name: str
    jobs: tuple[Job, ...]
    slurm: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of the sweep's own files: its table and what stops it."""
        return output_folder(self.name)

    @property
    def varied(self) -> list[str]:
        """The parameters in which the jobs differ."""
        return list(dict.fromkeys(name for job in self.jobs for name in job.varied))


def read_sweep(path: Path, *, here: bool = True) -> Sweep:
    """Read a sweep and check its jobs; raises a user's error that names the first wrong one and counts the others.

    A relative path starts at the current folder, else at `notebooks/`. Jobs that will not run `here` may want a GPU
    that this machine does not have.
    """
    path = given_path(path)
    path = path if path.is_file() or not (NOTEBOOKS / path).is_file() else NOTEBOOKS / path
    content = read_mapping(path, option="sweep", wanted=WANTED)
    for key in content:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParameterError(f"sweep {path}: unknown key {key!r}: allowed are {', '.join(KEYS)}{hint}")
    check_run_name(path.stem)
    fixed = _recipe(path, content) | _mapping(path, content, "fixed")
    combinations, slurm = list(_combinations(path, content)), _mapping(path, content, "slurm")
    with told_of(path):
        notebook = find_notebook(str(content.get("notebook", "train")))
        defaults, folder = read_defaults(notebook), Path.cwd()
        if "long_run" in defaults:
            fixed = {"long_run": True} | fixed  # whoever starts a sweep has seen what it costs, or can
        jobs = [
            Job(number, notebook, defaults, _named(fixed | varied, defaults), varied, folder, workspace(), path.stem)
            for number, varied in enumerate(combinations, start=1)
        ]
        _check(jobs, here=here)
    return Sweep(path.stem, tuple(jobs), slurm)


@contextmanager
def told_of(path: Path | str) -> Iterator[None]:
    """Begin the message of a user's error with the sweep in whose file it is."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"sweep {path}: {error}") from error


def find_notebook(name: str) -> Path:
    """Return the path of a notebook of the suite, given its name or path; raises a user's error for any other."""
    if not NOTEBOOKS.is_dir():
        raise MissingInputError(f"{NOTEBOOKS}: no such folder; a sweep needs the repository, installed with -e")
    path = NOTEBOOKS / f"{name}.ipynb" if name.isidentifier() else given_path(name).absolute()
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if path.stem not in NOT_SWEPT)
    if not parameters_class(path) or path.stem in NOT_SWEPT:
        near = difflib.get_close_matches(path.stem, known, n=1)
        hint = f"did you mean {near[0]}? A" if near else "a"
        raise MissingInputError(
            f"notebook={name!r}: no notebook that a sweep can run; {hint}llowed are {', '.join(known)}, or the path "
            "of one that names its parameters class as they do"
        )
    return path


def read_defaults(notebook: Path) -> dict[str, Any]:
    """Return the values of a notebook's parameters cell."""
    import nbformat
    import papermill  # noqa: F401 - which loads the engine, and has to come first

    from dlv3p.jupyter.papermill_engine import assigned_literals

    cells = nbformat.read(notebook, as_version=4).cells
    sources = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return {name: value for source in sources for name, value in assigned_literals(source).items()}


def _recipe(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the recipe that the sweep starts from, none where it names none."""
    if "recipe" not in content:
        return {}
    name = given_path(str(content["recipe"]))
    places = [path.parent / name, NOTEBOOKS / name, NOTEBOOKS / "recipes" / name]
    return read_config(next((place for place in places if place.is_file()), places[0]), option=f"sweep {path}: recipe")


def _mapping(path: Path, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key) or {}
    if not isinstance(found, dict):
        raise ParameterError(f"sweep {path}: {key} is {found!r:.80}; give lines of 'name: value' below it")
    return found


def _combinations(path: Path, content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what each job changes: each entry of the list, with each combination of the grid."""
    grid = {name: _values(path, name, found) for name, found in _mapping(path, content, "grid").items()}
    entries = content.get("list") or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ParameterError(f"sweep {path}: list is {entries!r:.80}; give entries such as '- {{seed: 1}}' below it")
    if both := sorted({name for entry in entries for name in entry if name in grid}):
        raise ParameterError(f"sweep {path}: {both[0]} is in both grid and list; leave it in one")
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    if not 1 <= len(entries) * len(combinations) <= MOST_JOBS:
        raise ParameterError(f"sweep {path}: {len(entries) * len(combinations):,} jobs; allowed are 1 to {MOST_JOBS:,}")
    yield from (entry | combination for entry in entries for combination in combinations)


def _values(path: Path, name: str, found: Any) -> Sequence[Any]:
    values = found if isinstance(found, list) else [found]
    if not values or any(values.count(value) > 1 for value in values):
        raise ParameterError(f"sweep {path}: grid.{name} is {values!r:.80}; give one value or more, each once")
    return values


def _named(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the values with those of other parameters in place of their names in braces in `run`."""
    run = values.get("run")
    if not isinstance(run, str) or "{" not in run:
        return values
    known = defaults | values
    try:
        for _, name, layout, _ in Formatter().parse(run):
            if name is not None and name not in known:
                raise ParameterError(f"run={run!r:.120}: {name!r:.80} is no parameter; write as in 'mine-{{seed}}'")
            if len(layout or "") > LONGEST_LAYOUT:
                raise ParameterError(f"run={run!r:.120}: {layout!r:.80} is too long; write as in 'mine-{{seed:03}}'")
        return values | {"run": run.format_map(known)}
    except (ValueError, TypeError, LookupError) as error:
        raise ParameterError(f"run={run!r:.120}: {error}; write as in 'mine-{{seed}}'") from None


def _check(jobs: Sequence[Job], *, here: bool) -> None:
    """Check the parameters of all jobs, then all else; tell of the first job that is wrong and how many others are."""
    for look in (lambda job: job.parameters, partial(check_job, here=here)):
        wrong: list[tuple[Job, UserError]] = []
        for job in jobs:
            try:
                look(job)
            except UserError as error:
                wrong.append((job, error))
        if wrong:
            job, error = wrong[0]
            others = f"; of {len(jobs)} jobs, {len(wrong)} are wrong" if len(wrong) > 1 else ""
            raise type(error)(f"job {job.number} ({job.title}): {error}{others}")
    refuse_duplicates(jobs)
