"""Joules come from a counter with a known integral, or not at all."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from cityscapes.errors import ParameterError
from dlv3p.profiling import energy
from dlv3p.profiling.counters import IMPLAUSIBLE, NOT_MEASURED, NotMeasurable, NvmlBoard, open_rapl
from dlv3p.profiling.energy import LONGEST_SILENCE, EnergyMeter, measure_energy, open_counter, open_meter
from dlv3p.runtime.processes import Place

FIGURES = ("joules_per_image", "net_joules_per_image", "mean_watts", "idle_watts")


class Machine:
    """Time that passes only when something happens: sleeping at `idle` watts, predicting at `busy` watts."""

    source = "a counter"

    def __init__(self, *, idle=20.0, busy=120.0, limit=300.0, seconds_a_prediction=0.25):
        self.idle, self.busy, self.limit_watts, self.step = idle, busy, limit, seconds_a_prediction
        self.now, self.total, self.predictions = 100.0, 5000.0, 0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now, self.total = self.now + seconds, self.total + self.idle * seconds

    def predict(self):
        self.now, self.total = self.now + self.step, self.total + self.busy * self.step
        self.predictions += 1

    def joules(self):
        return self.total

    def measure(self, counter=None, **options):
        options = {"images": 1, "seconds": 5.0, "idle_seconds": 2.0} | options
        return measure_energy(self.predict, counter or self, clock=self.clock, sleep=self.sleep, **options)


def test_a_frame_takes_power_times_time_and_the_idle_share_is_taken_off():
    energy = Machine(idle=20, busy=120, seconds_a_prediction=0.25).measure()
    assert energy.joules_per_image == pytest.approx(120 * 0.25)
    assert energy.net_joules_per_image == pytest.approx((120 - 20) * 0.25)
    assert (energy.mean_watts, energy.idle_watts, energy.limit_watts) == (120, 20, 300)
    assert energy.energy_status == "a counter, 20 images in 5.0 s"


def test_a_batch_shares_the_energy_and_one_prediction_is_enough_however_long():
    machine = Machine(seconds_a_prediction=60.0)
    energy = machine.measure(images=8)
    assert machine.predictions == 2  # one for the clocks to rise, one that counts
    assert energy.joules_per_image == pytest.approx(120 * 60 / 8)


def test_more_watts_than_the_limit_are_no_figure():
    energy = Machine(busy=494, limit=300).measure()
    assert {getattr(energy, name) for name in FIGURES} == {IMPLAUSIBLE}
    assert energy.energy_status.startswith("implausible: 494 W on average, above the limit of 300 W")
    assert Machine(busy=306, limit=300).measure().mean_watts == 306  # ripple, as boards have it
    assert Machine(busy=494, limit=None).measure().limit_watts == NOT_MEASURED


def test_a_counter_that_stands_still_is_not_zero_joules():
    energy = Machine(idle=0, busy=0).measure()
    assert {getattr(energy, name) for name in FIGURES} == {NOT_MEASURED}
    assert energy.energy_status == "not measured: a counter did not move in 5.0 s"


def test_nothing_above_idle_leaves_no_net_energy():
    energy = Machine(idle=130, busy=120).measure()
    assert energy.joules_per_image == pytest.approx(30)
    assert energy.net_joules_per_image == NOT_MEASURED
    assert "no more than when idle" in energy.energy_status


def test_a_counter_that_fails_on_the_way_tells_why():
    machine = Machine()
    readings = iter([5000.0, 5040.0, 5070.0])

    def joules():
        for value in readings:
            return value
        raise NotMeasurable("the board fell off the bus")

    energy = machine.measure(SimpleNamespace(source="x", limit_watts=300, joules=joules))
    assert energy.joules_per_image == NOT_MEASURED
    assert energy.energy_status == "not measured: the board fell off the bus"


@pytest.mark.parametrize("stretch", [{"seconds": 0.5}, {"idle_seconds": 0.0}])
def test_stretches_that_a_counter_cannot_resolve_are_refused(stretch):
    with pytest.raises(ParameterError, match="at least 1 s"):
        Machine().measure(**stretch)


@pytest.fixture
def powercap(tmp_path):
    """Two packages at 200 and 100 W at most, a part of one and the whole machine, which must not count twice."""

    def zone(folder, name, energy, *limits):
        path = tmp_path / folder
        path.mkdir()
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{energy}\n")
        (path / "max_energy_range_uj").write_text("1000000000\n")  # 1000 J
        for number, watts in enumerate(limits):
            (path / f"constraint_{number}_power_limit_uw").write_text(f"{watts * 1_000_000}\n")

    zone("intel-rapl:0", "package-0", 990_000_000, 150, 200)
    zone("intel-rapl:1", "package-1", 10_000_000, 100)
    zone("intel-rapl:0:0", "core", 10_000_000)
    zone("intel-rapl:2", "psys", 10_000_000)
    return tmp_path


def set_joules(powercap, package, joules):
    (powercap / f"intel-rapl:{package}" / "energy_uj").write_text(str(round(joules * 1e6)))


def test_packages_add_up_and_parts_of_them_do_not_count_twice(powercap):
    packages = open_rapl(powercap)
    for zone in ("0:0", "2"):
        set_joules(powercap, zone, 900)
    set_joules(powercap, 0, 993)
    set_joules(powercap, 1, 15)
    assert packages.joules() == pytest.approx(3 + 5)
    assert packages.limit_watts == 300


def test_a_counter_that_begins_again_goes_on(powercap):
    packages = open_rapl(powercap)
    seen = []
    for joules in (998, 4, 500, 2):  # the range is 1000: it wraps around twice
        set_joules(powercap, 0, joules)
        seen.append(packages.joules())
    assert seen == pytest.approx([8, 14, 510, 1012])


def test_a_long_stretch_meets_every_wrap_of_the_counter(powercap):
    machine = Machine(idle=20, busy=60, seconds_a_prediction=2.0)
    packages = open_rapl(powercap)
    set_joules(powercap, 1, 0)
    packages.joules()
    original = machine.predict

    def predict():
        original()
        set_joules(powercap, 0, machine.total % 1000)

    def sleep(seconds):
        Machine.sleep(machine, seconds)
        set_joules(powercap, 0, machine.total % 1000)

    set_joules(powercap, 0, machine.total % 1000)
    packages.joules()
    machine.predict, machine.sleep = predict, sleep
    energy = machine.measure(packages, seconds=120.0)  # 7200 J in a range of 1000
    assert energy.joules_per_image == pytest.approx(120)
    assert energy.net_joules_per_image == pytest.approx(80)


def test_missing_and_forbidden_counters_say_so(powercap, tmp_path, monkeypatch):
    with pytest.raises(NotMeasurable, match="no RAPL package"):
        open_rapl(tmp_path / "nowhere")

    def refuse(path, *arguments):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return original(path, *arguments)

    original = type(powercap).read_text
    monkeypatch.setattr(type(powercap), "read_text", refuse)
    with pytest.raises(NotMeasurable, match=r"no permission to read .*energy_uj; allow it with: sudo chmod"):
        open_rapl(powercap)


def test_a_package_that_states_no_limit_leaves_it_open(powercap):
    (powercap / "intel-rapl:1" / "constraint_0_power_limit_uw").unlink()
    assert open_rapl(powercap).limit_watts is None


class FakeNvml:
    """NVML with one board, "GPU-abc", whose counter is 7 kJ."""

    __spec__ = "found"
    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, pid=0, refused=()):
        self.refused, self.pid = refused, pid

    def __getattr__(self, name):
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: {"GPU-abc": "handle"}[uuid],
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 7_000_000,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=1, usedGpuMemory=2**30),
                SimpleNamespace(pid=self.pid, usedGpuMemory=1522 * 2**20),
            ],
            "nvmlDeviceGetClockInfo": lambda handle, clock: 1980,
            "nvmlDeviceGetMaxClockInfo": lambda handle, clock: 1980,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 40,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=3),
        }
        if name in self.refused:
            raise self.NVMLError("Not Supported")
        return answers[name]


@pytest.fixture
def nvml(monkeypatch):
    def install(**options):
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(**options))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
        return NvmlBoard(torch.device("cuda", 0))

    return install


def test_a_board_is_found_by_its_own_number_and_counts_millijoules(nvml):
    board = nvml()
    assert (board.joules(), board.limit_watts) == (7000, 700)
    assert open_counter("cuda").joules() == 7000
    assert board.state() == {
        "sm_clock_mhz": 1980,
        "highest_sm_clock_mhz": 1980,
        "temperature_celsius": 40,
        "load_percent": 3,
        "limit_watts": 700,
    }


def test_a_board_without_a_counter_is_not_measured_and_one_without_a_limit_is(nvml):
    board = nvml(refused=("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetClockInfo"))
    assert board.limit_watts is None
    assert board.state()["sm_clock_mhz"] is None
    assert board.joules() == 7000
    nvml(refused=("nvmlDeviceGetTotalEnergyConsumption",))
    with pytest.raises(NotMeasurable, match="NVML: Not Supported"):
        open_counter("cuda")


def test_process_memory_is_that_of_this_process_or_not_measured(nvml):
    import os

    assert nvml(pid=os.getpid()).process_mib() == 1522
    with pytest.raises(NotMeasurable, match="does not list this process"):
        nvml(pid=-1).process_mib()


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NotMeasurable, match=r"pip install 'dlv3p\[energy\]'"):
        NvmlBoard(torch.device("cuda", 0))


def test_a_meter_adds_its_counters_up_from_its_beginning():
    board, other = Machine(busy=100.0), Machine(busy=40.0)
    meter = EnergyMeter([board, other], clock=board.clock)
    for machine in (board, other):
        machine.predict()  # a quarter of a second
    assert meter.joules() == pytest.approx(25 + 10)
    board.step = 0.05
    board.predict()
    assert meter.joules() == pytest.approx(35)  # the counter is not asked again within a tenth of a second
    board.step = 1.0
    board.predict()
    assert meter.joules() == pytest.approx(35 + 5 + 100)


def test_a_meter_that_missed_something_says_nan_for_good():
    machine = Machine()
    meter = EnergyMeter([machine], clock=machine.clock)
    machine.sleep(LONGEST_SILENCE)
    assert meter.joules() == pytest.approx(20 * LONGEST_SILENCE)
    machine.sleep(LONGEST_SILENCE + 1)  # a counter may have begun again
    assert math.isnan(meter.joules())
    machine.predict()
    assert math.isnan(meter.joules())


def test_a_counter_that_fails_later_makes_the_meter_say_nan():
    machine = Machine()
    meter = EnergyMeter([machine], clock=machine.clock)
    machine.joules = lambda: (_ for _ in ()).throw(NotMeasurable("gone"))
    machine.predict()
    assert math.isnan(meter.joules())


def test_a_training_of_several_machines_has_no_meter(monkeypatch):
    monkeypatch.setattr(energy, "open_rapl", Machine)
    assert open_meter("cpu").joules() == 0
    monkeypatch.setattr(energy, "place", lambda: Place(0, 4, 0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert open_meter("cpu").joules() == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert math.isnan(open_meter("cpu").joules())
    monkeypatch.setattr(energy, "place", lambda: Place(1, 2, 1))
    assert math.isnan(open_meter("cpu").joules())  # the first process counts for all


def test_a_meter_of_several_processes_counts_all_their_boards(monkeypatch):
    opened = []
    monkeypatch.setattr(energy, "open_counter", lambda device: opened.append(device) or Machine())
    monkeypatch.setattr(energy, "place", lambda: Place(0, 2, 0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    open_meter("cuda")
    assert [(device.type, device.index) for device in opened] == [("cuda", 0), ("cuda", 1)]
