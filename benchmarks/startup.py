"""Cold starts: what a command needs to answer `--help`, and what each notebook imports beside torch and torchvision.

    python -m benchmarks.startup [--turns 5] [--notebooks train quickstart]

Every start is a process of its own, and what counts is the processor time of that process. `--help` may take 0.3 s, and
all imports that are written in a notebook's cells 1.2 times what a bare `import torch, torchvision` takes; what the
library imports inside of its functions comes later and is not counted. The two are run by turns, and the figure is the
median of the ratios.
"""

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cityscapes.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
COMMANDS = (
    "-m dlv3p",
    "-m dlv3p train",
    "-m dlv3p runs",
    "-m dlv3p weights",
    "-m dlv3p predict",
    "-m dlv3p annotations",
    "-m dlv3p annotations prepare",
    "-m dlv3p sweep",
    "-m dlv3p replay",
    "-m dlv3p table",
    "-m dlv3p export",
    "-m dlv3p shards",
    "-m dlv3p demo",
    "-m dlv3p.train",
    "cityscapes/generate_gt.py",
    "cityscapes/evaluate.py",
    "cityscapes/submission.py",
    "cityscapes/audit.py",
    "cityscapes/demo/city.py",
)
BARE = "import torch, torchvision"
HELP_SECONDS, IMPORTS = 0.3, 1.2
"""What `--help` may take, and what a notebook's imports may, as a multiple of the bare ones."""


def imports_of(notebook: Path) -> str:
    """Return the import statements in the cells of a notebook, in their order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    trees = [ast.parse(source) for source in sources if "import " in source]
    statements = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, statements))


def seconds(*words: str) -> float:
    """Run Python with `words` in the root; return the processor seconds that it took."""
    before = os.times()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def verdict(value: float, budget: float) -> str:
    """Say whether a value is within its budget."""
    return "" if value <= budget else f"  over its budget of {budget}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, start everything so many times, and print the medians."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="starts of each (default: 3)")
    parser.add_argument("--notebooks", nargs="*", default=NOTEBOOKS, choices=NOTEBOOKS, metavar="NAME", help="which")
    options = parser.parse_args(arguments)
    print("processor seconds of --help")
    for command in COMMANDS:
        taken = statistics.median(seconds(*command.split(), "--help") for _ in range(options.turns))
        print(f"  {command:26} {taken:5.2f}{verdict(taken, HELP_SECONDS)}")
    print(f"processor seconds of a notebook's imports, and times those of `{BARE}`")
    for name in options.notebooks:
        imports = imports_of(ROOT / "notebooks" / f"{name}.ipynb")
        pairs = [(seconds("-c", imports), seconds("-c", BARE)) for _ in range(options.turns)]
        ours, ratio = (statistics.median(values) for values in zip(*((o, o / bare) for o, bare in pairs), strict=True))
        print(f"  {name:26} {ours:5.2f}  {ratio:.2f}{verdict(ratio, IMPORTS)}", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
