"""A user opens a notebook in JupyterLab and runs it: widgets are drawn, and no cell fails."""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("playwright", reason="the browser test needs the Python package playwright")
sys.path.insert(0, str(Path(__file__).parent))
from playwright.sync_api import Page
from run_notebook import CLIPPED, JupyterLab, Seen, jupyterlab
from support.channel_folder import SWITCHES, write_folder
from support.own_folder import COLORS, write_own_folder
from support.tiny import STEPS_PER_EPOCH, TINY, tiny

from cityscapes.files.images import read_ids
from dlv3p.evaluation.inference import load_saved
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters
from dlv3p.pictures.video import open_video, write_video
from dlv3p.pictures.visualize import overlay
from dlv3p.prediction.predictor import as_image
from dlv3p.runs.trained import install_trained_run
from dlv3p.train import train
from dlv3p.weights.checkpoint import load_checkpoint

PIXELS = """() => {
    const image = [...document.querySelectorAll('.jp-Notebook img.widget-image')].at(-1);
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""
"""The pixels of the last picture among the widgets, as the browser draws them."""

DEFAULTS = TrainParameters().as_dict()
ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "outputs" / "browser"

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """JupyterLab in a browser, with a workspace in which the stored run lies as well."""
    workspace = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch, jupyterlab(workspace) as opened:
        patch.setenv("DLV3P_WORKSPACE", str(workspace))
        install_trained_run()
        yield opened


def test_quickstart_draws_its_progress_and_curves(city: Path, lab: JupyterLab) -> None:
    parameters = {"data_root": str(city), "epochs": 4, "output_stride": 32, "threads": 1}  # the browser wants a core
    seen = lab.run(
        ROOT / "notebooks" / "quickstart.ipynb",
        parameters=parameters,
        screenshot=PICTURES / "quickstart.png",
        seconds=600,
    )
    assert seen.errors == []
    assert seen.run == seen.cells
    assert seen.full_bars >= 1, "no progress bar ended well"
    assert seen.images >= 1, "the curves were not drawn"
    bars = [look for look in seen.looks if look.text is not None]
    assert all(look.text for look in bars), "a bar without a text"
    assert any(look.text.startswith("preparing the data") for look in bars)
    training = [look for look in bars if re.match(r"epoch \d+/4  ·  ", look.text)]
    assert len({look.share for look in training}) > 3, "the bar did not move"
    assert any(look.height > 100 for look in training), "no curve was seen while the cell ran"
    assert len({look.picture for look in seen.looks if look.height > 100}) > 1, "no curve was seen to change"


READ = """() => {
    const shown = (element) => element.checkVisibility({visibilityProperty: true});
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];
    const code = cells.filter((cell) => cell.matches('.jp-CodeCell'));
    const texts = (element, selector) => [...element.querySelectorAll(selector)].filter(shown).map((e) => e.innerText);
    const scroller = code[0].querySelector('.cm-scroller');
    const printed = [...document.querySelectorAll('[data-mime-type="application/vnd.jupyter.stdout"] pre')];
    return {
        first: cells[0].innerText,
        parameters: texts(code[0], '.cm-line'),
        cut_off: scroller.scrollWidth - scroller.clientWidth,
        rows: texts(document, 'table tr').map((row) => row.split('\\t')[0]),
        folded: code.filter((cell) => !cell.querySelector('.cm-editor') || !shown(cell.querySelector('.cm-editor')))
            .map((cell) => code.indexOf(cell) - code.length),
        // Below the training cell: the curves, a widget, and samples of predictions.
        pictures: [...cells.find((cell) => cell.innerText.includes('result = train(config)'))
            .querySelectorAll('.jp-OutputArea img')].filter(shown).filter((image) => image.clientHeight > 100).length,
        next: printed.flatMap((pre) => pre.textContent.split('\\n').filter((line) => line.startsWith('papermill '))
            .map((line) => [line.split(' ')[1], line.split(' ').at(-1)])),
    };
}"""
"""What a person reads in the notebook `train`: texts that are drawn, and cells whose code is not."""


def test_the_notebook_train_reads_well_and_shows_what_to_do_after_a_restart_and_what_was_trained_before(
    lab: JupyterLab, tmp_path: Path
) -> None:
    """Its parameters, the table of what differs, the check that is folded, samples, and commands that are filled in.

    On a folder as people have it; `evaluate` then scores what was trained.
    """
    found, unfolded, told, again = [], [], [], []

    def use(page: Page) -> None:
        page.set_viewport_size({"width": 1280, "height": 8000})  # lines out of sight are not drawn
        page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
        page.wait_for_timeout(1000)
        found.append(page.evaluate(READ))
        page.locator("details summary").click()
        unfolded.append(page.evaluate(READ)["rows"])
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.get_by_text("Restart Kernel…", exact=True).click()
        page.locator(".jp-Dialog button", has_text="Restart").click()
        page.wait_for_timeout(1000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
        cell = page.locator(".jp-CodeCell", has_text="result = train(config)")
        cell.locator(".jp-InputArea-editor").click()
        page.keyboard.press("Control+Enter")
        error = cell.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        error.wait_for(timeout=120_000)
        told.append(error.inner_text())
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Above Selected Cell", exact=True).click()
        cell.locator(".jp-InputArea-editor").click()
        page.keyboard.press("Control+Enter")
        cell.locator(".progress-bar-success").wait_for(timeout=120_000)
        again.append((cell.locator(".jp-OutputArea").inner_text(), page.evaluate(READ)["pictures"]))

    own = write_own_folder(tmp_path / "my data")
    changed = {"run": "read", "data_root": str(own), "epochs": 2, "progress": "auto"}
    seen = lab.run(
        ROOT / "notebooks" / "train.ipynb",
        parameters=TINY | changed,
        screenshot=PICTURES / "read.png",
        seconds=600,
        afterwards=use,
    )
    assert seen.errors == []
    (read,) = found
    assert re.search(r"minutes? on two CPU cores\. Pictures: ", read["first"])
    headings = [line for line in read["parameters"] if line.startswith("# --- ")]
    assert [line.strip("# -") for line in headings[:2]] == ["What people change first", "Data"]
    assert len(headings) == len(TrainParameters.groups())
    assert read["cut_off"] <= 0, "comments are cut off at the right edge"
    listed = [item.name for item in fields(TrainParameters)]
    differ = {"run", *(name for name, value in (TINY | changed).items() if value != DEFAULTS[name])}
    assert {*read["rows"]} & {*listed} == differ
    assert sorted({*unfolded[0]} & {*listed}) == sorted(listed)
    assert read["folded"] == [-1], "the check alone is folded"
    names = ("evaluate", "visualize_training", "render_gif", "profile")
    assert [(Path(path).stem, run) for path, run in read["next"]] == [(name, "read") for name in names]
    assert re.search(r"note: 2 steps in all, 1 per epoch, are few ", "\n".join(seen.printed))
    assert read["pictures"] == 2, "curves and samples of predictions"
    assert "\n".join(seen.printed).count("best val mIoU ") == 1
    (sentence,) = told
    assert sentence.strip().startswith("NameError: 'config' is not known: the cell above that sets it has not been run")
    assert len(sentence.strip().splitlines()) == 1
    ((text, pictures),) = again
    assert "finished before, nothing is left to train: best val mIoU " in text
    assert "after epoch 2 " in text
    assert pictures == 1, "the curves of the stored run"
    assert_scores_read_well(lab, "read")


OPENED = """() => {
    const shown = (element) => Boolean(element) && element.checkVisibility({visibilityProperty: true});
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];
    const code = cells.filter((cell) => cell.matches('.jp-CodeCell'));
    return {
        first: cells[0].innerText,
        folded: code.filter((cell) => !shown(cell.querySelector('.cm-editor'))).map((cell) => code.indexOf(cell)),
        lines: code.map((cell) => [...cell.querySelectorAll('.cm-line')].filter(shown).map((line) => line.innerText)),
        cut_off: Math.max(...[...document.querySelectorAll('.jp-CodeCell .cm-scroller')].filter(shown)
            .map((scroller) => scroller.scrollWidth - scroller.clientWidth)),
    };
}"""
"""What a person sees of a notebook before any cell is run."""


def test_every_notebook_that_is_opened_says_what_comes_and_folds_its_checks(lab: JupyterLab) -> None:
    """The first cell says how long it takes and which pictures come; no line of code is cut off at the right edge.

    Cells that serve the tests alone are folded, all others are short.
    """
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(paths) >= 23
    with lab.without_kernels(ROOT / "notebooks") as show:
        for path in paths:
            assert_opened_well(path, show(path.name))


BROKEN_WORDS = """() => [...document.querySelectorAll('.jp-OutputArea-output pre')].map((pre) => {
    const walker = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT), range = document.createRange(), words = [];
    const lines = () => new Set([...range.getClientRects()].map((part) => Math.round(part.top))).size;
    for (let node = walker.nextNode(); node; node = walker.nextNode())
        for (const word of node.data.matchAll(/\\S+/g)) {
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            words.push([word[0], lines()]);
        }
    range.selectNodeContents(pre);
    const broken = words.filter(([_, lines]) => lines > 1).map(([word]) => word);
    return {lines: lines(), words: words.length, broken: broken, cut_off: pre.scrollWidth - pre.clientWidth};
})"""
"""Of each printed text: its lines on the page, the words that are on two of them, and how much is out of sight."""


def test_long_messages_break_at_spaces_and_only_what_is_longer_than_a_line_inside(
    lab: JupyterLab, tmp_path: Path
) -> None:
    path = "data/" + 60 * "a_folder/" + "street_002.png"
    said = f"error: {path}: holds the ids {', '.join(map(str, range(1000, 1150)))}, which are no ids of classes\n"
    outputs = [nbformat.v4.new_output("stream", name=name, text=said) for name in ("stdout", "stderr")]
    cells = [nbformat.v4.new_code_cell("print()", outputs=[output]) for output in outputs]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "long.ipynb")
    with lab.without_kernels(tmp_path) as show:
        page = show("long.ipynb")
        page.locator(".jp-OutputArea-output pre").nth(1).wait_for()
        for seen in page.evaluate(BROKEN_WORDS):
            assert seen["lines"] > 5
            (broken,) = seen["broken"]
            assert "a_folder" in broken
            assert seen["cut_off"] <= 0


def assert_opened_well(path: Path, page: Page) -> None:
    """Check what a person sees of a notebook that has just been opened."""
    name, cells = path.name, [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    page.set_viewport_size({"width": 1280, "height": 8000})  # lines out of sight are not drawn
    page.locator(".jp-MarkdownCell em", has_text="on two CPU cores").first.wait_for(timeout=60_000)
    page.locator(".jp-CodeCell").nth(len(cells) - 2).locator(".cm-line").first.wait_for(timeout=60_000)
    page.wait_for_timeout(500)
    seen = page.evaluate(OPENED)
    assert re.search(r"(minute|second).* on two CPU cores", seen["first"]), name
    assert re.search(r"Pictures?: ", seen["first"]), name
    checks = [index for index, cell in enumerate(cells) if "check" in cell.metadata.get("tags", [])]
    assert checks == [len(cells) - 1], name
    assert seen["folded"] == checks, name
    assert seen["cut_off"] <= 0, f"{name}: code is cut off at the right edge"
    first, *others = seen["lines"]
    assert first == cells[0].source.split("\n"), name
    assert max(map(len, others)) <= 15, f"{name}: plumbing"
    assert not [line for lines in others for line in lines if re.match(r"(def|class|try|with|while) ", line)], name


def assert_scores_read_well(lab: JupyterLab, run: str) -> None:
    """Run `evaluate`: names are shown as they are, every figure is seen, and scores are saved before anything else."""
    tables = []
    seen = lab.run(
        ROOT / "notebooks" / "evaluate.ipynb",
        parameters={"run": run, "threads": 1, "device": "cpu"},
        screenshot=PICTURES / "evaluate.png",
        seconds=600,
        afterwards=lambda page: tables.append(page.locator("table").all_inner_texts()),
    )
    assert seen.errors == [], "a name that no font has is no warning"
    assert seen.figures == 6, "classes, confusion, edges, distances, calibration, examples"
    rows = [line.split("\t")[0] for line in "\n".join(tables[0]).splitlines()]
    assert {*COLORS} <= {*rows}, "a name is shown as a formula"
    saved = [line for text in seen.printed for line in text.splitlines() if line.endswith("evaluation.json")]
    assert [*map(Path, saved)] == [lab.workspace / "outputs" / run / "evaluation.json"] * 2, (
        "the second protocol is off"
    )


def test_a_misspelled_name_in_the_parameters_cell_stops_the_notebook_with_one_line(
    tmp_path: Path, lab: JupyterLab
) -> None:
    """As a person types it; papermill would refuse it before a kernel starts."""
    notebook = nbformat.read(ROOT / "notebooks" / "train.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "epochs: int = 17" in cell.source
    cell.source = cell.source.replace("epochs: int = 17", "epoch: int = 3")
    nbformat.write(notebook, tmp_path / "train.ipynb")
    seen = lab.run(tmp_path / "train.ipynb", screenshot=PICTURES / "misspelled.png", seconds=600)
    (told,) = seen.errors
    assert told.startswith("ParameterError: unknown parameter 'epoch': did you mean 'epochs'? ")
    assert len(told.splitlines()) == 1
    assert seen.run == 2
    assert not seen.changed, "a notebook that was only opened is shown as changed"


ENDLESS = TINY | {"epochs": 10_000, "progress": "auto", "checkpoint_minutes": 10.0}


def test_a_stop_ends_training_with_a_checkpoint_and_looks_like_a_wish_that_was_followed(
    city: Path, lab: JupyterLab
) -> None:
    """The click arrives while the cell runs: otherwise, ten thousand epochs would pass first.

    Run again and, as after a closed browser, once more while it runs, the cell shows at once how it is doing.
    """
    states, waiting = [], []

    def run_twice(page: Page) -> None:
        states.append(load_checkpoint(lab.workspace / "saved" / "stopped" / "checkpoints" / "last.pt"))
        cell = page.locator(".jp-CodeCell", has_text="result = train(config)")
        for seen in ("button.jupyter-button:enabled", "text=This cell is running in this kernel already"):
            cell.locator(".jp-InputArea-editor").click()
            page.keyboard.press("Control+Enter")
            cell.locator(seen).wait_for(timeout=120_000)
        cell.locator(".jp-OutputArea img").wait_for()  # the curves, as a picture
        waiting.append(cell.locator(".jp-OutputArea").inner_text())
        page.keyboard.press("Escape")
        page.keyboard.press("i")
        page.keyboard.press("i")
        cell.get_by_text("Stopped after step", exact=False).first.wait_for(timeout=60_000)

    seen = lab.run(
        ROOT / "notebooks" / "train.ipynb",
        parameters=ENDLESS | {"run": "stopped", "data_root": str(city)},
        screenshot=PICTURES / "stopped.png",
        press="Stop",
        seconds=600,
        afterwards=run_twice,
    )
    assert seen.errors == []
    assert seen.red_bars == 0
    assert seen.started < seen.cells, "the cells below have run"
    (state,) = states
    assert state["epoch"] < 10_000
    step = state["epoch"] * STEPS_PER_EPOCH + state["step"]
    told = f"Stopped after step {step} of {10_000 * STEPS_PER_EPOCH}. Run this cell again to resume."
    assert [text for text in seen.printed if "topped" in text.replace("run: stopped", "")] == [told]
    assert "StoppedError" not in "".join(seen.printed)
    assert told in seen.looks[-1].text
    assert "The square in the toolbar stops both." in waiting[0]
    assert re.search(r"epoch \d+/10000", waiting[0])


def stopped_elsewhere(lab: JupyterLab, notebook: str, training: dict[str, object], opened: dict[str, object]) -> Seen:
    """Train in another process, follow it in a notebook that is opened with other parameters, and press Stop there.

    The training is held after its first epoch until Stop is pressed: the browser wants the core.
    """
    folder = lab.workspace / "saved" / training["run"]
    words = [word for name, value in training.items() for word in ("-p", name, str(value))]
    environment = os.environ | {"DLV3P_WORKSPACE": str(lab.workspace)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dlv3p", "train", *words], env=environment, text=True, stderr=subprocess.PIPE
    )
    try:
        while not (folder / "metrics.csv").is_file():
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)
        seen = lab.run(
            ROOT / "notebooks" / f"{notebook}.ipynb",
            parameters=opened,
            screenshot=PICTURES / f"{notebook}_elsewhere.png",
            press="Stop",
            press_after="epoch",
            before_press=lambda: process.send_signal(signal.SIGCONT),
            seconds=600,
        )
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    run = re.escape(training["run"])
    assert re.fullmatch(rf"error: run='{run}': stopped after step \d+ of 30000; run again to continue\n", told)
    assert seen.errors == []
    assert seen.red_bars == 0
    assert seen.images == 1
    assert re.search(rf"process {process.pid} on \S+ since .* is training ", "\n".join(seen.printed))
    return seen


def epochs_of(folder: Path) -> int:
    """How many epochs the last checkpoint of a run has."""
    return len(load_checkpoint(folder / "checkpoints" / "last.pt")["history"])


def test_running_the_cell_again_attaches_to_the_training_of_another_process(city: Path, lab: JupyterLab) -> None:
    """As after a closed browser: the curves are seen again, and Stop reaches the process that trains."""
    parameters = ENDLESS | {"run": "elsewhere", "data_root": str(city)}
    printed = "\n".join(stopped_elsewhere(lab, "train", parameters, parameters).printed)
    epochs = epochs_of(lab.workspace / "saved" / "elsewhere")
    assert "this cell follows it" in printed
    assert f"Stopped elsewhere after epoch {epochs} of 10000. Run this cell again to resume." in printed


def test_a_fresh_notebook_watches_the_training_of_another_process_and_shows_its_film(
    city: Path, lab: JupyterLab
) -> None:
    """Without being told which run; after Stop, the cells below show what it has learned until then."""
    parameters = ENDLESS | {"run": "watched", "data_root": str(city), "film": True}
    seen = stopped_elsewhere(lab, "watch", parameters, {})
    assert seen.run == seen.cells
    assert seen.figures == 2, "the film and the curves"
    epochs = epochs_of(lab.workspace / "saved" / "watched")
    told = f"watched is stopped, after epoch {epochs} of 10000"
    assert told in seen.looks[-1].text
    pictures = sorted((lab.workspace / "outputs" / "watched" / "film").iterdir())
    assert len(pictures) in (epochs, epochs + 1)  # it may be stopped in a validation
    assert (lab.workspace / "outputs" / "watched" / "learning.gif").is_file()


@pytest.fixture(params=["a folder", "four channels"])
def pictures(request: pytest.FixtureRequest, city: Path, lab: JupyterLab, tmp_path: Path) -> dict[str, str]:
    """A run and images to predict, the first of which is damaged: of the city, or of 12 bits in four channels."""
    images, run = tmp_path / "images", TRAINED_RUN
    if request.param == "a folder":
        (images / "a city").mkdir(parents=True)
        names = "cost $5 or $6, first.png", "cost $5 or $6, second.png"
        for name, path in zip(names, sorted((city / "leftImg8bit" / "val").rglob("*.png")), strict=False):
            shutil.copy(path, images / "a city" / name)
    else:
        root, run = write_folder(tmp_path / "data", channels=4), "channels"
        with (root / "data.yaml").open("a") as file:
            file.write("value_range: [0, 4095]\nmean: [500, 500, 500, 2000]\ndeviation: [300, 300, 300, 1500]\n")
        train(tiny(root, run=run, epochs=1, **SWITCHES))
        shutil.copytree(root / "images" / "val", images)
    (images / "0 damaged.png").write_bytes(b"\x89PNG")
    return {"run": run, "images": str(images)}


def picture_on(page: Page) -> np.ndarray:
    """Return the last picture among the widgets, RGB."""
    content = base64.b64decode(page.evaluate(PIXELS).split(",")[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def changed_picture(page: Page, act: Callable[[], None]) -> np.ndarray:
    """Do something, wait until the picture is another one, at most a minute, and return it."""
    before = page.evaluate(PIXELS)
    act()
    end = time.monotonic() + 60
    while page.evaluate(PIXELS) == before and time.monotonic() < end:
        page.wait_for_timeout(200)
    return picture_on(page)


def test_the_controls_over_predictions_change_the_picture(lab: JupyterLab, pictures: dict[str, str]) -> None:
    """Next shows another image, a class that is off is no longer drawn, and Previous with it on is the first again.

    Confidence darkens the picture, and at opacity 0 it is the image alone. A name with two `$` is shown as it is, not
    as a formula.
    """
    drawn, row = {}, []

    def use(page: Page) -> None:
        table = pd.read_csv(lab.workspace / "outputs" / pictures["run"] / "predict_images" / "predictions.csv")
        shares = table.filter(like="share of ").iloc[0]
        row.append(table["image"][0])
        most = shares.idxmax().removeprefix("share of ")
        assert page.evaluate(CLIPPED) == [], "a text that does not fit into its place"
        button, box = page.locator("button.jupyter-button"), page.get_by_label(most, exact=True)
        sure, opacity = page.get_by_label("confidence", exact=True), page.locator(".widget-readout").last
        (title,) = page.locator(".widget-label", has_text=f"(1 of {len(table)})").all()
        assert title.text_content() == f"{row[0]}  (1 of {len(table)})"
        drawn["first"] = picture_on(page)
        for name, act in (
            ("next", button.filter(has_text="Next").click),
            ("previous", button.filter(has_text="Previous").click),
            ("without", box.uncheck),
            ("with", box.check),
            ("sure", sure.check),
            ("unsure", sure.uncheck),
            ("plain", lambda: (opacity.fill("0"), opacity.press("Enter"))),
        ):
            drawn[name] = changed_picture(page, act)

    seen = lab.run(
        ROOT / "notebooks" / "predict.ipynb",
        parameters={**pictures, "confidence": True, "threads": 1, "device": "cpu"},
        screenshot=PICTURES / "predict.png",
        seconds=600,
        afterwards=use,
    )
    (error,) = seen.errors  # of the last cell, behind which nothing is left undone
    assert re.match(r"ProblemsError: .*predict_images: not predicted: .*0 damaged\.png: cannot be read", error)
    assert any("0 damaged.png: cannot be read" in text for text in seen.printed)
    first = drawn["first"]
    assert not any(np.array_equal(drawn[name], first) for name in ("next", "without", "sure", "plain"))
    assert all(np.array_equal(drawn[name], first) for name in ("previous", "with", "unsure"))
    assert (drawn["sure"] <= first).all()
    (path,) = Path(pictures["images"]).rglob(f"{Path(str(row[0])).name}.*")
    rule = load_saved(pictures["run"], device="cpu", threads=1).rule
    assert np.array_equal(drawn["plain"], as_image(path, rule).convert("RGB"))


def test_the_frames_of_a_video_are_browsed_one_by_one(lab: JupyterLab, tmp_path: Path) -> None:
    """Next shows the next frame under what was predicted of it, and at opacity 0 that frame alone, in its color."""
    colors = np.array([(180, 40, 40), (40, 160, 40), (40, 40, 180)], np.uint8)
    ramp = np.linspace(0.5, 1.2, 96)[None, :, None]
    write_video(
        [(ramp * np.tile(color, (64, 1, 1))).astype(np.uint8) for color in colors], tmp_path / "drive.mp4", rate=5
    )
    drawn, titles = [], []

    def use(page: Page) -> None:
        following = page.locator("button.jupyter-button").filter(has_text="Next")
        opacity = page.locator(".widget-readout").last
        drawn.append(picture_on(page))
        drawn.append(changed_picture(page, following.click))
        drawn.append(changed_picture(page, lambda: (opacity.fill("0"), opacity.press("Enter"))))
        drawn.append(changed_picture(page, following.click))
        titles.extend(page.locator(".widget-label", has_text="of 3)").all_text_contents())

    seen = lab.run(
        ROOT / "notebooks" / "predict.ipynb",
        parameters={"run": TRAINED_RUN, "images": str(tmp_path / "drive.mp4"), "ids": "train", "device": "cpu"},
        screenshot=PICTURES / "predict_video.png",
        seconds=600,
        afterwards=use,
    )
    assert seen.errors == []
    assert titles == ["frame_000002  (3 of 3)"]
    frames = list(open_video(tmp_path / "drive.mp4").frames())
    ids = lab.workspace / "outputs" / TRAINED_RUN / "predict_drive" / "ids"
    for number in (0, 1):
        labels = read_ids(ids / f"frame_{number:06d}.png")
        assert np.array_equal(drawn[number], overlay(frames[number], labels, alpha=0.5)), f"frame {number}"
    assert all(np.array_equal(shown, frame) for shown, frame in zip(drawn[2:], frames[1:], strict=True))
    assert [shown.mean((0, 1)).argmax() for shown in drawn[2:]] == [1, 2], "green, then blue"
