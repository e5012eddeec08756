"""Progress says where a job is: plain lines where nobody can see widgets, a bar and curves where somebody can."""

import io
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import run_kernel
from PIL import Image

from cityscapes import errors
from cityscapes.errors import ParameterError, StoppedError, TerminatedError
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime import progress, widgets
from dlv3p.runtime.callbacks import failure_reported
from dlv3p.runtime.cell_outputs import show_dollars
from dlv3p.runtime.lines import LineProgress, format_duration, track_with_lines
from dlv3p.runtime.progress import make_progress, track


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self):
        return self.now


ROW = {
    "epoch": 3, "train_loss": 1.23456, "val_loss": 1.11, "train_mIoU": 0.4, "val_mIoU": 0.3123,
    "learning_rate": 0.0093, "seconds": 12.34,
}  # fmt: skip


@pytest.fixture
def kernel(monkeypatch):
    """Pretend to be a notebook kernel whose launcher has no notebook's name in its environment."""
    shell = SimpleNamespace(kernel=object(), user_ns={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr(progress, "_environment_of", lambda process: {})
    return shell


@pytest.fixture
def shown(monkeypatch):
    """Collect what would be displayed in a notebook."""
    shown = []
    monkeypatch.setattr(progress, "in_kernel", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


def test_a_terminal_gets_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    assert progress.resolve_mode("auto") == "lines"


def test_widgets_are_lines_where_no_kernel_would_show_them(kernel, monkeypatch, capsys):
    assert progress.resolve_mode("widgets") == "widgets"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert progress.resolve_mode("widgets") == "lines"
    list(track(range(2), title="t", mode="widgets"))
    assert capsys.readouterr().out.startswith("t  2/2  ")


def test_a_kernel_without_a_notebooks_name_gets_lines(kernel):
    assert progress.resolve_mode("auto") == "lines"


def test_a_kernel_of_jupyter_server_gets_widgets(kernel, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/train.ipynb")
    assert progress.resolve_mode("auto") == "widgets"


def test_papermill_called_from_a_notebook_gets_lines(kernel, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/train.ipynb")
    monkeypatch.setattr(progress, "_environment_of", lambda process: {"JPY_SESSION_NAME": "notebooks/train.ipynb"})
    assert progress.resolve_mode("auto") == "lines"


def test_a_kernel_of_vs_code_gets_widgets(kernel):
    kernel.user_ns["__vsc_ipynb_file__"] = "train.ipynb"
    assert progress.resolve_mode("auto") == "widgets"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_environment_of_a_process_can_be_read():
    assert progress._environment_of(os.getpid())["PATH"]
    assert progress._environment_of(-1) == {}


def test_an_unknown_mode_is_refused():
    for refused in (make_progress, lambda mode: track([], mode=mode)):
        with pytest.raises(ParameterError, match="'bar' is not a mode; allowed are auto, widgets, lines, none"):
            refused("bar")


def test_an_epoch_is_one_line_with_what_varies_at_the_end(capsys):
    clock = Clock()
    lines = LineProgress(clock=clock)
    lines.on_start(40, 10, first_epoch=2)
    lines.on_step(2, 1, 0.5)
    clock.now = 10.0  # two of 39 epochs
    lines.on_epoch(ROW)
    expected = "epoch  3/40  loss 1.2346  val loss 1.1100  val mIoU 0.312  lr 0.0093  12.3 s  (eta 3 min)\n"
    assert capsys.readouterr().out == expected


def test_values_that_are_absent_or_nan_are_left_out_of_the_line(capsys):
    lines = LineProgress()
    lines.on_start(3, 10)
    lines.on_epoch({"epoch": 3, "train_loss": 1.0, "val_loss": math.nan, "val_mIoU": None})
    lines.on_finish("done")
    assert capsys.readouterr().out == "epoch 3/3  loss 1.0000\ndone\n"


def test_a_stop_is_left_to_whoever_reports_the_error(capsys):
    LineProgress().on_stop("Stopped after step 5 of 120. Run this cell again to resume.")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (91, "2 min"), (5000, "83 min"), (7500, "2 h 05 min")]
)
def test_durations_read_as_a_person_would_say_them(seconds, text):
    assert format_duration(seconds) == text


def test_none_prints_nothing(capsys):
    silent = make_progress("none")
    silent.on_start(1, 1)
    silent.on_step(1, 1, 0.5)
    silent.on_epoch(ROW)
    silent.on_failure("no")
    silent.on_finish("yes")
    assert list(track(range(3), mode="none")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mode", ["lines", "widgets", "none"])
@pytest.mark.parametrize("items", [[], [1], list(range(250)), iter(range(5))])
def test_track_passes_every_item_on(mode, items, shown):
    items, expected = (iter(range(5)), list(range(5))) if not isinstance(items, list) else (items, list(items))
    assert list(track(items, title="t", mode=mode)) == expected


@pytest.mark.parametrize(("pace", "lines"), [(1.0, 10), (0.04, 5), (0.004, 1)])
def test_track_prints_about_ten_lines_and_the_end_and_fewer_in_a_few_seconds(capsys, pace, lines):
    clock = Clock()
    for _ in track_with_lines(range(250), 250, "evaluate val", clock):
        clock.now += pace
    told = capsys.readouterr().out.splitlines()
    assert len(told) == lines
    assert told[-1].startswith("evaluate val  250/250  ")


def test_track_says_how_much_is_done(capsys):
    clock = Clock()
    for _ in track_with_lines(range(250), 250, "evaluate val", clock):
        clock.now += 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("evaluate val   25/250")
    assert lines[-1].startswith("evaluate val  250/250  ")


def test_the_bar_is_updated_at_most_five_times_a_second():
    clock = Clock()
    bar = widgets.Bar(1000, "t", clock=clock)
    seen = []
    bar.text.observe(lambda change: seen.append(change["new"]), "value")
    for done in range(1, 1001):
        clock.now = done / 1000
        bar.update(done, f"{done}/1000")
    assert 4 <= len(seen) <= 6


def test_a_resumed_run_counts_its_time_from_where_it_went_on():
    clock = Clock()
    bar = widgets.Bar(100, "t", clock=clock)
    bar.begin_at(90)
    clock.now = 5.0
    bar.update(95)
    assert "eta 5 s" in bar.text.value
    assert bar.bar.value == 95


@pytest.mark.parametrize("rows", [[], [ROW | {"epoch": 1, "seconds": 12.0}]], ids=["first epoch", "second epoch"])
def test_the_time_left_after_a_resume_follows_from_the_steps_that_were_taken_since(shown, rows):
    """Resumed after step 7 of 10: the first step takes long, all others a second, the validation two."""
    clock, first = Clock(), len(rows) + 1
    live = widgets.WidgetProgress(history=rows, clock=clock)
    live.on_start(4, 10, first)
    text = shown[0].children[0].children[-1]
    told = []
    for step, seconds in ((8, 30.0), (9, 1.0), (10, 1.0)):
        clock.now += seconds
        live.on_step(first, step, 0.5)
        told.append(text.value.partition("eta ")[2])
    left = 12 * (4 - first) + 2  # seconds, after the last step
    assert all(abs(int(eta.removesuffix(" s")) - left) < 10 for eta in told[bool(not rows) :]), told
    assert bool(told[0]) == bool(rows), "of a first step alone, no pace is known"


def test_a_run_resumed_in_a_validation_or_by_a_gpu_tells_no_wild_time(shown):
    """Nothing but images is seen of an epoch, or ten steps at once."""
    clock = Clock()
    for begin in (lambda live: live.on_image(1, 2, 3), lambda live: [live.on_step(1, step, 0.5) for step in range(11)]):
        live = widgets.WidgetProgress(clock=clock)
        live.on_start(5, 40)
        clock.now += 3
        begin(live)
        assert "eta" not in shown[-1].children[0].children[-1].value
    for step in range(11, 21):
        clock.now += step == 11  # ten steps a second
        live.on_step(1, step, 0.5)
    clock.now += 0.3
    live.on_step(1, 21, 0.5)
    assert 15 < int(shown[-1].children[0].children[-1].value.partition("eta ")[2].removesuffix(" s")) < 25


@pytest.mark.parametrize("begin", [lambda lines: lines.on_step(3, 9, 0.5), lambda lines: lines.on_image(3, 1, 3)])
def test_the_rest_of_an_epoch_is_no_pace(capsys, begin):
    """The line of an epoch that was resumed within takes the time left from its row, later ones from the clock."""
    clock = Clock()
    lines = LineProgress(clock=clock)
    lines.on_start(40, 10, first_epoch=3)
    clock.now = 1.0
    begin(lines)
    lines.on_epoch(ROW)
    clock.now += 10
    lines.on_epoch(ROW | {"epoch": 4})
    etas = [line.partition("eta ")[2] for line in capsys.readouterr().out.splitlines()]
    assert etas == [f"{format_duration(37 * 12.34)})", f"{format_duration(36 * 10)})"]


def run_widgets(clock, epochs=4):
    live = widgets.WidgetProgress(clock=clock)
    live.on_start(epochs, 2)
    for epoch in range(1, epochs + 1):
        for step in (1, 2):
            clock.now += 1
            live.on_step(epoch, step, 0.5)
        live.on_epoch(ROW | {"epoch": epoch})
    return live


def test_a_bar_ends_full_and_green_and_its_message_is_also_printed(shown, capsys):
    live = run_widgets(Clock())
    live.on_finish("best val mIoU 0.5 at epoch 3")
    bar, _, curves = shown[0].children
    assert bar.children[0].bar_style == "success"
    assert bar.children[0].value == bar.children[0].max == 8
    assert bytes(curves.value).startswith(b"\x89PNG")
    assert capsys.readouterr().out == "best val mIoU 0.5 at epoch 3\n"


def test_the_curves_are_seen_from_the_first_epoch_on_and_not_before(shown):
    live = widgets.WidgetProgress(clock=Clock())
    live.on_start(4, 2)
    curves = shown[0].children[2]
    live.on_step(1, 1, 0.5)
    assert (curves.layout.visibility, curves.layout.height, bytes(curves.value)) == ("hidden", "0px", b"")
    live.on_epoch(ROW | {"epoch": 1})
    assert curves.layout.visibility == "visible"
    assert int(curves.layout.height.removesuffix("px")) > 100
    width, height = Image.open(io.BytesIO(curves.value)).size
    assert int(curves.layout.height[:-2]) / int(curves.layout.width[:-2]) == pytest.approx(height / width, rel=0.01)


def test_the_curves_of_a_resumed_run_begin_with_its_earlier_epochs(shown):
    live = widgets.WidgetProgress(history=[ROW | {"epoch": 1}, ROW | {"epoch": 2}], clock=Clock())
    live.on_start(4, 2, 3)
    curves = shown[0].children[2]
    before = bytes(curves.value)
    assert curves.layout.visibility == "visible"
    assert before == widgets.draw_curves([ROW | {"epoch": 1}, ROW | {"epoch": 2}], 4)
    live.on_epoch(ROW | {"epoch": 3})
    live.on_finish()
    assert bytes(curves.value) == widgets.draw_curves([ROW | {"epoch": epoch} for epoch in (1, 2, 3)], 4)


def test_curves_that_take_long_to_draw_are_at_most_ten_seconds_old(shown, monkeypatch):
    clock, drawn = Clock(), []

    def draw(rows, epochs):
        clock.now += 0.5
        drawn.append(len(rows))
        return b""

    monkeypatch.setattr(widgets, "draw_curves", draw)
    live = widgets.WidgetProgress(clock=clock)
    live.on_start(9, 2)
    for epoch in range(1, 10):
        live.on_epoch(ROW | {"epoch": epoch})
        clock.now += 4
    assert drawn == [1, 4, 7]


def test_an_interrupted_bar_turns_red_and_stays_where_it_was(shown):
    clock = Clock()
    live = run_widgets(clock, epochs=2)
    live._bar.done = 3
    live.on_failure("interrupted")
    bar = shown[0].children[0].children[0]
    assert bar.bar_style == "danger"
    assert bar.value == 3


def test_a_stop_that_was_asked_for_leaves_the_bar_neutral_and_says_how_to_go_on(shown, capsys):
    live = run_widgets(Clock(), epochs=2)
    with pytest.raises(StoppedError), failure_reported(live):
        raise StoppedError("run='a': stopped after step 5 of 120; run again to continue")
    bar, text = shown[0].children[0].children
    assert bar.bar_style == ""
    assert text.value == "Stopped after step 5 of 120. Run this cell again to resume."
    assert capsys.readouterr().out == ""  # the kernel prints it, see `cell_outputs`


@pytest.mark.parametrize(
    ("error", "cause"), [(TerminatedError("run='a': stopped"), "a signal"), (ValueError("1"), "ValueError")]
)
def test_an_error_and_a_cluster_that_ends_the_job_are_no_wish(shown, error, cause):
    live = run_widgets(Clock(), epochs=2)
    with pytest.raises(type(error), match=str(error)), failure_reported(live):
        raise error
    bar, text = shown[0].children[0].children
    assert bar.bar_style == "danger"
    assert f"stopped by {cause}; run again to continue" in text.value


def test_the_bar_has_a_text_at_all_times_and_moves_during_validation(shown):
    clock = Clock()
    live = widgets.WidgetProgress(clock=clock)
    live.on_start(2, 10)
    bar, text = shown[0].children[0].children
    seen = [(bar.value, text.value)]
    for step in range(1, 11):
        clock.now += 1
        live.on_step(1, step, 0.5)
        seen.append((bar.value, text.value))
    for image in (1, 2, 3):
        clock.now += 1
        live.on_image(1, image, 3)
        seen.append((bar.value, text.value))
    shares, texts = zip(*seen, strict=True)
    assert all(texts)
    assert list(shares) == sorted(set(shares))
    assert shares[-1] == 10
    assert "validating, image 2/3" in texts[-2]


def test_waiting_shows_a_bar_with_its_title_until_it_ends(shown):
    with progress.preparing("widgets", "preparing the data") as prepared:
        bar, label = shown[0].children
        assert (label.value, bar.bar_style) == ("preparing the data", "info")
        prepared()
        assert shown[0].comm is None
    with progress.preparing("lines", "preparing the data") as prepared:
        prepared()
    assert len(shown) == 1


def new_subshell(client: BlockingKernelClient) -> str:
    """Ask a kernel for another thread, as JupyterLab does for messages of widgets, and return its id."""
    client.control_channel.send(client.session.msg("create_subshell_request"))
    return client.get_control_msg(timeout=60)["content"]["subshell_id"]


STOPS = """
from cityscapes.errors import StoppedError, TerminatedError
import dlv3p
raise {}("run='a': stopped after step 5 of 120; run again to continue")
"""


@pytest.mark.parametrize("kind", ["StoppedError", "TerminatedError"])
def test_a_kernel_prints_a_stop_as_a_sentence_and_still_ends_the_queue(kind):
    with run_kernel(startup_timeout=240) as client:
        outputs = []
        reply = client.execute_interactive(STOPS.format(kind), output_hook=outputs.append, timeout=240)
    assert reply["content"]["status"] == "error"  # no cell below runs
    contents = {message["msg_type"]: message["content"] for message in outputs}
    if kind == "StoppedError":
        assert "error" not in contents
        assert contents["stream"]["name"] == "stdout"
        assert contents["stream"]["text"] == "Stopped after step 5 of 120. Run this cell again to resume.\n"
    else:
        assert contents["error"]["ename"] == kind


NAMES = {
    "result = dlv3p.__name__ + config": "is not known: the cell above that sets it has not been run",
    "confg = 1\nprint(config)": "Traceback",  # misspelled
    "(lambda: config)()": "Traceback",  # of a function, which knows more of the place
    "open('/nosuch')": "Traceback",  # of code that a reader wrote
    "bytearray(10**15)": "Traceback",
    "from cityscapes import findings; raise findings.ProblemsError('zip', 'none', ['b'])": "ProblemsError: zip",
}
READS = "from pathlib import Path\nfrom cityscapes.files import checksums\nchecksums.file_sha256(Path({!r}))"
FAILING = "/proc/self/mem"
if Path(FAILING).exists():
    NAMES[READS.format(FAILING)] = f"MachineError: {FAILING}: [Errno 5] Input/output error; check"
    NAMES[f"from pathlib import Path\nother = Path()\nopen({FAILING!r}, 'rb').read(1)"] = "MachineError: [Errno 5]"


def test_a_cell_explains_a_name_that_is_not_set_and_a_failing_drive_and_other_errors_keep_their_traceback():
    with run_kernel(startup_timeout=240) as client:
        for source, told in NAMES.items():
            client.execute_interactive("%reset -f", timeout=240)
            outputs = []
            reply = client.execute_interactive(
                f"import dlv3p\n{source}", output_hook=outputs.append, timeout=240, stop_on_error=False
            )
            assert reply["content"]["status"] == "error"
            (shown,) = [message["content"] for message in outputs if message["msg_type"] == "error"]
            assert told in "\n".join(shown["traceback"])
            assert (len(shown["traceback"]) == 1) is (told != "Traceback")
            assert told == "Traceback" or shown["ename"] in ("NameError", *vars(errors))  # which papermill knows


def test_the_stop_button_asks_once_and_rests_when_the_run_has_ended(shown):
    asked = []
    live = widgets.WidgetProgress(stop=lambda: asked.append(True), clock=Clock())
    live.on_start(2, 2)
    button = shown[0].children[0].children[1]
    assert (button.description, button.disabled, asked) == ("Stop", False, [])
    button.click()
    assert (button.description, button.disabled, asked) == ("Stopping", True, [True])
    button.click()  # the second of two quick clicks arrives before the page has drawn that the button rests
    assert asked == [True]
    live.on_failure("stopped")
    assert (button.description, button.disabled) == ("Stop", True)
    finished = widgets.WidgetProgress(stop=lambda: None, clock=Clock())
    finished.on_start(1, 1)
    finished.on_finish()
    assert shown[1].children[0].children[1].disabled


PRESSED = """
import threading
from dlv3p.runtime.widgets import WidgetProgress
pressed = threading.Event()
live = WidgetProgress(stop=pressed.set)
live.on_start(1, 2)
live.on_step(1, 1, 0.5)
print(pressed.wait(60))
"""


def test_a_press_of_the_stop_button_arrives_while_its_cell_runs():
    """A kernel that is busy, and what JupyterLab sends: a thread to be made, and the press, addressed to it."""
    with run_kernel(startup_timeout=120) as client:
        thread = new_subshell(client)
        client.execute(PRESSED)
        printed = ""
        while not printed.endswith("\n"):  # a busy machine sends a line in several parts
            message = client.get_iopub_msg(timeout=120)
            content = message["content"]
            if message["msg_type"] == "comm_open" and content["data"]["state"].get("_model_name") == "ButtonModel":
                button = content["comm_id"]
            if message["msg_type"] == "comm_msg" and "step 1/2" in str(content):  # the cell has come to the wait
                data = {"method": "custom", "content": {"event": "click"}}
                press = client.session.msg("comm_msg", {"comm_id": button, "data": data})
                press["header"]["subshell_id"] = thread
                client.shell_channel.send(press)
            if message["msg_type"] in ("stream", "error"):
                printed += content.get("text") or f"{content['ename']}\n"
        assert printed == "True\n"


def test_who_comes_late_sees_all_epochs_and_the_time_left_as_the_training_has_it(shown, capsys):
    """After epoch 12 of 26, a minute each; the clock of who watches has only begun."""
    clock, rows = Clock(), [ROW | {"epoch": epoch} for epoch in range(1, 13)]
    live = widgets.WidgetProgress(history=rows, spent=12 * 60.0, clock=clock)
    live.on_start(26, 1, 13)
    box, last, curves = shown[0].children
    assert box.children[-1].value == "epoch 12/26 is over  ·  eta 14 min"
    assert last.value.startswith("after epoch 12  ·  ")
    before = bytes(curves.value)
    assert curves.layout.visibility == "visible"
    clock.now += 60
    live.on_epoch(ROW | {"epoch": 13})
    assert box.children[-1].value == "epoch 13/26 is over  ·  eta 13 min"
    assert bytes(curves.value) != before
    lines = LineProgress(spent=13 * 60.0, clock=clock)
    lines.on_start(26, 1, 14)
    clock.now += 60
    lines.on_epoch(ROW | {"epoch": 14})
    assert capsys.readouterr().out.endswith("(eta 12 min)\n")


RUNS = """
import threading
from dlv3p.runtime.widgets import WidgetProgress
go = globals().setdefault("go", threading.Event())
live = WidgetProgress()
live.on_start(2, 2)
live.on_step(1, 1, 0.5)
live.on_epoch({"epoch": 1, "train_loss": 0.5, "val_loss": 0.4})
print("one epoch is over", flush=True)
go.wait(60)
live.on_finish("done")
"""


def test_a_cell_that_is_run_again_while_it_runs_shows_at_once_how_it_is_doing():
    """As after a closed browser, in the same kernel: until the first run ends, the second would show nothing."""
    with run_kernel(startup_timeout=120) as client:
        again = ""
        client.execute(RUNS)
        told: list[tuple[str, dict]] = []
        while not any(kind == "status" and content["execution_state"] == "idle" for kind, content in told):
            message = client.get_iopub_msg(timeout=120)
            kind, content = message["msg_type"], message["content"]
            if not again and "one epoch is over" in content.get("text", ""):
                again = client.execute(RUNS)
                client.execute("another = 1")  # waits as ever
            elif again and message["parent_header"].get("msg_id") == again:
                told.append((kind, content))
                if "image/png" in content.get("data", {}):  # the last of what is shown at once
                    thread = new_subshell(client)
                    press = client.session.msg("execute_request", {"code": "go.set()", "silent": True})
                    press["header"]["subshell_id"] = thread
                    client.shell_channel.send(press)
    kinds = [kind for kind, _ in told]
    first = kinds.index("status")
    assert kinds[:first] == ["stream", "display_data", "display_data", "update_display_data", "clear_output"]
    assert told[0][1]["text"].startswith("This cell is running in this kernel already; ")
    bar, last = told[1][1]["data"]["text/plain"].split("\n")
    assert bar.startswith("epoch 1/2  ·  step 1/2  ·  loss 0.5000")
    assert last == "after epoch 1  ·  loss 0.5000  ·  val loss 0.4000"
    assert told[3][1]["data"]["text/plain"].startswith("done\n")
    assert "execute_input" in kinds[first:], "the second run did not begin"


def test_there_is_no_stop_button_where_nothing_can_be_stopped(shown):
    run_widgets(Clock())
    assert len(shown[0].children[0].children) == 2


def test_a_bar_says_how_much_there_is_before_the_first_item_is_done(shown):
    def first():
        texts.append(shown[0].children[-1].value)
        yield 1

    texts = []
    list(track(first(), total=4, title="sweep", mode="widgets"))
    assert texts == ["sweep  ·  0/4"]


def test_a_loop_that_ends_early_turns_its_bar_red(shown):
    for item in track(range(9), title="t", mode="widgets"):
        if item == 4:
            break
    assert shown[0].children[0].bar_style == "danger"


def test_drawing_the_curves_costs_a_hundredth_of_the_time(shown, monkeypatch):
    clock, drawn = Clock(), []

    def draw(rows, epochs):
        drawn.append(clock.now)
        clock.now += 0.1
        return b""

    monkeypatch.setattr(widgets, "draw_curves", draw)
    run_widgets(clock, epochs=500)  # 2 s each
    assert len(drawn) == pytest.approx(clock.now / 10, rel=0.25)


def test_curves_can_be_drawn_from_one_epoch_and_with_gaps():
    rows = [{"epoch": 1, "train_loss": 1.0, "val_loss": None}, {"epoch": 2, "train_loss": np.nan, "val_mIoU": 0.5}]
    for count in (1, 2):
        assert widgets.draw_curves(rows[:count], epochs=2).startswith(b"\x89PNG")


def test_a_training_that_was_finished_before_is_shown_as_it_looked_then(shown, capsys):
    rows = [ROW | {"epoch": 1}, ROW | {"epoch": 2}]
    progress.show_finished("widgets", rows, "finished before, nothing is left to train: best val mIoU 0.3123")
    box, last, curves = shown[0].children
    bar, text = box.children  # no button to stop what is over
    assert (bar.bar_style, bar.value) == ("success", bar.max)
    assert text.value.startswith("finished before, nothing is left to train")
    assert last.value.startswith("after epoch 2")
    assert curves.layout.visibility == "visible"
    assert bytes(curves.value) == widgets.draw_curves(rows, 2)
    assert capsys.readouterr().out == f"{text.value}\n"
    progress.show_finished("none", rows, "finished before")
    assert capsys.readouterr().out == ""


def test_a_dollar_in_a_label_is_no_formula():
    """Image names, class names and paths come there, so no label is made in another way."""
    label = widgets.plain_label("a $5 and $6")
    assert label.value == "a $5 and $6"
    assert "mathjax_ignore" in label._dom_classes
    package = Path(widgets.__file__).parents[1]
    made = {path.name: path.read_text(encoding="utf-8").count("ipywidgets.Label(") for path in package.rglob("*.py")}
    assert {name: count for name, count in made.items() if count} == {"widgets.py": 1}
    assert not any("ipywidgets.HTML" in path.read_text(encoding="utf-8") for path in package.rglob("*.py"))


@pytest.mark.parametrize("name", ["a $5 and $6", "plain"])
def test_a_dollar_in_a_table_is_no_formula(name):
    """In JupyterLab; a table without one is stored as pandas writes it."""
    formatter = DisplayFormatter()
    frame = pd.DataFrame({"IoU": [0.5]}, index=[name])
    tables = [frame, frame.style.set_uuid("a"), TrainParameters(data_root=name)]
    before = [formatter.format(table)[0]["text/html"] for table in tables]
    show_dollars(formatter)
    after = [formatter.format(table)[0]["text/html"] for table in tables]
    marked = [f'<div class="mathjax_ignore">{html}</div>' for html in before]
    assert after == (marked if "$" in name else before)
