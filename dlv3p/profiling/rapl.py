"""The energy counters of x86 processors (RAPL), as Linux shows them below /sys/class/powercap.

One counter a package, in microjoules, which begins again at zero when it has reached `max_energy_range_uj`: within
minutes on large processors. Memory and the rest of the machine are not in it. Since 2020 only root may read it, because
it tells strangers too much: `chmod o+r .../energy_uj` allows it.
"""

from pathlib import Path

from dlv3p.profiling.measurable import NotMeasurable

POWERCAP = Path("/sys/class/powercap")


class Packages:
    """All processor packages of this machine together."""

    source = "RAPL's counters of the processor packages, memory left out"

    def __init__(self, root: Path = POWERCAP) -> None:
        # The others are parts of a package, such as its cores, or "psys", the whole machine: both would count twice.
        zones = sorted(root.glob("intel-rapl:*"))
        self._zones = [zone for zone in zones if _read_text(zone / "name").startswith("package")]
        if not self._zones:
            raise NotMeasurable(f"{root} has no RAPL package: no such counter, or a virtual machine that hides it")
        self._ranges = [_read_number(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = self._read()
        self._total = 0

    @property
    def limit_watts(self) -> float | None:
        """The largest of each package's power limits (long and short term), added up; None where one does not say."""
        limits = [_limit(zone) for zone in self._zones]
        return None if None in limits else sum(limits) / 1e6

    def joules(self) -> float:
        """Return the energy since this was made; call it more often than the counters begin again."""
        now = self._read()
        for before, after, wrap in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before if after >= before else after - before + wrap
        self._last = now
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [_read_number(zone / "energy_uj") for zone in self._zones]


def _limit(zone: Path) -> int | None:
    found = []
    for constraint in ("constraint_0", "constraint_1"):
        try:
            found.append(_read_number(zone / f"{constraint}_power_limit_uw"))
        except NotMeasurable:
            continue
    return max(found, default=0) or None


def _read_number(path: Path) -> int:
    text = _read_text(path)
    try:
        return int(text)
    except ValueError:
        raise NotMeasurable(f"{path} holds no whole number") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError:
        raise NotMeasurable(f"no right to read {path}; allow it with: sudo chmod o+r {path}") from None
    except OSError as error:
        raise NotMeasurable(f"{path}: {error.strerror}") from None
