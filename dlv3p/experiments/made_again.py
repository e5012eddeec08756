"""Make again what notebooks made of a run, its evaluation, masks, zip and animation, and compare it byte by byte.

An executed notebook that is unchanged says how something was made: by which parameters, and of which network.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.files.checksums import HASH_KEY, file_sha256, with_checksum
from cityscapes.workspace import output_folder, run_folder, workspace
from dlv3p.data.roots import resolve_data_root
from dlv3p.experiments.grid import find_notebook
from dlv3p.experiments.process import papermill_words
from dlv3p.jupyter.executed_copy import is_current
from dlv3p.jupyter.papermill_words import parameters_class
from dlv3p.parameters.data_roots import EMBEDDED
from dlv3p.parameters.notebooks import RunParameters

MAKERS = {
    "EvaluateParameters": "evaluate",
    "SavePredictionsParameters": "save_predictions",
    "RenderGifParameters": "render_gif",
}
"""The notebooks that make what is compared, by their parameters; none of it holds a time."""

PRODUCTS = {
    "evaluation": ("evaluation*", "class_scores*.csv", "details*.csv"),
    "masks": ("predictions/*/*/*.png",),
    "zip": ("submission*",),
    "animation": ("*.gif", "*.webp", "*.mp4"),
}
"""What is compared, and the names of its files in `outputs/<run>/`; a zip comes with its manifest and its record."""


class Making(NamedTuple):
    """How something was made: when the notebook ended, which one it was, what was given to it, and all parameters."""

    ended: str
    notebook: Path
    given: Mapping[str, Any]
    parameters: RunParameters


def read_makings(run: str) -> list[Making]:
    """Return what has made the results of a run, oldest first; of two with the same parameters, the later one.

    Every executed notebook counts that came to its end, is unchanged, and is of the network that is there now; those of
    `make demo` are in a folder of their own.
    """
    found: dict[RunParameters, Making] = {}
    for path in output_folder("").glob("*/*.ipynb"):
        try:
            making = _read(json.loads(path.read_text(encoding="utf-8")), run, path.parent == output_folder(run))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no such notebook, whatever it is
            continue
        if making:
            found[making.parameters] = max(making, found.get(making.parameters, making), key=_ended)
    return sorted(found.values(), key=_ended)


class Compared(NamedTuple):
    """What was compared, by kind: the first difference, "" for none; and why other kinds were not."""

    results: dict[str, str]
    left_out: dict[str, str]


def make_again(run: str, there: Path, execute: Callable[[Sequence[str]], None]) -> Compared:
    """Execute a run's notebooks again in the workspace `there`, which has the run, and compare what they make.

    `execute` runs a command in a process with that workspace.
    """
    for making in read_makings(run):
        copy = there / "executed" / making.notebook.name
        copy.parent.mkdir(exist_ok=True)
        execute([sys.executable, "-m", *papermill_words(making.notebook, copy, making.given), "--no-progress-bar"])
    kept, made = output_folder(run), there / "outputs" / run
    as_if_here = _replacements(run, there)
    results, left_out = {}, {}
    for kind, patterns in PRODUCTS.items():
        if names := sorted(_names_to_compare(kept, made, patterns)):
            told = (_difference(name, kept, made, as_if_here) for name in names)
            results[kind] = next(filter(None, told), "")
        else:
            file = next((path for pattern in patterns for path in sorted(kept.glob(pattern))), None)
            left_out[kind] = f"no unchanged executed notebook says how {file} was made" if file else "none there"
    return Compared(results, left_out)


def _ended(making: Making) -> str:
    return making.ended


def _read(content: Mapping[str, Any], run: str, beside_run: bool) -> Making | None:
    """Return how an executed notebook, as JSON, made results of a run; None for any other."""
    facts, kind = content["metadata"]["papermill"], content["metadata"]["dlv3p"]["parameters"]
    notebook = find_notebook(MAKERS[kind])
    used = facts["parameters"].get("run") or (run if beside_run else "")
    if used != run or Path(facts["input_path"]).name != notebook.name or facts["exception"] or not facts["end_time"]:
        return None
    given = {**facts["parameters"], "run": run, "progress": "none"}
    if root := given.get("data_root"):
        given["data_root"] = root if root in EMBEDDED else str(resolve_data_root(root))
    parameters = parameters_class(notebook).from_mapping(given)
    return Making(facts["end_time"], notebook, given, parameters) if is_current(content, parameters) else None


def _names_to_compare(kept: Path, made: Path, patterns: tuple[str, ...]) -> set[str]:
    """Return the names of what was made again, where the run has it, and of all that it has beside a mask of these."""
    again = {str(path.relative_to(made)) for pattern in patterns for path in made.glob(pattern)}
    folders = {Path(name).parts[:2] for name in again if len(Path(name).parts) > 1}
    beside = {str(path.relative_to(kept)) for parts in folders for path in kept.joinpath(*parts).rglob("*.png")}
    return {name for name in again if (kept / name).is_file() or kept.joinpath(*Path(name).parts[:2]).is_dir()} | beside


def _difference(name: str, kept: Path, made: Path, as_if_here: Mapping[str, str]) -> str:
    """Return how a file differs from what was made again, "" where it does not, but for what is replaced in JSON."""
    then, now = kept / name, made / name
    if not (then.is_file() and now.is_file()):
        return f"{then} is {'not made again' if then.is_file() else 'missing'}"
    content = _read_json(now, as_if_here) if now.suffix == ".json" else now.read_bytes()
    return "" if then.read_bytes() == content else f"{then}: not the same bytes"


def _replacements(run: str, there: Path) -> dict[str, str]:
    """Return what JSON files of the workspace `there` would say in this one, by what they say.

    Its paths are others, and so are the files of its checkpoints, which hold times too: their weights are the same.
    """
    found = {str(there.resolve()): str(workspace())}
    for now in there.glob(f"saved/{run}/checkpoints/*.pt"):
        then = run_folder(run) / "checkpoints" / now.name
        found |= {file_sha256(now): file_sha256(then)} if then.is_file() else {}
    return found


def _read_json(path: Path, replacements: Mapping[str, str]) -> bytes:
    """Return the bytes of a JSON file after replacements, with its checksum."""
    text = path.read_text(encoding="utf-8")
    for now, then in replacements.items():
        text = text.replace(now, then)
    content = json.loads(text)
    return (json.dumps(with_checksum(content), indent=1) + "\n" if HASH_KEY in content else text).encode()
