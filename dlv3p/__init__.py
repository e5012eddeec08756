"""DeepLabV3 and DeepLabV3+: models, data, training, evaluation, profiling and compression behind the notebooks."""

import os
import sys

# OpenMP reads these when torch is first imported. By default, a thread that waits spins, and two jobs on the same cores
# slow one another down many times over; one that sleeps at once costs a job that is alone a third of its speed.
# One that looks for work for a moment and then sleeps does neither (docs/log.md). No bit of a result depends on it.
if os.environ.setdefault("OMP_WAIT_POLICY", "passive") == "passive":
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if "ipykernel" in sys.modules:  # a notebook
    from dlv3p.runtime.cell_outputs import explain_cells

    explain_cells()
