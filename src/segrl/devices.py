"""What this process may use of the machine, what is installed there, and which of several processes it is.

Imports no torch by itself.
"""

from __future__ import annotations

import functools
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segrl.errors import ModelError

if TYPE_CHECKING:
    import torch

FASTER = 0.9
"""bfloat16 is chosen where it takes at most this share of float32's time."""

COMPUTE_TYPE = "SEGRL_COMPUTE_TYPE"
"""Environment variable that says the compute type in place of a measurement: processes that train together agree."""

MEASUREMENTS = 5
"""Of each type, in turn; the fastest of each counts, so that other processes disturb little."""


def core_count(proc: Path = Path("/proc/self"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores that this process may use, at least 1: those of its affinity, or its CPU quota if that is less.

    A quota of a container or a service (cgroup version 1 or 2) is rounded up. All cores where the system tells
    neither (macOS, Windows). proc, cgroups: where the system's files lie.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cpu_quotas(proc, cgroups))]))


def _cpu_quotas(proc: Path, cgroups: Path) -> Iterator[float]:
    """The limits, in cores, of the process's own cgroup and of those around it."""
    for line in _lines(proc / "cgroup"):
        controllers, _, place = line.partition(":")[2].partition(":")
        if not controllers:  # version 2 has one tree for all controllers
            root, read = cgroups, _quota_v2
        elif "cpu" in controllers.split(","):
            roots = (cgroups / name for name in (controllers, "cpu"))
            root, read = next((root for root in roots if root.is_dir()), cgroups), _quota_v1
        else:
            continue
        own = root / place.lstrip("/")  # inside a container this may be the host's name for it, and not be there
        folders = [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
        yield from (quota for quota in map(read, folders) if quota is not None)


def _quota_v2(folder: Path) -> float | None:
    return _cores(*next(iter(_lines(folder / "cpu.max")), "").split())


def _quota_v1(folder: Path) -> float | None:
    return _cores(*(line for name in ("quota", "period") for line in _lines(folder / f"cpu.cfs_{name}_us")))


def _cores(*numbers: str) -> float | None:
    """Microseconds of CPU time, and of what period, as cores; None for no limit (`max`, -1) or unreadable numbers."""
    try:
        quota, period = map(int, numbers)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def prepare_threads() -> None:
    """Sets the environment that thread pools read when torch is loaded: call it before. What is set already stays.

    As many threads as cores that this process may use (torch sees the affinity, but no quota). Waiting threads sleep:
    spinning ones take the cores from other processes, and two trainings on the same cores would take ten times as
    long instead of twice.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if core_count() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(core_count()))


@dataclass(frozen=True)
class ComputeType:
    """What matrices are multiplied in; the weights keep their own type.

    name: "bfloat16" or "float32". share: bfloat16's time as a share of float32's on this processor, measured; None
    where nothing was measured.
    """

    name: str
    share: float | None = None

    @property
    def is_bfloat16(self) -> bool:
        """Whether it is bfloat16."""
        return self.name == "bfloat16"

    @property
    def measured(self) -> str:
        """The measurement in a few words; empty without one."""
        if self.share is None:
            return ""
        told = f"{1 / self.share:.1f} times as fast as" if self.share <= 1 else f"{self.share:.1f} times slower than"
        return f"bfloat16 is {told} float32 on this processor"


@functools.cache
def cpu_compute_type() -> ComputeType:
    """The faster of bfloat16 and float32 on this processor, measured once in about a tenth of a second.

    A processor without instructions for bfloat16 (AVX2 only) emulates it and is many times slower with it.
    """
    if named := os.environ.get(COMPUTE_TYPE):
        return ComputeType(named)
    import torch

    layer, rows = torch.nn.Linear(256, 256), torch.ones(256, 256)

    def seconds(in_bfloat16: bool) -> float:
        began = time.perf_counter()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            layer(layer(rows)).sum().backward()
        return time.perf_counter() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other where other processes work too
    try:
        seconds(False), seconds(True)  # the first of each prepares its kernels
        times = [(seconds(True), seconds(False))]
        while len(times) < MEASUREMENTS and _share(times) < 4:
            times.append((seconds(True), seconds(False)))
    finally:
        torch.set_num_threads(threads)
    share = _share(times)
    return ComputeType("bfloat16" if share <= FASTER else "float32", round(share, 2))


def _share(times: list[tuple[float, float]]) -> float:
    bfloat16, float32 = zip(*times, strict=True)
    return float(min(bfloat16) / min(float32))


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it; its architecture where the system gives none."""
    names = (line.partition(":")[2].strip() for line in _lines(cpuinfo) if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def default_device() -> torch.device:
    """The GPU of this process (its LOCAL_RANK under `accelerate` and `torchrun`), or the CPU without one."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def parse_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name; without one `default_device`. Raises ModelError for a name that is none, and for a
    device that is not here."""
    import torch

    if name is None:
        return default_device()
    try:
        device = torch.device(name)
        is_here = (device.index or 0) < torch.get_device_module(device).device_count()
    except (RuntimeError, TypeError):
        is_here = False
    if not is_here:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ModelError(f"torch finds no device {name!r} here: use {', '.join(['cpu', *gpus])}")
    return device


def parse_dtype(name: str | None) -> torch.dtype:
    """The dtype of that name; None is float32. Raises ModelError for another."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if (name or "float32") not in known:
        raise ModelError(f"no dtype called {name}: use {', '.join(known)}")
    return known[name or "float32"]


def device_name(threads: int | None = None) -> str:
    """The first GPU by name; without one the CPU's architecture and `threads` (those of torch by default)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = threads or torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} thread" + ("s" if threads > 1 else "")


def peak_memory_mib(status: Path = Path("/proc/self/status")) -> float | None:
    """The most memory that this program has held so far, in MiB; None where the system does not say.

    Linux says it in `status` (`VmHWM`); its `getrusage` begins at what the process that started this one held.
    """
    if sys.platform == "win32":
        return None
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return round(int(lines["VmHWM"].split()[0]) / 2**10, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def installed_version(package: str) -> str | None:
    """The version of a package by its name in the registry; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def rank() -> int:
    """Which of the processes started together this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process writes the run's directory: the only one, or the first of those started together."""
    return rank() == 0


def wait_for_all() -> None:
    """Goes on when every process has come here; at once where there is one."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
