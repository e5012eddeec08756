"""Compare the inputs of a run, its data and its code, with what its run.json recorded."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cityscapes.dataset import Split
from cityscapes.errors import InputError, MissingInputError, UserError, reason
from cityscapes.findings import Finding
from cityscapes.workspace import run_folder
from dlv3p.data.fingerprints import content_fingerprint, data_fingerprint, masks_fingerprint
from dlv3p.data.parts import choose_listed
from dlv3p.data.roots import open_images, resolve_data_root
from dlv3p.parameters.data_roots import Root, is_url
from dlv3p.parameters.training import WITHOUT_FILE, TrainParameters
from dlv3p.runs.folders import TRAIN_IMAGES
from dlv3p.runs.provenance import git_commit, lock_sha256
from dlv3p.runs.record import read_unchanged_record

OTHER_DATA = "the run itself is unchanged; its score applies to the recorded data"
REPEAT = "to reproduce the run, use what run.json records"
DESCRIPTIONS = {"images": "number of images", "fingerprint": "images", "masks": "masks", "content": "content of files"}


class RunInputs:
    """Compare data and code with a run.json, and count the files that could be compared.

    With `every_byte` the content of images and masks is read, and changed data is an error instead of a note.
    """

    def __init__(self, run: str, record: Mapping[str, Any], *, every_byte: bool) -> None:
        self.run, self.record, self.every_byte = run, record, every_byte
        self.images = self.masks = 0

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each input that has changed."""
        data = self.record.get("data")
        for split, described in data.items() if isinstance(data, dict) else ():
            root = described.get("root") if isinstance(described, dict) else None
            if isinstance(root, str):
                yield from self._compare_split(root, split, described)
        yield from self._compare_code()

    def summary(self) -> str:
        """Return a summary of the data that was compared."""
        if not self.images:
            return "its data was not compared"
        how = "every byte" if self.every_byte else "names and sizes"
        return f"compared {how} of {self.images:,} images and {self.masks:,} masks of its data"

    def _compare_split(self, root: str, split: str, described: Mapping[str, Any]) -> Iterator[Finding]:
        where = f"{root} ({split})"
        if is_url(root):
            yield self._about_data("data not compared", where, "is at a URL")
            return
        if self.every_byte and described.get("content") is None:
            problem = "its content was not recorded: shards, too much to read, or a run of an earlier version"
            yield self._about_data("data not compared", where, problem)
            return
        now: dict[str, Any] = {}
        try:
            images = open_recorded(self.run, root, split, described)
            now = {"images": len(images), "fingerprint": data_fingerprint(images)}
            self.images += 0 if self.every_byte else len(images)
            if described.get("masks"):
                now["masks"] = masks_fingerprint(images)
                self.masks += len(images)
            if self.every_byte:
                now["content"] = content_fingerprint(images, remembered=False)
                self.images += len(images)
        except (UserError, OSError) as error:
            kind = "masks missing" if now else "data missing"
            yield self._about_data(kind, where, reason(error).removeprefix(f"{root}: "))
        if changed := [name for name in now if now[name] != described.get(name)]:
            problem = f"changed since the run began: {', '.join(DESCRIPTIONS[name] for name in changed)}"
            yield self._about_data("data changed", where, problem)

    def _compare_code(self) -> Iterator[Finding]:
        git, lock = self.record.get("git"), self.record.get("lock_sha256")
        if isinstance(git, dict):
            now = git_commit()
            if now and git.get("commit") and git["commit"] != now:
                yield self._note("code changed", "git", f"trained at {git['commit']:.12}, now at {now:.12}", REPEAT)
            if git.get("changed"):
                problem = f"trained with uncommitted changes (diff {str(git.get('diff_sha256')):.12})"
                yield self._note(
                    "code not committed", "git", problem, "commit before training a run that must be reproducible"
                )
        now = lock_sha256()
        if isinstance(lock, str) and now and lock != now:
            yield self._note("versions changed", "requirements.lock", f"was {lock:.12}, is {now:.12}", REPEAT)

    def _about_data(self, kind: str, where: str, problem: str) -> Finding:
        return Finding(kind, self.run, where, problem, OTHER_DATA, is_error=self.every_byte)

    def _note(self, kind: str, where: str, problem: str, remedy: str) -> Finding:
        return Finding(kind, self.run, where, problem, remedy, is_error=False)


def open_trained_on(run: str) -> Split:
    """Open the images that a run was trained on, where they are now or were then.

    Warns where they have changed since. Raises InputError for an imported network, of which nothing says what it was
    trained on, and the errors of a data set that is gone.
    """
    record = read_unchanged_record(run_folder(run) / "run.json")
    if "imported" in record:
        raise InputError(f"run={run!r}: was imported from a file, and nothing says what it was trained on")
    parameters = TrainParameters.from_mapping(TrainParameters.recorded(record["parameters"]))
    described = record["data"][parameters.training_split]
    try:
        root = resolve_data_root(parameters.data_root)
    except MissingInputError:
        root = described["root"]
    images = open_recorded(run, root, parameters.training_split, described)
    if described.get("fingerprint") not in (None, data_fingerprint(images)):
        print(
            f"warning: {run}: images of {parameters.training_split!r} of {root} were added, removed or replaced since "
            "it was trained on them; one that lies elsewhere now counts as unseen by it"
        )
    return images


def unknown_origins(run: str) -> list[str]:
    """Return the weights file and the teacher that a run began with, of which its record does not say on what data.

    What lies in the run's own folder is left out: pruning made it of the teacher.
    """
    folder = run_folder(run).resolve()
    parameters = TrainParameters.recorded(read_unchanged_record(folder / "run.json")["parameters"])
    named = (parameters["initial_weights"], parameters["teacher"])
    named = [name for name in named if name not in ("", *WITHOUT_FILE)]
    return [name for name in named if not Path(name).resolve().is_relative_to(folder)]


def open_recorded(run: str, root: Root, split: str, described: Mapping[str, Any]) -> Split:
    """Open a split that a run.json describes, of which a list may have chosen some images."""
    images = open_images(root, split)
    if not described.get("list"):
        return images
    return choose_listed(str(run_folder(run) / TRAIN_IMAGES), [images], parameter="train_list")[0]
