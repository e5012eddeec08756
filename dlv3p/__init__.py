"""DeepLabV3 and DeepLabV3+: models, data, training, evaluation, profiling and compression behind the notebooks."""

import os

# OpenMP reads this when torch is first imported. By default, a thread that waits spins, and two jobs on the same cores
# slow one another down many times over; a thread that sleeps at once costs a job that is alone some 20 % (docs/log.md).
# No bit of a result depends on it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
