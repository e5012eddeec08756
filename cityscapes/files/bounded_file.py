"""Read a file that came from anywhere, without trusting its size."""

from pathlib import Path

from cityscapes.errors import InputError, MissingInputError


def read_at_most(path: Path, most: int, *, missing: str, too_large: str) -> bytes:
    """Read a file of at most `most` bytes.

    Raises MissingInputError with `missing` where there is none, InputError with `too_large` for a larger one, and
    InputError for one that cannot be read; the texts stand behind the path.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: {missing}")
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); mend its rights or copy it again") from error
    if len(content) > most:
        raise InputError(f"{path}: {too_large}")
    return content
