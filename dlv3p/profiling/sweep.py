"""Profile many cases one after the other, a row each, and save every finished row at once.

A sweep takes hours: one that was killed resumes where it was when started again with the same settings on the same
machine, and one that had finished is measured anew. A case that runs out of memory, or that a library rejects, is a row
as well, and its status says so.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from cityscapes.errors import OutOfMemoryError, UserError, reason
from cityscapes.files.checksums import read_json
from cityscapes.workspace import output_folder
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.inputs import COLORS, input_channels
from dlv3p.parameters.cases import Case, case_of
from dlv3p.profiling.counters import NOT_MEASURED, NotMeasurable
from dlv3p.profiling.energy import Energy, measure_energy, open_counter, unmeasured
from dlv3p.profiling.latency import (
    compile_network,
    measure_latency,
    measure_parts,
    measure_stages,
    prepare,
    random_images,
)
from dlv3p.profiling.machine import load, machine
from dlv3p.profiling.memory import COLUMNS as MEMORY_COLUMNS
from dlv3p.profiling.memory import measure_memory
from dlv3p.profiling.profiled_model import ProfiledModel
from dlv3p.profiling.timing import clock_of
from dlv3p.runs.folders import write_json
from dlv3p.runtime.devices import explain_out_of_memory
from dlv3p.runtime.progress import track

LATENCY_COLUMNS = ("p10_ms", "p50_ms", "p90_ms", "first_ms", "images_per_second")


@dataclass(frozen=True)
class Effort:
    """How long to measure each case; `energy_seconds` of 0 skips the energy."""

    warmup: int = 3
    repeats: int = 10
    energy_seconds: float = 5.0
    idle_seconds: float = 2.0


def sweep(
    profiled: ProfiledModel,
    cases: Sequence[Case],
    *,
    run: str,
    device: str = "cpu",
    effort: Effort | None = None,
    picture: Image.Image | None = None,
    progress: str = "auto",
) -> list[dict[str, Any]]:
    """Measure a model with random weights in every case; return a row each, in order, as `measure_case` does.

    Rows are kept in `outputs/<run>/sweep-<digest>.json`, whose name follows from all that they depend on but the case:
    the network's switches, effort, device, machine and versions.
    """
    effort = effort or Effort()
    switches = profiled.network_in(cases[0]).as_dict()
    setting = {
        "num_classes": profiled.num_classes,
        "widths": profiled.widths,
        "device": device,
        "effort": asdict(effort),
    }
    setting |= {"network": {name: switches[name] for name in switches.keys() - {"backbone", "output_stride"}}}
    setting |= {"pixels": profiled.rule.as_dict()} if profiled.rule else {}
    setting |= {"stages": picture is not None, "memory": list(MEMORY_COLUMNS), "machine": machine()}
    path = output_folder(run) / f"sweep-{_digest(setting)}.json"
    kept = _unfinished_rows(path)
    rows: list[dict[str, Any]] = []
    for case in track(cases, total=len(cases), title="profile", mode=progress):
        row = next((row for row in kept if case_of(row) == case), None)
        if row is None:
            row = measure_case(
                partial(profiled.build, case),
                case,
                device=device,
                effort=effort,
                picture=picture,
            )
        rows.append(row)
        write_json(path, {"finished": len(rows) == len(cases), **setting, "rows": rows})
    return rows


def measure_case(
    build: Callable[[], nn.Module],
    case: Case,
    *,
    device: str = "cpu",
    effort: Effort | None = None,
    picture: Image.Image | None = None,
) -> dict[str, Any]:
    """Measure the network that `build` makes in one case: a row of plain JSON.

    Columns: those of Case; device; parameters, gmacs and gflops (of one image); p10_ms, p50_ms, p90_ms and first_ms of
    a batch, images_per_second, times_ms (all runs); parts_ms, medians by part; stages_ms, medians from file to labels,
    with a `picture` and a network of RGB; those of `measure_memory` and of Energy; load, how busy the machine was
    before; status, "ok", "out of memory" or "failed: ..." with its reason. What was not measured is "not measured".
    """
    effort = effort or Effort()
    row: dict[str, Any] = case.as_dict() | {"device": device}
    row |= dict.fromkeys(("parameters", "gmacs", "gflops", *LATENCY_COLUMNS, *MEMORY_COLUMNS), NOT_MEASURED)
    row |= {"times_ms": [], "parts_ms": {}, "stages_ms": {}, **Energy().as_dict(), "load": load(), "status": "ok"}
    try:
        for columns in _measurements(build, case, device, effort, picture):
            row |= columns
    except OutOfMemoryError:
        row["status"] = "out of memory"
    except (RuntimeError, UserError) as error:  # of a library that cannot do this here, such as a compiler
        row["status"] = f"failed: {reason(error)}"
    _release_memory()
    return row


def _measurements(
    build: Callable[[], nn.Module], case: Case, device: str, effort: Effort, picture: Image.Image | None
) -> Iterator[Mapping[str, Any]]:
    """Yield columns as they are known, so that what was measured before memory ran out is kept."""
    macs = count_macs(build, case.height, case.width)["total"]
    model = build()
    yield {
        "parameters": count_parameters(model)["total"],
        "gmacs": round(macs / 1e9, 3),
        "gflops": round(2 * macs / 1e9, 3),
    }
    size = {"height": case.height, "width": case.width, "batch": case.batch_size}
    options: dict[str, Any] = size | {"device": device, "dtype": getattr(torch, case.precision)}
    timing = {"warmup": effort.warmup, "repeats": effort.repeats}
    # Memory first: on a CPU it runs in its own process, and only that one is killed when memory runs out.
    yield measure_memory(model, **options, compiled=case.compiled)
    latency = measure_latency(model, **options, compiled=case.compiled, **timing)
    yield {name: getattr(latency, name) for name in ("p10_ms", "p50_ms", "p90_ms", "first_ms")}
    yield {"images_per_second": round(1000 * case.batch_size / latency.p50_ms, 2), "times_ms": list(latency.times_ms)}
    if not case.compiled:  # compilation fuses the parts
        parts = measure_parts(model, **options, **timing)
        yield {"parts_ms": {part: latency.p50_ms for part, latency in parts.items()}}
        if picture is not None and input_channels(model) == COLORS:
            yield {"stages_ms": measure_stages(model, picture, **options, **timing).medians()}
    yield _energy(model, case, options, effort).as_dict()


@torch.inference_mode()
def _energy(model: nn.Module, case: Case, options: dict[str, Any], effort: Effort) -> Energy:
    if not effort.energy_seconds:
        return unmeasured("left out by energy_seconds=0")
    try:
        counter = open_counter(options["device"])
    except NotMeasurable as missing:
        return unmeasured(missing)
    clock = clock_of(options["device"])
    with explain_out_of_memory():
        network = prepare(model, options["device"], options["dtype"])
        network = compile_network(network) if case.compiled else network
        images = random_images(model, case.batch_size, case.height, case.width, options["device"], options["dtype"])
        network(images)

        def predict() -> None:
            network(images)
            clock.wait()

        stretch = {"seconds": effort.energy_seconds, "idle_seconds": effort.idle_seconds}
        return measure_energy(predict, counter, images=case.batch_size, **stretch)


def _unfinished_rows(path: Path) -> list[dict[str, Any]]:
    try:
        content = read_json(path)
        return [] if content["finished"] else [row for row in content["rows"] if case_of(row)]
    except (OSError, ValueError, KeyError, TypeError):  # missing, unreadable or changed
        return []


def _digest(setting: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:8]


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
