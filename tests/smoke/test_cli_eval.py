"""segrl eval, compare and report as a user types them."""

from __future__ import annotations

import json
import re

import pytest
from eval_samples import write_examples
from typer.testing import CliRunner

from segrl.cli.app import app


def segrl(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli-eval")
    write_examples(root, 12)
    common = ("eval", "--dataset", "jsonl", "--root", root, "--segmenter", "box")
    code, said = segrl(*common, "--policy", "scripted", "--texts", root / "script.jsonl", "--out", root / "a")
    assert code == 0, said
    return root, common, said


def test_the_table_says_what_a_newcomer_needs(scripted):
    root, _, said = scripted
    for word in ("gIoU", "95% interval", "mean overlap", "could not be parsed and score 0", "samples per second"):
        assert word in said
    assert (root / "a" / "report.html").exists()
    found = json.loads((root / "a" / "metrics.json").read_text())
    assert found["metrics"]["giou"].keys() == {"value", "ci95"}
    assert (found["n"], found["images"]) == (12, 6)
    speed = r"speed   [\d.]+ samples per second over 12 samples, peak memory \d+ MiB per process"
    assert re.fullmatch(speed, said.splitlines()[-1])


def test_the_same_command_again_shows_the_same(scripted):
    root, common, said = scripted
    again = segrl(*common, "--policy", "scripted", "--texts", root / "script.jsonl", "--out", root / "a")
    assert (again[0], again[1][again[1].index("jsonl") :]) == (0, said[said.index("jsonl") :])


def test_a_sample_is_seeded_and_written_down(scripted, tmp_path):
    _, common, _ = scripted
    seeded = ("--policy", "oracle", "sample={n: 5, seed: 3}")
    for name in ("a", "b"):
        assert segrl(*common, *seeded, "--out", tmp_path / name)[0] == 0
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("a", "b"))
    assert first["dataset"]["options"] == {"sample": {"n": 5, "seed": 3}}
    assert first == second
    assert (tmp_path / "a" / "metrics.json").read_bytes() == (tmp_path / "b" / "metrics.json").read_bytes()


def test_compare_and_report(scripted, tmp_path):
    root, common, _ = scripted
    assert segrl(*common, "--policy", "oracle", "--out", tmp_path / "b", "policy.n_points=1")[0] == 0
    code, said = segrl("compare", root / "a", tmp_path / "b", "--out", tmp_path / "new" / "c.json")
    assert code == 0
    assert "differs policy.name" in said
    assert json.loads((tmp_path / "new" / "c.json").read_text())["metrics"]["giou"]["difference"] > 0
    code, said = segrl("compare", root / "a", tmp_path / "b", root / "a", "--out", tmp_path / "d.json")
    assert code == 0
    assert "best of checkpoints" in said
    assert json.loads((tmp_path / "d.json").read_text())["best_of_checkpoints"]["giou"]["run"] == str(tmp_path / "b")
    assert segrl("compare", root / "a") == (2, "segrl: name two or more evaluations to compare\n")
    for out, why in ((root / "a" / "run.json" / "c.json", "cannot make the directory"), (root, "is a directory")):
        code, said = segrl("compare", root / "a", tmp_path / "b", "--out", out)
        assert (code, said.count("\n"), why in said) == (2, 1, True)
    (tmp_path / "b" / "report.html").unlink()
    assert segrl("report", tmp_path / "b")[0] == 0
    assert (tmp_path / "b" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "oracle", "--answer-format", "json-list", "--out", "{root}/a"), "other settings"),
        (("--policy", "oracle", "quary=x"), "quary"),
        (("--policy", "oracle", "policy.n_pionts=3"), "no option n_pionts: did you mean n_points?"),
        (("--policy", "tiny", "policy.fram=original"), "the policy tiny has no option fram: did you mean frame?"),
        (("--policy", "tiny", "policy.device=gpu"), "no device 'gpu' here: use cpu"),
        (("--policy", "oracle", "segmenter.max_side=3"), "max_side"),
        (("--policy", "scripted"), "--texts"),
        (("--policy", "scripted", "--texts", "/nowhere"), "/nowhere"),
        (("--policy", "oracle", "query"), "KEY=VALUE"),
        (("--policy", "oracle", "policy.n_points=many"), "counts of points"),
        (("--policy", "oracle", "--answer-format", "points-only", "policy.n_points=0"), "a box without points"),
    ],
)
def test_mistakes_are_one_line(scripted, tmp_path, arguments, said):
    root, common, _ = scripted
    given = [argument.format(root=root) for argument in arguments]
    where = () if "--out" in given else ("--out", tmp_path / "x")
    code, output = segrl(*common, *given, *where)
    assert code == 2
    assert said in output
    assert len(output.strip().splitlines()) == 1
