"""The inputs of a run, then and now: its data, and the code that trained it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cityscapes.errors import UserError, reason
from cityscapes.findings import Finding
from dlv3p.data.fingerprints import content_fingerprint, data_fingerprint, masks_fingerprint
from dlv3p.data.roots import open_images
from dlv3p.data.shards import is_url
from dlv3p.runs.provenance import git_commit, lock_sha256

OTHER_DATA = "the run itself is not touched; its score belongs to the data of then"
REPEAT = "repeat the run with what run.json names"
WHAT = {"images": "number of images", "fingerprint": "images", "masks": "masks", "content": "a byte of a file"}


class Surroundings:
    """Compares what a run.json says of data and code with what is there; counts the files that could be compared.

    With `every_byte` the content of images and masks is read; what is wrong with data is an error then, and not a note,
    since somebody asked for it.
    """

    def __init__(self, run: str, record: Mapping[str, Any], *, every_byte: bool) -> None:
        self.run, self.record, self.every_byte = run, record, every_byte
        self.images = self.masks = 0

    def findings(self) -> Iterator[Finding]:
        """Yield what is another thing now than it was then."""
        data = self.record.get("data")
        for split, described in data.items() if isinstance(data, dict) else ():
            root = described.get("root") if isinstance(described, dict) else None
            if isinstance(root, str):
                yield from self._compare_split(root, split, described)
        yield from self._compare_code()

    def told(self) -> str:
        """Say in words what of the data was compared."""
        if not self.images:
            return "its data was not compared"
        how = "every byte" if self.every_byte else "names and sizes"
        return f"of its data, {how} of {self.images:,} images and of {self.masks:,} masks compared"

    def _compare_split(self, root: str, split: str, described: Mapping[str, Any]) -> Iterator[Finding]:
        where = f"{root} ({split})"
        if is_url(root):
            yield self._about_data("data not compared", where, "lies behind a URL")
            return
        if self.every_byte and described.get("content") is None:
            problem = "its content was not recorded: shards, too much to read, or a run of an earlier version"
            yield self._about_data("data not compared", where, problem)
            return
        now: dict[str, Any] = {}
        try:
            images = open_images(Path(root), split)
            now = {"images": len(images), "fingerprint": data_fingerprint(images)}
            self.images += 0 if self.every_byte else len(images)
            if described.get("masks"):
                now["masks"] = masks_fingerprint(images)
                self.masks += len(images)
            if self.every_byte:
                now["content"] = content_fingerprint(images, remembered=False)
                self.images += len(images)
        except (UserError, OSError) as error:
            kind = "masks gone" if now else "data gone"
            yield self._about_data(kind, where, reason(error).removeprefix(f"{root}: "))
        if changed := [name for name in now if now[name] != described.get(name)]:
            problem = f"other than when the run began: {', '.join(WHAT[name] for name in changed)}"
            yield self._about_data("data changed", where, problem)

    def _compare_code(self) -> Iterator[Finding]:
        git, lock = self.record.get("git"), self.record.get("lock_sha256")
        if isinstance(git, dict):
            now = git_commit()
            if now and git.get("commit") and git["commit"] != now:
                yield self._note("other code now", "git", f"trained at {git['commit']:.12}, now at {now:.12}", REPEAT)
            if git.get("changed"):
                problem = f"trained with changes that no commit holds (diff {str(git.get('diff_sha256')):.12})"
                yield self._note("code not committed", "git", problem, "commit before training what shall be repeated")
        now = lock_sha256()
        if isinstance(lock, str) and now and lock != now:
            yield self._note("other versions now", "requirements.lock", f"was {lock:.12}, is {now:.12}", REPEAT)

    def _about_data(self, kind: str, where: str, problem: str) -> Finding:
        return Finding(kind, self.run, where, problem, OTHER_DATA, is_error=self.every_byte)

    def _note(self, kind: str, where: str, problem: str, remedy: str) -> Finding:
        return Finding(kind, self.run, where, problem, remedy, is_error=False)
