"""Stored outputs show tables and pictures without what varies, and a comparison finds everything else that changes."""

import base64
import io

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from cityscapes.labels import TRAIN_ID_TO_COLOR
from dlv3p.jupyter.stored_outputs import (
    complaints,
    palette_png,
    prepare,
    settled,
    without_measurements,
    without_variation,
)
from dlv3p.training.cost import Cost


def stream(text, name="stdout"):
    """Return what a cell prints."""
    return new_output("stream", name=name, text=text)


def png(array):
    """Return an array as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shown", "stored"),
    [
        ("predict test   2/20  22.7 images/s\npredict test  20/20  1e+03 images/s  (eta 2 s)\nfolder\n", "folder\n"),
        ("evaluate val   4/40  (eta 41 s)\nevaluate val  40/40  7.7 s\nmIoU 0.55\n", "mIoU 0.55\n"),
        (
            "epoch  2/26  loss 2.42  lr 0.001  32.9 s  0.7 s waiting for data  (eta 3 min)\n",
            "epoch  2/26  loss 2.42  lr 0.001\n",
        ),
        ("   1  seed=0  new  about 26 s, 1.1 GiB of memory, 67 MiB of disk  run\n", "   1  seed=0  new  run\n"),
        ("4 to run; about 2 min of work, 51 s with 2 at once, 2.1 GiB of memory, 270 MiB of disk\n", "4 to run\n"),
        (
            "go\njob 10 (seed=9): finished\njob 2 (seed=1): finished\njob 1 (seed=0): finished\nend\n",
            "go\njob 1 (seed=0): finished\njob 2 (seed=1): finished\njob 10 (seed=9): finished\nend\n",
        ),
        ("/tmp/a-b/ws/outputs/run/val.gif, 2.5 MiB", "outputs/run/val.gif, 2.5 MiB"),
        ("street: /home/me/data/city/a.png: bad", "street: data/city/a.png: bad"),
        ("see https://example.org/me/data/x", "see https://example.org/me/data/x"),
        ("<Styler at 0x7f6e4a016150>", "<Styler>"),
        ("sha256 " + "0f" * 32, "sha256 <sha256>"),
        ("frames 40/41", "frames 40/41"),
    ],
)
def test_what_varies_is_left_out_and_all_else_stays(shown, stored):
    assert without_variation(shown) == stored
    assert without_variation(stored) == stored


def test_a_picture_becomes_a_palette_png_that_keeps_the_colors_of_classes():
    noise = np.random.default_rng(0).integers(0, 256, (600, 1600, 3), dtype=np.uint8)
    colors = np.asarray(TRAIN_ID_TO_COLOR)[:19, :3].astype(np.uint8)
    for index, color in enumerate(colors):
        noise[40:80, 80 * index : 80 * index + 60] = color
    small = Image.open(io.BytesIO(palette_png(png(noise))))
    assert (small.mode, small.format, small.size) == ("P", "PNG", (600, 225))
    seen = np.asarray(small.convert("RGB")).astype(int)
    for index, color in enumerate(colors):
        inside = seen[22, round((80 * index + 30) * 600 / 1600)]
        assert np.abs(inside - color).max() <= 8, index


def test_a_transparent_picture_lies_on_white_and_an_animation_shows_its_first_frame():
    clear = np.zeros((4, 4, 4), np.uint8)
    assert set(np.asarray(Image.open(io.BytesIO(palette_png(png(clear)))).convert("RGB")).ravel()) == {255}
    frames, buffer = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")], io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(palette_png(buffer.getvalue()))).convert("RGB").getpixel((0, 0))[0] > 240


TABLE = """<table><thead><tr><th></th><th colspan="2">ours</th><th>published: them</th></tr>
<tr><th>case</th><th>GMACs</th><th>ms</th><th>ms</th></tr></thead>
<tbody><tr><th>stride 8</th><td>1.4</td><td>25.7</td><td>33</td></tr>
<tr><th>p50_ms</th><td>1</td><td></td><td>2</td></tr></tbody></table>"""


def test_a_table_loses_what_was_measured_and_keeps_what_was_counted_or_published():
    stored = without_measurements(TABLE)
    assert "<td>1.4</td><td>…</td><td>33</td>" in stored
    assert "<td>…</td><td></td><td>…</td>" in stored
    assert "run the notebook to see it" in stored
    counted = TABLE.replace("ms<", "GMACs<")
    assert without_measurements(counted).endswith("<td>2</td></tr></tbody></table>")


def executed(*outputs, tags=()):
    """Return a notebook of one executed cell."""
    cell = new_code_cell("1", outputs=list(outputs), execution_count=7, metadata={"tags": list(tags), "execution": {}})
    return new_notebook(cells=[cell], metadata={"widgets": {}})


def test_a_notebook_is_stored_with_counts_one_stream_and_ids_of_its_own():
    styled = {"text/html": '<style>#T_ab12f {}</style><table id="T_ab12f"></table>', "text/plain": "<Styler at 0x12>"}
    picture = {"image/png": base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode(), "image/jpeg": "x"}
    notebook = executed(
        stream("a\n"), new_output("display_data", styled), new_output("display_data", picture), stream("b\n")
    )
    prepare(notebook)
    cell = notebook.cells[0]
    assert (cell.execution_count, "execution" in cell.metadata, "widgets" in notebook.metadata) == (1, False, False)
    text, table, image = cell.outputs
    assert text.text == "a\nb\n"
    assert table.data["text/html"].count("T_00010") == 2
    assert set(image.data) == {"image/png"}


def test_a_cell_of_measurements_keeps_its_texts_and_loses_its_figures():
    figure = {"image/png": base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode(), "text/plain": "<Figure>"}
    table = {"text/html": TABLE, "text/plain": "1.4 25.7"}
    notebook = executed(
        stream(f"measured with 2 threads: no other work was noticed\n{Cost(300, 1040, 0.25, 1300, 87)}\nsaved\n"),
        new_output("display_data", figure),
        new_output("display_data", table),
        tags=["nbval-ignore-output"],
    )
    prepare(notebook)
    text, only = notebook.cells[0].outputs
    assert text.text == "saved\n"
    assert set(only.data) == {"text/html"}
    assert "25.7" not in only.data["text/html"]


def differs(shown, stored, *, exact=False):
    """Return whether two outputs differ once they are settled."""
    return settled([shown], [stored], exact=exact) != settled([stored], [stored], exact=True)


def test_digits_may_differ_as_between_processors_and_nothing_else_may():
    assert not differs(stream("mIoU 0.5542 of 40\n"), stream("mIoU 0.5549 of 40\n"))
    assert differs(stream("mIoU 0.5542 of 40\n"), stream("mIoU 0.5582 of 40\n"))
    assert differs(stream("mIoU 0.5542 of 40\n"), stream("mIoU 0.5542 of 41\n"))
    assert differs(stream("mIoU 0.5542\n"), stream("IoU 0.5542\n"))
    assert differs(stream("0.55 0.55\n"), stream("0.55\n"))
    assert differs(stream("mIoU 0.5542\n"), stream("mIoU 0.5549\n"), exact=True)
    new, old = (new_output("display_data", {"text/plain": text}) for text in ("a 1.001", "a 1.000"))
    assert not differs(new, old)
    assert differs(new, old, exact=True)


def test_a_stream_of_progress_alone_is_no_output():
    assert settled([stream("evaluate  40/40  7.7 s\n")], [], exact=False) == []
    assert settled([stream("mIoU 0.5\n")], [], exact=False) != []


def test_stderr_warnings_and_loads_are_complained_about():
    assert complaints([stream("NumbaWarning: x", "stderr")]) == ["stderr: NumbaWarning: x"]
    assert complaints([stream("fine\nwarning: a file is gone\n")]) == ["warning: a file is gone"]
    assert complaints([stream("load average up to 3.1\n")]) == ["load average up to 3.1"]
    assert complaints([stream("mIoU 0.5\n"), new_output("display_data", {"text/plain": "x"})]) == []
