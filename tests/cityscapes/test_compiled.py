"""Inner loops are compiled when they are first called, once, whoever calls, and load no numba before."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import cityscapes
import dlv3p
from cityscapes import compiled as module
from cityscapes.compiled import compiled


def test_of_two_threads_that_call_first_one_compiles(monkeypatch):
    results, compilations = [], []

    @compiled("int64(int64)")
    def double(number):
        return 2 * number

    other = threading.Thread(target=lambda: results.append(double(21)))

    def compile_while_another_thread_calls(function, signatures):
        compilations.append(signatures)
        if len(compilations) == 1:
            other.start()
            other.join(timeout=0.2)  # it waits for what is compiled here
        return function

    monkeypatch.setattr(module, "_compile", compile_while_another_thread_calls)
    assert double(4) == 8
    other.join(timeout=60)
    assert results == [42]
    assert compilations == [["int64(int64)"]]


def test_what_cannot_be_kept_is_compiled_all_the_same(monkeypatch):
    import numba

    asked, njit = [], numba.njit

    def without_a_place(*signatures, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*signatures, **options)

    monkeypatch.setattr(numba, "njit", without_a_place)

    @compiled("int64(int64)")
    def double(number):
        """Double a number."""
        return 2 * number

    assert (double(21), double(4), double.__doc__) == (42, 8, "Double a number.")
    assert asked[:2] == [True, False]  # the rest are functions of numba's own


def test_numba_is_loaded_by_the_first_call_only():
    code = "import sys; import cityscapes.masks.draw, cityscapes.files.png_write; print('numba' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


FETCH = """
import importlib, json, sys
from numba.core import event
from cityscapes.compiled import LOOPS

for name in sys.argv[1:]:
    importlib.import_module(name)
with event.install_recorder("numba:compile") as recorder:
    for loop in LOOPS:
        loop.machine_code()
names = sorted(f"{loop.__module__}.{loop.__name__}" for loop in LOOPS)
made = [str(entry.data["dispatcher"]) for _, entry in recorder.buffer if entry.is_start]
print(json.dumps({"loops": names, "made": made}))
"""


def fetch_all_loops():
    """Let a new process fetch the machine code of every loop of the product: the loops, and what it had to compile."""
    roots = [Path(package.__file__).parent for package in (cityscapes, dlv3p)]
    files = sorted(path for root in roots for path in root.rglob("*.py") if "import compiled\n" in path.read_text())
    names = [".".join(path.relative_to(roots[0].parent).with_suffix("").parts) for path in files]
    result = subprocess.run([sys.executable, "-c", FETCH, *names], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_what_one_process_compiled_no_other_compiles_or_warns_of():
    """In the cache that everybody uses, so that only a fresh clone's first tests compile anything."""
    first, second = fetch_all_loops(), fetch_all_loops()
    assert len(second["loops"]) >= 14
    assert second == {"loops": first["loops"], "made": []}
