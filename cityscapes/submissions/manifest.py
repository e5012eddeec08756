"""The manifest beside a submission's zip, a record of what was sent: the SHA-256 of the zip and of each file inside."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cityscapes.files.atomic import write_text
from cityscapes.files.checksums import file_sha256
from cityscapes.files.untrusted import regular

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """A zip that was built: its path, the SHA-256 of each file inside by name and in order, its size and SHA-256."""

    path: Path
    files: Mapping[str, str]
    size_bytes: int
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names inside the zip, in order."""
        return tuple(self.files)

    def save(self) -> Path:
        """Write `<zip>.manifest.json` beside the zip and return its path."""
        content = {
            "format": FORMAT,
            "zip": self.path.name,
            "bytes": self.size_bytes,
            "sha256": self.sha256,
            "files": dict(self.files),
        }
        write_text(manifest_path(self.path), json.dumps(content, indent=1) + "\n")
        return manifest_path(self.path)


def manifest_path(zip_path: Path) -> Path:
    """Return the path of a zip's manifest: `submission.zip.manifest.json` beside `submission.zip`."""
    return zip_path.with_name(zip_path.name + ".manifest.json")


def compare_with_manifest(zip_path: Path, files: Mapping[str, str]) -> list[str]:
    """List how a zip differs from the manifest beside it, a line each; empty if there is no manifest.

    `files` has the SHA-256 of the valid files inside, by name.
    """
    path = manifest_path(zip_path)
    if not path.is_file():
        return []
    remedy = "build the zip again, or remove the manifest if it belongs to another zip"
    try:
        content = json.loads(regular(path).read_text(encoding="utf-8"))
        recorded, whole = dict(content["files"]), content["sha256"]
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [f"{path}: not a readable manifest; {remedy}"]
    if file_sha256(zip_path) == whole:
        return []
    problems = [f"{zip_path}: differs from the zip that {path.name} records (SHA-256); {remedy}"]
    changed = [name for name in recorded if name in files and files[name] != recorded[name]]
    return problems + [f"{name}: differs from what {path.name} records" for name in changed]
