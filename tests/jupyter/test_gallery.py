"""The gallery shows executed notebooks without the network, and executes only what is newer than its page."""

import os
import re
import shutil

import nbformat
import pytest

from cityscapes.errors import ParameterError
from dlv3p.jupyter import gallery

SOURCES = (
    "# A title & more\n\n**What is the question?** A sentence.",
    "from PIL import Image\nprint('a line'); Image.new('RGB', (900, 300), (200, 30, 30))",
    "The formula $x^2$ stays readable.",
)


@pytest.fixture
def notebooks(tmp_path, monkeypatch, workspace):
    """A folder with two small notebooks in place of the suite's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("first", "second"):
        kinds = (nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell)
        cells = [new_cell(source) for new_cell, source in zip(kinds, SOURCES, strict=True)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    monkeypatch.setattr(gallery, "NOTEBOOKS", folder)
    return folder


def test_pages_and_index_load_nothing_from_elsewhere_and_show_the_pictures(notebooks, workspace, capfd):
    index = gallery.write_gallery()
    assert index == workspace / "outputs" / "gallery" / "index.html"
    text = index.read_text()
    assert text.count("<article>") == 2
    assert "A title &amp; more" in text
    assert "What is the question?" in text
    for name in ("first", "second"):
        assert (index.parent / "thumbnails" / f"{name}.png").is_file()
        page = (index.parent / f"{name}.html").read_text()
        assert "data:image/png;base64," in page
        assert "a line" in page
        for content in (page, text):
            assert not re.search(r"""(?:src|href)=["'](?:https?:)?//|import .* from ["']https?:|@import""", content)


def test_a_page_that_is_newer_than_its_notebook_is_left_alone(notebooks, workspace, capfd):
    gallery.write_gallery(["first"])
    page = workspace / "outputs" / "gallery" / "first.html"
    before = page.stat().st_mtime_ns
    assert gallery.main(["first"]) == 0
    assert page.stat().st_mtime_ns == before
    assert "first: its page is up to date" in capfd.readouterr().out
    os.utime(notebooks / "first.ipynb", ns=(before + 10**9, before + 10**9))
    gallery.write_gallery(["first"])
    assert page.stat().st_mtime_ns != before


def test_an_unknown_notebook_is_named_with_those_that_exist(notebooks):
    with pytest.raises(ParameterError, match="'third': no such notebook; there are first, second"):
        gallery.write_gallery(["third"])


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium: apt-get install chromium")
def test_the_index_opens_from_disk_with_the_network_off(notebooks, workspace, capfd):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    index = gallery.write_gallery()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        page, asked, errors = context.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(index.as_uri())
        assert page.locator("article img").first.evaluate("image => image.naturalWidth") == gallery.THUMBNAIL
        page.locator("article a").first.click()
        page.wait_for_load_state()
        picture = page.locator("img").first
        assert picture.is_visible()
        assert picture.evaluate("image => image.naturalWidth") == 900
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []
