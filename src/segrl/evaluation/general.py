"""General ability: MMBench, MME, POPE and AI2D through lmms-eval, a program in an environment of its own.

Its pins clash with ours, so it is never imported: it lives in a virtual environment of its own, which segrl makes
when it is told to; segrl builds the command, and reads the results file that it leaves:

    OUT/checkpoint/…/20261122_120000_results.json
    {"results": {"mme": {"alias": "mme", "mme_perception_score,none": 1581.2, "…_stderr,none": "N/A", …}, …}}

Names of models, tasks and scores are those of lmms-eval 0.7.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.errors import DataError, ModelError, SegrlError
from segrl.evaluation.run_dir import EvalDir
from segrl.files import write_atomically
from segrl.policies import is_served

REQUIREMENT = "lmms_eval>=0.7"
"""What is installed into the environment."""

RESULT = "general.json"
"""The file that the suite leaves."""


@dataclass(frozen=True)
class Benchmark:
    """task: its name in lmms-eval. score: the number that stands for it. scale: what that is multiplied with."""

    task: str
    score: str
    scale: float = 1.0


BENCHMARKS: Mapping[str, Benchmark] = {
    "MMBench": Benchmark("mmbench_en_dev_static", "gpt_eval_score"),
    "MME": Benchmark("mme", "mme_perception_score"),
    "POPE": Benchmark("pope", "pope_f1_score", 100.0),
    "AI2D": Benchmark("ai2d", "exact_match", 100.0),
}
"""The suite `general`. MMBench is scored by its own rules without a judge; POPE's F1 and AI2D's accuracy are in
percent, MME is the perception score."""

LMMS_MODELS: Mapping[str, str] = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "qwen3_5": "qwen3_5",
    "qwen3_5_moe": "qwen3_5",
    "internvl": "internvl_hf",
}
"""`model_type` of a checkpoint → the name of the class that runs it in lmms-eval."""

Say = Callable[[str], None]


def general(
    checkpoint: str,
    out: Path | str,
    *,
    base: str | None = None,
    python: Path | str | None = None,
    install: bool = False,
    limit: int | None = None,
    batch_size: int = 1,
    processes: int = 1,
    benchmarks: Sequence[str] = tuple(BENCHMARKS),
    say: Say = print,
) -> dict[str, Any]:
    """Runs the suite on a checkpoint (and on the model that it was trained from) and returns what general.json holds.

    checkpoint, base: a directory or a name on the hub. out: everything is written under it; a checkpoint
    whose results are there with the same settings is not run again. python: of an environment that has
    lmms-eval, by default the one in the user's cache; install: make that one if it is not there.
    limit: only so many samples of each task.
    processes: GPUs to share the work. The result:
    `{"benchmarks": {"MME": {"value": …, "base": …, "change": …}, …}, "run": {…}}`, numbers None where
    there is none. Raises SegrlError, one line, where lmms-eval is not there (saying how it is made), for a
    checkpoint that it cannot run, and a run that failed.
    """
    for name in benchmarks:
        if name not in BENCHMARKS:
            raise SegrlError(f"the suite general has {', '.join(BENCHMARKS)}, not {name!r}")
    place, tasks = Path(out), [BENCHMARKS[one].task for one in benchmarks]
    commands = {
        part: command(name, place / part, tasks, limit=limit, batch_size=batch_size, processes=processes)
        for part, name in (("checkpoint", checkpoint), ("base", base))
        if name is not None
    }
    executable = _python(None if python is None else Path(python), install, say)
    found = {part: _scores_of(executable, words, place / part, say) for part, words in commands.items()}
    result = {
        "benchmarks": {name: _compared(found, name) for name in benchmarks},
        "run": {"checkpoint": checkpoint, "base": base, "commands": commands, "tasks": found},
    }
    write_atomically(place / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def read_general(place: Path) -> dict[str, Any] | None:
    """What the suite left in a directory; None where it was not run. Raises DataError for a broken file."""
    path = place / RESULT
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def check_policy(place: Path, policy: str, *, evaluated: bool = True) -> None:
    """Raises DataError if `place` holds the suite's scores of another policy, or (`evaluated`) another's evaluation."""
    found, directory = read_general(place), EvalDir(place)
    there = [] if found is None else [found["run"]["checkpoint"]]
    if evaluated and directory.run.exists():
        there.append(directory.description()["policy"]["name"])
    for other in there:
        if other != policy:
            raise DataError(f"{place} holds an evaluation of {other}, not of {policy}: choose another --out")


def command(
    checkpoint: str,
    out: Path,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 1,
    processes: int = 1,
) -> list[str]:
    """The words behind `python` that run lmms-eval on a checkpoint. Raises ModelError for one that it cannot run."""
    if is_served(checkpoint):
        raise ModelError(f"lmms-eval runs a model itself: give a checkpoint or a name on the hub, not {checkpoint}")
    if "," in checkpoint or "=" in checkpoint:
        raise ModelError(f"lmms-eval cannot take a name with a comma or an equals sign: {checkpoint}")
    launched = ["-m", "lmms_eval"]
    if processes > 1:
        launched = ["-m", "accelerate.commands.launch", "--num_processes", str(processes), *launched]
    words = [*launched, "--model", _lmms_model(checkpoint), "--model_args", f"pretrained={checkpoint}"]
    words += ["--tasks", ",".join(tasks), "--batch_size", str(batch_size), "--output_path", str(out)]
    return words if limit is None else [*words, "--limit", str(limit)]


def _lmms_model(checkpoint: str) -> str:
    from segrl.policies.frames import family_of

    model_type, path = family_of(checkpoint), Path(checkpoint)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{checkpoint} holds no whole model: write one with segrl export --merge")
        model_type = str(json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type"))
    if model_type not in LMMS_MODELS:
        raise ModelError(f"lmms-eval runs {', '.join(LMMS_MODELS)} here; {checkpoint} is none that segrl can tell")
    return LMMS_MODELS[model_type]


def _python(given: Path | None, install: bool, say: Say) -> Path:
    """The Python that has lmms-eval. Raises SegrlError saying how to get it where there is none."""
    if given is not None:
        if not _has_lmms_eval(given):
            raise SegrlError(f"{given} has no lmms-eval: install it there with {given} -m pip install '{REQUIREMENT}'")
        return given
    place = default_environment()
    if install:
        return environment(place, say=say)
    if not _has_lmms_eval(_python_in(place)):
        raise SegrlError(
            f"lmms-eval is not there: --install makes an environment for it in {place} (a few GB, once), "
            "or --lmms-python names the Python of one that has it"
        )
    return _python_in(place)


def _has_lmms_eval(python: Path) -> bool:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('lmms_eval') is None)"
    try:
        return subprocess.run([str(python), "-c", look], env=_clean(), capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _python_in(place: Path) -> Path:
    return place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _clean() -> dict[str, str]:
    """The environment's variables without those that would lend our packages to another Python."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {key: value for key, value in os.environ.items() if key not in ours}


def default_environment() -> Path:
    """Where the environment lies unless another is given."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "segrl" / "lmms-eval"


def environment(place: Path, *, maker: str = sys.executable, say: Say = print) -> Path:
    """The Python of a virtual environment with lmms-eval at `place`, which is made where it is not there.

    A marker written last says that it is whole. Raises SegrlError if it cannot be made.
    """
    python = _python_in(place)
    marker = place / "segrl-installed"
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == REQUIREMENT:
        return python
    say(f"installing {REQUIREMENT} into {place}; this takes a while, once")
    place.mkdir(parents=True, exist_ok=True)
    log = place / "install.log"
    for words in ([maker, "-m", "venv", str(place)], [str(python), "-m", "pip", "install", REQUIREMENT]):
        _run(words, log, f"lmms-eval cannot be installed into {place}")
    write_atomically(marker, REQUIREMENT + "\n")
    return python


def _run(words: Sequence[str], log: Path, fault: str) -> None:
    """Runs a program with its output in `log`. Raises SegrlError with the last line of it."""
    try:
        with log.open("ab") as file:
            status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=_clean(), check=False).returncode
    except OSError as error:
        raise SegrlError(f"{fault}: {words[0]} cannot be run ({error.strerror})") from error
    if status != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SegrlError(
            f"{fault} (status {status}): {lines[-1] if lines else 'it said nothing'}; all of it is in {log}"
        )


def _scores_of(python: Path, words: Sequence[str], out: Path, say: Say) -> dict[str, dict[str, float]]:
    """Task → score → value of one checkpoint, from the results that are there or a new run."""
    out.mkdir(parents=True, exist_ok=True)
    done = out / "command.json"
    if not (done.is_file() and json.loads(done.read_text(encoding="utf-8")) == list(words)):
        for old in out.rglob("*_results.json"):
            old.unlink()
        log = out / "lmms_eval.log"
        say(f"lmms-eval: {' '.join(words)}\nit takes hours on the whole sets; what it says goes to {log}")
        _run([str(python), *words], log, "lmms-eval failed")
        read_results(out)
        write_atomically(done, json.dumps(list(words)) + "\n")
    return read_results(out)


def read_results(out: Path) -> dict[str, dict[str, float]]:
    """Task → score → value in the newest results file under `out`; what is no number is left out.

    Raises SegrlError if there is no such file or it cannot be read.
    """
    files = sorted(out.rglob("*_results.json"), key=lambda path: path.name)
    if not files:
        raise SegrlError(f"lmms-eval left no results under {out}: see {out / 'lmms_eval.log'}")
    try:
        tasks = json.loads(files[-1].read_text(encoding="utf-8"))["results"]
        return {task: _numbers(scores) for task, scores in tasks.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SegrlError(f"{files[-1]} is no results file of lmms-eval: {error!r}") from error


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """`{"exact_match,flexible-extract": 0.78, "alias": …}` → `{"exact_match": 0.78}`; the first filter counts."""
    found: dict[str, float] = {}
    for key, value in scores.items():
        name = key.partition(",")[0]
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.endswith("_stderr"):
            found.setdefault(name, float(value))
    return found


def _compared(found: Mapping[str, Mapping[str, Mapping[str, float]]], name: str) -> dict[str, float | None]:
    """The score of one benchmark, that of the base, and the change."""
    benchmark = BENCHMARKS[name]
    values = [found.get(part, {}).get(benchmark.task, {}).get(benchmark.score) for part in ("checkpoint", "base")]
    value, base = (None if one is None else one * benchmark.scale for one in values)
    return {"value": value, "base": base, "change": None if value is None or base is None else value - base}
