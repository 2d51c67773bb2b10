"""What a teacher call costs our process, and that no row is lost among faults.

Processor time, not calls a second: that figure needs a quiet machine and is measured by
`benchmarks/teacher_throughput.py`.
"""

import pytest

pytest.importorskip("openai")

from benchmarks.fast_teacher import fast_teacher
from benchmarks.teacher_throughput import Load, ours

LONGEST_CPU_MS = 2.0  # 500 calls a second of one core


def test_one_process_has_the_time_for_500_calls_a_second() -> None:
    load = Load(latency_s=0.05, num_at_once=100, num_waves=8)
    with fast_teacher(load.latency_s) as base_url:
        found = ours(load, base_url)
    assert found["num_lost"] == 0
    assert found["cpu_ms_per_call"] < LONGEST_CPU_MS


def test_a_tenth_of_faults_loses_no_row() -> None:
    load = Load(latency_s=0.02, num_at_once=50, num_waves=8, fault_every=10)
    with fast_teacher(load.latency_s, load.fault_every) as base_url:
        assert ours(load, base_url)["num_lost"] == 0
