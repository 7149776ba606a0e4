"""One thread and reproducible cases, for tests, theory checks and benchmarks alike."""

import os

# Before torch is imported: threads that wait for each other cost up to a hundredfold on small
# problems, and their number changes the last bits of a result.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# `pytest --hypothesis-profile=NAME` chooses. No deadline and no complaint about slow draws: the
# first call of a torch function takes far longer than the next, and a machine may be busy.
_ALL = settings(
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", _ALL, max_examples=10, derandomize=True)
settings.register_profile("ci", _ALL, max_examples=50, derandomize=True)
settings.register_profile("dev", _ALL, max_examples=200, derandomize=False)  # new cases every run
# By name: Hypothesis has a `ci` of its own, and loads it by itself only where CI is set.
settings.load_profile("ci")
