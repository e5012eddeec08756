"""Any executor predicts the same files: in other processes, wherever they run, and whatever happens to them."""

import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from support.prediction_folders import contents, predict

from cityscapes import parallel
from cityscapes.errors import IntegrityError, MachineError, ParameterError
from dlv3p.parameters.notebooks import PredictParameters
from dlv3p.pictures.video import write_video
from dlv3p.prediction import jobs
from dlv3p.prediction.__main__ import main
from dlv3p.prediction.memory import MemoryLimit
from dlv3p.prediction.predictor import ImagePredictor, file_of, load_again, load_predictor

pytestmark = pytest.mark.usefixtures("trained")


def test_other_processes_write_the_same_files_wherever_they_run(predictor, photos: Path, tmp_path, monkeypatch) -> None:
    """From a relative folder with a damaged image, whose line names it as it was given."""
    whole = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    here = predict(predictor, "photos", Path("here"))
    elsewhere = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=elsewhere, initializer=os.chdir, initargs=("/",)) as pool:
        monkeypatch.setattr(ImagePredictor, "predict", None)  # this process predicts nothing
        found = predict(predictor, "photos", Path("there"), executor=pool)
        (Path("there") / "ids" / "b.png").unlink()
        again = predict(predictor, "photos", Path("there"), executor=pool)
    assert (found.done, found.problems, found.made, again.made) == (here.done, here.problems, 3, 1)
    assert found.problems[0].startswith("photos/cut.png: ")
    assert contents(Path("there")) == contents(Path("here"))


def test_the_command_takes_workers(photos: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """As threads, which start sooner than processes."""
    asked = []
    monkeypatch.setattr(parallel, "worker_processes", lambda count: asked.append(count) or ThreadPoolExecutor(count))
    (photos / "empty.jpg").write_bytes(b"")
    words = [str(photos), "--run", "done", "--threads", "1", "--device", "cpu", "--output"]
    for folder, more in (("one", []), ("two", ["--workers", "2"])):
        assert main([*words, str(tmp_path / folder), *more]) == 3
        assert "3 predicted, 0 kept, 1 not predicted" in capsys.readouterr().out
    assert asked == [2]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("kind", ["weights", "folded", "tiles"])
def test_every_kind_of_network_is_loaded_again_as_it_was(
    predictor, photos: Path, tmp_path, monkeypatch, kind: str, batch_size: int
) -> None:
    if kind == "tiles":
        monkeypatch.setattr(MemoryLimit, "needs_tiles", lambda *size, **options: True)
        used = replace(predictor, limit=replace(predictor.limit, tile=64, overlap=16))
    elif kind == "folded":
        used = load_predictor("done", runtime="folded", device="cpu", threads=1)
    else:
        used = load_predictor(predictor.network.checkpoint.parents[1] / "model.safetensors", device="cpu", threads=1)
    predict(used, photos, tmp_path / "here", batch_size=batch_size)
    with ThreadPoolExecutor(1) as pool:
        predict(used, photos, tmp_path / "there", batch_size=batch_size, executor=pool)
    parts, again = ([type(one) for one in net.network.model.modules()] for net in (used, load_again(file_of(used))))
    assert parts == again
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_worker_refuses_other_weights_than_those_that_were_loaded(predictor, photos: Path, tmp_path: Path) -> None:
    other = replace(predictor, network=replace(predictor.network, weights_sha256="0" * 64))
    with ThreadPoolExecutor(1) as pool, pytest.raises(IntegrityError, match="best.pt: is another checkpoint than"):
        predict(other, photos, tmp_path / "out", executor=pool)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_what_was_done_before_a_worker_died_is_kept(predictor, photos: Path, tmp_path: Path) -> None:
    class Dying(ThreadPoolExecutor):
        """Two tasks are done, the third one is lost with its worker."""

        given = 0

        def submit(self, function, /, *arguments, **options):
            self.given += 1
            if self.given < 3:
                return super().submit(function, *arguments, **options)
            return super().submit(self._die)

        def _die(self) -> None:
            from concurrent.futures import BrokenExecutor

            raise BrokenExecutor("a process ended")

    expected = predict(predictor, photos, tmp_path / "at once")
    with Dying(1) as pool, pytest.raises(MachineError, match="a worker of the executor died"):
        predict(predictor, photos, tmp_path / "out", executor=pool)
    with ThreadPoolExecutor(1) as pool:
        found = predict(predictor, photos, tmp_path / "out", executor=pool)
    assert (found.made, found.done) == (1, expected.done)
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


def test_a_video_takes_one_process(tmp_path: Path, picture) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="videos need the extra video")
    import numpy as np

    write_video([np.asarray(picture)] * 2, tmp_path / "drive.mp4", rate=5)
    asked = PredictParameters(run="done", images=str(tmp_path / "drive.mp4"), workers=2, device="cpu")
    with pytest.raises(ParameterError, match=r"workers=2: .*drive\.mp4 is a video, .*; leave workers at 1"):
        jobs.predict(asked)
