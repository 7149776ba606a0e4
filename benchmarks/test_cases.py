"""Every case under pytest-benchmark: `make bench`, or `pytest benchmarks -n 0 --benchmark-only`.

Its table shows our own functions alone. What each is beside its floor and its peers, in interleaved
rounds, is in `extra_info` (--benchmark-json=FILE has it), and in `manifoldlab bench`.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from manifoldlab import benching, environment
from manifoldlab.benchmarking.case import Absent, Case, Setting
from manifoldlab.benchmarking.measurement import measure_ready
from manifoldlab.benchmarking.race import Plan

PLAN = Plan(rounds=5, least=0.01, most=1.0)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.filterwarnings("default")  # those of other libraries, which are not ours to mend
@pytest.mark.parametrize("case", benching.cases(), ids=lambda case: case.name)
def test_case(benchmark: BenchmarkFixture, case: Case) -> None:
    setting = Setting(DEVICE)
    contest = case.ready(setting)
    row = measure_ready(case, contest, setting, PLAN)
    assert row["right"], f"error {row['error']} of {row['within']}: {row['reason']}"
    for name, peer in contest.peers.items():
        if isinstance(peer, Absent):
            print(f"{case.name}: {name} is absent: {peer.why}")
    benchmark.group = case.kind
    benchmark.extra_info |= row | {"environment": environment.environment(DEVICE)}
    benchmark.pedantic(contest.own.call, rounds=row["rounds"])
