"""Masks made elsewhere: in processes, on a Dask cluster, in any number, with a memory that does not grow with it."""

import json
import subprocess
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from weakref import WeakSet

import pytest

from cityscapes.errors import BusyError, MachineError
from cityscapes.files.locks import lock_folder
from cityscapes.generate_gt import MANY_FRAMES, generate_masks
from cityscapes.layout import POLYGONS_SUFFIX, Frame
from cityscapes.parallel import map_bounded

COMMAND = Path(__file__).parents[3] / "cityscapes" / "generate_gt.py"


def write_city(root: Path, frames: int, *, size: int = 16) -> Path:
    for i in range(frames):
        path = Frame("train", "ulm", "000000", f"{i:06}").annotation(root, POLYGONS_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        car = {"label": "car", "polygon": [[1, 1], [size - i % 9, 5], [7, size]]}
        path.write_text(json.dumps({"imgHeight": size, "imgWidth": size, "objects": [car]}))
    return root


def masks(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Twelve frames, one of them broken, and what threads make of them."""
    root = write_city(tmp_path_factory.mktemp("city"), 12)
    Frame("train", "ulm", "000000", "000003").annotation(root, POLYGONS_SUFFIX).write_text("{")
    report = generate_masks(root, root / "threads", splits=["train"], instances=True)
    assert (report.written, len(report.failed)) == (11, 1)
    return root


def same_as_threads(city: Path, output: Path, executor: Executor) -> None:
    report = generate_masks(city, output, splits=["train"], instances=True, executor=executor)
    assert (report.written, report.up_to_date, len(report.failed)) == (11, 0, 1)
    assert masks(output) == masks(city / "threads")
    assert generate_masks(city, output, splits=["train"], instances=True, executor=executor).up_to_date == 11


def test_processes_make_the_same_files(city, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        same_as_threads(city, Path("out"), executor)
        assert executor.submit(len, "abc").result() == 3  # the caller's executor stays open


def test_the_command_makes_the_same_files_in_processes(tmp_path):
    root = write_city(tmp_path / "city", MANY_FRAMES + 6)
    generate_masks(root, tmp_path / "threads", splits=["train"])
    words = ("--root", root, "--output", tmp_path / "processes", "--splits", "train", "--workers", "2")
    subprocess.run([sys.executable, COMMAND, *map(str, words)], check=True, capture_output=True)
    assert masks(tmp_path / "processes") == masks(tmp_path / "threads")


def test_processes_die_with_a_command_that_is_killed():
    """Whoever lives holds the pipe open: its end comes only when the command and all that it started are gone."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(COMMAND.parents[1])!r})
from cityscapes.parallel import worker_processes
if __name__ == "__main__":
    with worker_processes(2) as pool:
        print(len({{pool.submit(os.getpid).result() for _ in range(4)}}), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    command = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    shown, _ = command.communicate(timeout=60)
    assert shown in ("1\n", "2\n")
    assert command.returncode == -9


def test_a_dask_cluster_makes_the_same_files(city, tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install .[cluster]")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        same_as_threads(city, tmp_path, client.get_executor())


def test_a_worker_that_dies_is_one_line():
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(MachineError, match="a worker of the executor died"),
    ):
        list(map_bounded(executor, sys.modules["os"]._exit, [1], in_flight=2))


def test_no_more_than_so_many_items_are_ever_in_flight():
    submitted = []

    class Lazy(Executor):
        def submit(self, function, item):
            submitted.extend(item)
            future = Future()
            if len(submitted) % 3 == 0:  # done in another order than begun
                for earlier in (*waiting, future):
                    earlier.set_result(function(item))
                waiting.clear()
            else:
                waiting.append(future)
            return future

    waiting: list[Future] = []
    results = map_bounded(Lazy(), str, count(), in_flight=3)
    for seen, _ in enumerate(islice(results, 30), 1):
        assert len(submitted) - seen <= 3
    results.close()
    assert list(map_bounded(Lazy(), str, [], in_flight=3)) == []


def test_a_task_has_several_items_and_none_is_lost():
    tasks = []

    class Counted(ThreadPoolExecutor):
        def submit(self, function, items):
            tasks.append(len(items))
            return super().submit(function, items)

    with Counted(2) as pool:
        assert sorted(map_bounded(pool, abs, range(-10, 0), in_flight=2, batch=4)) == list(range(1, 11))
    assert tasks == [4, 4, 2]


def test_an_early_end_cancels_what_has_not_begun_and_waits_for_what_has():
    begun, done = [], []
    with ThreadPoolExecutor(1) as pool:

        def work(item):
            begun.append(item)
            if item == 1:
                raise OSError("broken")
            done.append(item)

        with pytest.raises(OSError, match="broken"):
            list(map_bounded(pool, work, range(100), in_flight=50))
        finished = [item for item in begun if item != 1]
        assert done == finished
    assert len(begun) < 60


def test_an_executor_does_not_get_past_the_lock(city, tmp_path):
    with lock_folder(tmp_path), ThreadPoolExecutor(1) as executor, pytest.raises(BusyError):
        generate_masks(city, tmp_path, splits=["train"], executor=executor)


class Watched(ThreadPoolExecutor):
    """Two threads that know how many futures, with their results, were alive at once."""

    def __init__(self) -> None:
        super().__init__(2)
        self.alive: WeakSet[Future] = WeakSet()
        self.most = 0

    def submit(self, *arguments, **options):
        future = super().submit(*arguments, **options)
        self.alive.add(future)
        self.most = max(self.most, len(self.alive))
        return future


def test_neither_tasks_nor_results_pile_up_with_the_number_of_files(tmp_path):
    write_city(tmp_path, 60)
    with Watched() as executor:
        report = generate_masks(tmp_path, tmp_path / "out", splits=["train"], workers=2, executor=executor)
    assert report.written == 60
    assert executor.most <= 4 * 2 + 2 + 1, "four a worker, those that the workers hold, and the one that was yielded"


@pytest.mark.slow
def test_five_thousand_files_need_no_more_memory_than_ten(tmp_path):
    write_city(tmp_path / "few", 10)
    write_city(tmp_path / "many", 5000)
    code = """
import sys
from pathlib import Path
from cityscapes.generate_gt import MANY_FRAMES, generate_masks
peaks = []
for name, expected in (("few", 10), ("many", 5000)):
    root = f"{sys.argv[1]}/{name}"
    assert generate_masks(root, root + "/out", splits=["train"], workers=2, progress=False).written == expected
    peaks.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
print(peaks[1] - peaks[0])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 * 1024  # KiB: 7 MB is the list of files; tasks that pile up make it twice that
