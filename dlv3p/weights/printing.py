"""What a file says, made fit for one line of a terminal: a name in it may hold control codes, or a whole page."""

from cityscapes.errors import reason

LONGEST = 80
"""So many letters of a name are shown."""


def shown(text: object, most: int = LONGEST) -> str:
    """Return a text from a file as it may be printed: escapes for what is no letter, and at most `most` letters."""
    letters = str(text)[: most + 1]
    escaped = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in letters)
    return escaped if len(escaped) <= most else f"{escaped[: most - 3]}..."


def told(error: Exception) -> str:
    """Return what another library says of a file, as it may be printed."""
    return shown(reason(error), 200)
