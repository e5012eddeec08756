"""Open a notebook in JupyterLab in a real browser, run all cells, and report what a user would see.

    python tests/browser/run_notebook.py notebooks/quickstart.ipynb --set epochs=2 --screenshot quickstart.png

Needs Debian's `chromium` and the Python package playwright, and downloads no browser. The notebook is a copy in a
temporary folder, as are Jupyter's settings and what the notebook writes.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from playwright.sync_api import BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
MAKEFILE = Path(__file__).parents[2] / "Makefile"
TOKEN = secrets.token_hex(32)
"""A secret of this run: the server is open to everyone on this machine."""
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # draw all cells, also those out of sight
}
JUPYTERLAB = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
from jupyter_client.provisioning import local_provisioner
from jupyterlab.labapp import main
from support.kernels import Kernels
local_provisioner.launch_kernel = Kernels().launch
main()
"""
"""JupyterLab, whose kernels are forked from a process that has imported torch."""
SEEN = """() => {
    const all = (selector) => [...document.querySelectorAll('.jp-Notebook ' + selector)];
    const visible = (element) => element.checkVisibility({opacityProperty: true, visibilityProperty: true});
    const large = (image) => image.naturalWidth > 100 && visible(image) && image.getBoundingClientRect().height > 100;
    // A folded cell has no prompt; the kernel is idle once it has run, too.
    const code = all('.jp-CodeCell').filter((cell) => cell.querySelector('.jp-InputArea-prompt'));
    const prompt = (cell) => cell.querySelector('.jp-InputArea-prompt').textContent;
    return {
        cells: code.length,
        started: code.filter((cell) => /[\\d*]/.test(prompt(cell))).length,
        run: code.filter((cell) => /\\d/.test(prompt(cell))).length,
        errors: all('[data-mime-type="application/vnd.jupyter.stderr"]').map((output) => output.textContent.trim()),
        bars: all('.jupyter-widgets .progress-bar').filter(visible).length,
        full_bars: all('.jupyter-widgets .progress-bar-success').filter(visible).length,
        red_bars: all('.jupyter-widgets .progress-bar-danger').filter(visible).length,
        images: all('img.widget-image').filter(large).length,
        figures: all('.jp-RenderedImage img').filter(large).length,
        printed: all('[data-mime-type="application/vnd.jupyter.stdout"]').map((output) => output.textContent.trim()),
    };
}"""
LOOK = """() => {
    const all = [...document.querySelectorAll('.jp-Notebook .widget-hbox')];
    const boxes = all.filter((box) => box.querySelector('.progress'));
    const box = boxes[boxes.length - 1];
    const image = document.querySelector('.jp-Notebook img.widget-image');
    return {
        text: box ? [...box.querySelectorAll('.widget-label')].map((label) => label.textContent).join('') : null,
        share: box ? box.querySelector('.progress-bar').getBoundingClientRect().width : 0,
        height: image && image.checkVisibility({visibilityProperty: true}) ? image.getBoundingClientRect().height : 0,
        picture: image ? image.src : '',
        idle: document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle',
    };
}"""

KERNEL_KNOWN = """async () => {
    const context = window.jupyterapp.shell.currentWidget?.sessionContext;
    await context?.ready;
    await context?.session?.kernel?.info;
}"""
"""Wait until the kernel has said what it is, which JupyterLab writes into the notebook: it looks idle before."""
OPEN = "async (path) => { await window.jupyterapp.commands.execute('docmanager:open', {path}); }"
"""Show a notebook in a page of JupyterLab that is open already."""
CLIPPED = """() => [...document.querySelectorAll('.jp-Notebook .jupyter-widgets')]
    .filter((part) => part.matches('button, .widget-label') && part.scrollWidth > part.clientWidth)
    .map((part) => part.textContent)"""
"""The texts of buttons and labels of which a part is cut off."""


@dataclass(frozen=True)
class Look:
    """A look at the page while cells run: the newest bar's text and width, and the curves' height and picture."""

    text: str | None
    share: float
    height: float
    picture: str
    idle: bool


@dataclass(frozen=True)
class Seen:
    """What the page shows: code cells, how many started and finished, error texts, widget bars and images, figures.

    Errors are everything shown in red: exceptions, which JupyterLab draws like any text on stderr, and warnings.
    Only what a person sees is counted: an image of no height is none. `looks` are those while the cells ran, and
    `changed` says whether the notebook was shown as changed, by a dot beside its name, before any cell was run.
    """

    cells: int
    started: int
    run: int
    errors: list[str]
    bars: int
    full_bars: int
    red_bars: int
    images: int
    figures: int
    printed: list[str]
    looks: list[Look]
    changed: bool


@dataclass(frozen=True)
class JupyterLab:
    """A server and a browser, in which one notebook after the other is opened and run."""

    url: str
    folder: Path
    workspace: Path
    browser: BrowserContext

    def run(
        self,
        notebook: Path,
        *,
        parameters: Mapping[str, Any] | None = None,
        screenshot: Path,
        seconds: float = 300,
        press: str = "",
        press_after: str = "",
        before_press: Callable[[], None] = lambda: None,
        afterwards: Callable[[Page], None] | None = None,
    ) -> Seen:
        """Run all cells of a copy of `notebook`, with other parameters if given, and return what the page then shows.

        Saves a screenshot of the whole notebook. What the notebook writes goes to `workspace`. A widget's button with
        the text `press` is clicked as soon as it appears and the bar's text has `press_after` in it, and `before_press`
        called just before; `afterwards` gets the page when all cells have run. Raises TimeoutError if the notebook has
        not finished after so many seconds.
        """
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / notebook.name
        papermill.execute_notebook(notebook, copy, parameters, prepare_only=True)
        forget_outputs(copy)
        page = self.browser.new_page()
        page.goto(f"{self.url}lab/tree/{copy.relative_to(self.folder)}?token={TOKEN}&reset")
        try:
            seen = run_all_cells(page, seconds, press=press, press_after=press_after, before_press=before_press)
            if afterwards is not None:
                afterwards(page)
        finally:
            take_picture(page, screenshot)
            page.close()
            self.end_kernels()
        return seen

    @contextmanager
    def without_kernels(self, notebooks: Path) -> Iterator[Callable[[str], Page]]:
        """Yield a function that shows a copy of one of the notebooks of a folder, as stored, and returns the page.

        All share one page, and no kernel starts: what asks the server for one is left without an answer.
        """
        copies = Path(tempfile.mkdtemp(dir=self.folder))
        for path in notebooks.glob("*.ipynb"):
            shutil.copy(path, copies)
        page = self.browser.new_page()
        page.route("**/api/sessions*", lambda route: None if route.request.method == "POST" else route.continue_())
        page.goto(f"{self.url}lab?token={TOKEN}&reset")
        page.wait_for_function("window.jupyterapp !== undefined", timeout=120_000)
        page.evaluate("window.jupyterapp.restored.then(() => null)")

        def show(name: str) -> Page:
            path = f"{copies.name}/{name}"
            page.evaluate("window.jupyterapp.commands.execute('application:close-all').then(() => null)")
            page.evaluate(OPEN, path)
            return page

        try:
            yield show
        finally:
            page.close()

    def end_kernels(self) -> None:
        """End the kernels that the server has started, which would outlive their pages."""
        request, authorized = self.browser.request, {"Authorization": f"token {TOKEN}"}
        for kernel in request.get(f"{self.url}api/kernels", headers=authorized).json():
            request.delete(f"{self.url}api/kernels/{kernel['id']}", headers=authorized)


@contextmanager
def jupyterlab(workspace: Path | None = None) -> Iterator[JupyterLab]:
    """Start a server and a browser; what notebooks write goes to `workspace`, if it has to be kept."""
    with tempfile.TemporaryDirectory(prefix="dlv3p-browser-") as temporary:
        folder = Path(temporary)
        workspace = workspace or folder / "workspace"
        with jupyter_server(folder, workspace) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
            context = browser.new_context(viewport={"width": 1280, "height": 1000})
            yield JupyterLab(url, folder / "notebooks", workspace, context)
            browser.close()


def forget_outputs(notebook: Path) -> None:
    """Remove the stored outputs of a notebook, so that everything seen is new."""
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(content, notebook)


@contextmanager
def jupyter_server(folder: Path, workspace: Path) -> Iterator[str]:
    """Start JupyterLab on `folder/notebooks` with settings of its own; yield its address, and stop it afterwards."""
    config = folder / "config" / "labconfig"
    config.mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (config / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    names = ("CONFIG", "DATA", "RUNTIME")
    environment = os.environ | {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in names}
    environment |= {"DLV3P_WORKSPACE": str(workspace), "JUPYTER_NO_CONFIG": "", "JUPYTER_CONFIG_PATH": ""}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={TOKEN}"]
    options += re.search(r"^opened = (.+)$", MAKEFILE.read_text(), re.MULTILINE)[1].split()
    options += ["--LabApp.expose_app_in_browser=True"]
    options += [f"--ServerApp.root_dir={folder / 'notebooks'}", f"--LabApp.user_settings_dir={folder / 'settings'}"]
    with open(folder / "server.log", "w") as log:
        words = [sys.executable, "-c", JUPYTERLAB, *options]
        server = subprocess.Popen(words, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield server_url(server, folder)
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:  # seen once, of a server that never had a kernel; no test is about it
            server.kill()
            server.wait()


def server_url(server: subprocess.Popen, folder: Path, seconds: float = 180) -> str:
    """Wait until the server has written its address."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        for file in (folder / "runtime").glob("jpserver-*.json"):
            if (text := file.read_text()).endswith("}"):
                return json.loads(text)["url"]
        time.sleep(0.1)
    raise TimeoutError(f"JupyterLab did not start:\n{(folder / 'server.log').read_text()[-2000:]}")


def run_all_cells(
    page: Page, seconds: float, *, press: str = "", press_after: str = "", before_press: Callable[[], None]
) -> Seen:
    """Click Run > Run All Cells, and wait until every cell has run, one has failed, or the pressed button ended one."""
    end = time.monotonic() + seconds
    button = page.locator("button.jupyter-button:enabled", has_text=press)
    pressed, looks = False, []
    changed = start_cells(page)
    asked = time.monotonic()
    while time.monotonic() < end:
        seen = page.evaluate(SEEN)
        looks.append(look := Look(**page.evaluate(LOOK)))
        rests = all(earlier.idle for earlier in looks[-5:])
        if seen["errors"] or (seen["run"] == seen["cells"] > 0 and rests) or (pressed and rests):
            page.wait_for_timeout(1000)  # for the last pictures to arrive
            return Seen(**page.evaluate(SEEN), looks=looks, changed=changed)
        if not seen["run"] and time.monotonic() > asked + 20:
            page.reload()  # JupyterLab lost the request while it was connecting to the kernel
            start_cells(page)
            asked = time.monotonic()
        if press and not pressed and button.count() and (not press_after or press_after in (look.text or "")):
            before_press()
            button.click()
            pressed = True
        page.wait_for_timeout(100)
    raise TimeoutError(f"the notebook has not ended after {seconds:.0f} s: {seen}")


def start_cells(page: Page) -> bool:
    """Wait for the kernel, and run all cells; return whether the notebook is shown as changed before that.

    The first cell is quick, so it shows whether they run.
    """
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=240_000)
    page.evaluate(KERNEL_KNOWN)
    page.wait_for_timeout(2000)
    changed = page.locator(".jp-mod-dirty").count() > 0
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    return changed


def take_picture(page: Page, path: Path) -> None:
    """Save a screenshot of the whole notebook, in a window that is tall enough for it."""
    height = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-outer')].map((p) => p.scrollHeight))"
    )
    page.set_viewport_size({"width": 1280, "height": min(int(height) + 150, 12_000)})
    page.evaluate("document.querySelectorAll('.jp-WindowedPanel-outer').forEach((panel) => panel.scrollTo(0, 0))")
    page.wait_for_timeout(500)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)


def main() -> int:
    """Run one notebook and print what the page shows; exit with status 1 if a cell failed."""
    parser = argparse.ArgumentParser(description="Run a notebook in JupyterLab, in a browser.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter")
    parser.add_argument("--screenshot", type=Path, default=Path("outputs/browser/notebook.png"))
    parser.add_argument("--seconds", type=float, default=300, help="how long the notebook may take")
    words = parser.parse_args()
    parameters = {name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in words.set)}
    with jupyterlab() as lab:
        seen = lab.run(words.notebook, parameters=parameters, screenshot=words.screenshot, seconds=words.seconds)
    print(seen)
    return bool(seen.errors)


if __name__ == "__main__":
    sys.exit(main())
