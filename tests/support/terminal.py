"""Runs a command in a pseudo-terminal, as a person would, for the tests of commands."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def in_terminal(*words: str, cwd: Path = ROOT, watch: Callable[[str], None] = str) -> tuple[int, str]:
    """Run a command in a pseudo-terminal; return its status and what it showed, of which `watch` gets each part."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(words, cwd=cwd, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # EIO: the last process has closed its end
            break
        if not chunk:
            break
        shown += chunk
        watch(chunk.decode(errors="replace"))
    os.close(terminal)
    return process.wait(timeout=300), shown.decode()
