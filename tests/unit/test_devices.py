"""Cores by affinity and quota, the environment of thread pools, the compute type of a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segrl import devices
from segrl.devices import COMPUTE_TYPE, ComputeType, core_count, cpu_compute_type, prepare_threads


@pytest.fixture
def cores(monkeypatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    return 16


def files(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


V2 = "0::/box.slice/job\n"
V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n"


@pytest.mark.parametrize(
    ("cgroup", "quotas", "expected"),
    [
        (V2, {"cpu.max": "max 100000"}, 16),
        (V2, {"cpu.max": "200000 100000"}, 2),  # a container sees its own limit at the root
        (V2, {"box.slice/job/cpu.max": "150000 100000"}, 2),
        (V2, {"box.slice/job/cpu.max": "max 100000", "box.slice/cpu.max": "300000 100000"}, 3),
        (V2, {"box.slice/job/cpu.max": "6400000 100000"}, 16),
        (V2, {"box.slice/job/cpu.max": "1000 100000"}, 1),
        (V2, {"cpu.max": "nonsense"}, 16),
        (V2, {"cpu.max": "200000 0"}, 16),
        (V2, {"cpu.max": ""}, 16),
        ("0::/../..\n", {"cpu.max": "400000 100000"}, 4),
        (V1, v1("cpu,cpuacct/docker/abc", 250_000), 3),
        (V1, v1("cpu", 200_000), 2),  # a container sees its own limit at the root
        (V1, v1("cpu", -1), 16),
        (V1, {}, 16),
        ("", {}, 16),
    ],
)  # fmt: skip
def test_a_quota_limits_the_cores(tmp_path, cores, cgroup, quotas, expected):
    proc, cgroups = files(tmp_path / "proc", {"cgroup": cgroup}), files(tmp_path / "sys", quotas)
    assert core_count(proc, cgroups) == expected


def test_without_the_systems_files_the_affinity_counts(tmp_path, cores):
    assert core_count(tmp_path / "none", tmp_path / "none") == cores


@pytest.mark.parametrize(("given", "threads"), [({}, "16"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_thread_pools_get_as_many_threads_as_cores(cores, monkeypatch, given, threads):
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(devices, "core_count", lambda: cores)
    prepare_threads()
    assert os.environ == {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": threads}


def test_the_measurement_is_one_of_both_and_says_why(monkeypatch):
    monkeypatch.delenv(COMPUTE_TYPE, raising=False)
    cpu_compute_type.cache_clear()
    chosen = cpu_compute_type()
    assert chosen.share is not None
    assert chosen.is_bfloat16 == (chosen.share <= devices.FASTER)
    assert "than float32" in chosen.measured or "as float32" in chosen.measured


def test_processes_that_train_together_are_told(monkeypatch):
    monkeypatch.setenv(COMPUTE_TYPE, "float32")
    cpu_compute_type.cache_clear()
    assert cpu_compute_type() == ComputeType("float32")
    cpu_compute_type.cache_clear()
