"""A run that is killed, shared, gone on with, or asked for something else."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from eval_samples import write_examples

from segrl.errors import SegrlError
from segrl.evaluation import (
    Decoding,
    EvalDir,
    EvalSettings,
    Share,
    best_of_checkpoints,
    compare_runs,
    read_jsonl,
    run,
    run_on,
)
from segrl.evaluation.run_dir import open_journal, read_journal
from segrl.jobs import Processes
from segrl.reporting.evaluation import write_evaluation

N = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[EvalSettings, EvalDir]:
    """An undisturbed run by one process."""
    root = tmp_path_factory.mktemp("whole")
    settings = write_examples(root, N)
    assert run(settings, root / "run", share=Share())
    return settings, EvalDir(root / "run")


def same_result(one: EvalDir, other: EvalDir) -> bool:
    return one.metrics.read_bytes() == other.metrics.read_bytes()


def test_nothing_is_left_but_the_result(whole):
    _, directory = whole
    names = {path.name for path in directory.path.iterdir()}
    assert names >= {"run.json", "records.jsonl", "metrics.json", "summary.json", "sessions.jsonl"}
    assert "journal" not in names
    assert [record.id for record in read_jsonl(directory.records)] == [f"e{i}" for i in range(N)]


def test_peak_memory_is_the_process_s_own():
    """Not that of the process which started it."""
    child = "from segrl.devices import peak_memory_mib; print(peak_memory_mib())"
    parent = (
        f"import subprocess, sys; held = bytes(2**29); subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 400


@pytest.mark.parametrize("batch_size", [1, 2])
def test_shares_give_what_one_process_gives(whole, tmp_path, batch_size):
    settings, directory = whole
    shared = dataclasses.replace(settings, decoding=Decoding(batch_size=batch_size))
    assert not run(shared, tmp_path, share=Share(1, 3))
    assert not run(shared, tmp_path, share=Share(0, 3))
    assert run(shared, tmp_path, share=Share(2, 3))
    assert same_result(EvalDir(tmp_path), directory)


def test_another_number_of_processes_goes_on(whole, tmp_path):
    settings, directory = whole
    assert not run(settings, tmp_path, share=Share(2, 4))
    assert run(settings, tmp_path, share=Share(0, 1))
    assert same_result(EvalDir(tmp_path), directory)


def test_the_environment_says_the_share(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Share.of_environment() == Share(3, 8)


@pytest.mark.parametrize("cut", [1, 5, 200, 1500])
def test_a_cut_journal_loses_and_doubles_nothing(whole, tmp_path, cut):
    settings, directory = whole
    run(settings, tmp_path, share=Share(0, 2))
    path = tmp_path / "journal" / "0.lines"
    path.write_bytes(path.read_bytes()[:-cut])
    assert not run(settings, tmp_path, share=Share(1, 2))
    assert run(settings, tmp_path, share=Share(0, 2))
    assert same_result(EvalDir(tmp_path), directory)


def test_a_foreign_line_is_named(tmp_path):
    (tmp_path / "0.lines").write_text("nonsense\n")
    with pytest.raises(SegrlError, match=r"0\.lines"):
        read_journal(tmp_path)


def test_two_writers_are_refused(tmp_path):
    path = tmp_path / "run" / "journal" / "0.lines"
    with open_journal(path), pytest.raises(SegrlError, match="another process"), open_journal(path, 0.0):
        raise AssertionError("the second one got in")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segmenter": "grabcut"}, "segmenter.name: 'box' there, 'grabcut' now"),
        ({"decoding": Decoding(max_new_tokens=9)}, "decoding.max_new_tokens"),
        ({"answer_format": "json-list"}, "prompt.answer_format"),
        ({"saliency": True}, "measures.saliency"),
    ],
)
def test_other_settings_are_refused_in_one_line(whole, change, said):
    settings, directory = whole
    with pytest.raises(SegrlError, match="other settings") as caught:
        run(dataclasses.replace(settings, **change), directory.path, share=Share())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_data_elsewhere_is_the_same(whole, tmp_path):
    settings, directory = whole
    moved = shutil.copytree(Path(settings.dataset_options["root"]), tmp_path / "moved")
    there = dataclasses.replace(settings, dataset_options={"root": str(moved)}, texts=str(moved / "script.jsonl"))
    assert run(there, directory.path, share=Share())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "scripted"}, "--texts"),
        ({"policy": "oracle", "texts": "x"}, "--texts"),
        ({"policy": "tiny", "decoding": Decoding(samples=4, temperature=0)}, "--temperature"),
        ({"policy": "oracle", "decoding": Decoding(second_look=True)}, "sees no image"),
    ],
)
def test_settings_that_make_no_sense(options, said):
    with pytest.raises(SegrlError, match=said):
        EvalSettings(dataset="tiny", **options)


@pytest.mark.parametrize(
    ("policy", "segmenter", "longest"),
    [
        ("Ricky06662/Seg-Zero-7B", "facebook/sam2-hiera-large", 1024),
        ("openai:Ricky06662/VisionReasoner-7B@http://localhost:1/v1", "facebook/sam2-hiera-large", 1024),
        ("Qwen/Qwen3-VL-8B-Thinking", "facebook/sam2.1-hiera-large", 4096),
        ("runs/mine/model", "facebook/sam2.1-hiera-large", 512),
        ("tiny", "grabcut", 512),
        ("oracle", "grabcut", 512),
    ],
)
def test_what_nobody_said_is_what_fits_the_policy(policy, segmenter, longest, tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    settings = EvalSettings(policy=policy, dataset="tiny")
    assert (settings.segmenter_name, settings.fitted_decoding.max_new_tokens) == (segmenter, longest)
    said = dataclasses.replace(settings, segmenter="box", decoding=Decoding(max_new_tokens=9))
    assert (said.segmenter_name, said.fitted_decoding.max_new_tokens) == ("box", 9)


def test_a_run_that_was_begun_with_the_number_goes_on_without_it(whole):
    settings, directory = whole
    assert json.loads(directory.run.read_text())["decoding"]["max_new_tokens"] == 512
    for longest in (512, None):
        decoding = Decoding(max_new_tokens=longest)
        assert run(dataclasses.replace(settings, decoding=decoding), directory.path, share=Share())


def test_texts_of_qwen2_5_vl_are_read_in_the_pixels_of_its_own_resize(tmp_path):
    settings = write_examples(tmp_path, 4)
    rows = [
        {"id": f"e{i}", "text": "<bbox>[45,11,90,34]</bbox>"} for i in range(4)
    ]  # images of 100×50 are seen as 112×56
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for options in ({"family": "qwen2_5_vl"}, {"family": "qwen2_5_vl", "frame": "smart_resize"}):
        out = tmp_path / f"run{len(options)}"
        assert run(dataclasses.replace(settings, policy_options=options), out, share=Share())
        (prompt,) = read_jsonl(out / "records.jsonl")[0].prompts
        assert prompt.box_xyxy == pytest.approx((45 / 1.12, 11 / 1.12, 90 / 1.12, 34 / 1.12))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frame": "smart_resize"}, "give policy.family=qwen2_vl|qwen2_5_vl"),
        ({"frame": "smart_resize", "family": "internvl"}, "give policy.family=qwen2_vl|qwen2_5_vl"),
        ({"family": "qwen"}, "unknown family 'qwen'"),
        ({"familly": "qwen2_5_vl"}, "did you mean family?"),
        ({"answer_format": "seg-r1"}, "no option answer_format"),
        ({"frame": "resized", "input_wh": 840}, "input_wh must be two"),
    ],
)
def test_wrong_options_of_a_replayed_policy_are_one_line(tmp_path, options, said):
    settings = dataclasses.replace(write_examples(tmp_path, 2), policy_options=options)
    with pytest.raises(SegrlError, match=re.escape(said)) as caught:
        run(settings, tmp_path / "run", share=Share())
    assert "\n" not in str(caught.value)


def test_a_replayed_vote_costs_what_the_vote_cost(tmp_path):
    rows = write_examples(tmp_path, 2, votes=[["<bbox>[400,200,800,600]</bbox>"] * 3] * 2, samples=3)
    lines = [
        json.loads(line) | {"tokens": 30, "seconds": 1.5} for line in Path(str(rows.texts)).read_text().splitlines()
    ]
    Path(str(rows.texts)).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(rows, tmp_path / "run", share=Share())
    records = read_jsonl(tmp_path / "run" / "records.jsonl")
    assert [(record.tokens, record.seconds) for record in records] == [(30, 1.5)] * 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"id": "e0", "text": "a"}\n', "no text for the example 'e1'"),
        ('{"id": "e0", "text": "a"}\n{"id": "e0", "text": "b"}\n', "line 2, gives a second answer"),
        ('{"id": "e0"}\n', "line 1"),
        ('{"id": "e0", "text": 3}\n', "line 1"),
    ],
)
def test_scripts_that_cannot_be_used(tmp_path, lines, said):
    settings = write_examples(tmp_path, 2)
    (tmp_path / "script.jsonl").write_text(lines)
    with pytest.raises(SegrlError, match=said):
        run(settings, tmp_path / "run", share=Share())


def test_records_are_a_script_too(whole, tmp_path):
    settings, directory = whole
    again = dataclasses.replace(settings, texts=str(directory.records))
    assert run(again, tmp_path, share=Share())
    assert same_result(EvalDir(tmp_path), directory)


def test_the_oracle_on_boxes_is_perfect(whole, tmp_path):
    settings, _ = whole
    oracle = dataclasses.replace(settings, policy="oracle", texts=None, saliency=True)
    assert run(oracle, tmp_path, share=Share())
    found = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    for name in ("giou", "ciou", "pr@0.9", "mask_recall", "boundary_iou", "weighted_f", "n_acc", "t_acc", "box_acc"):
        assert found[name]["value"] == pytest.approx(1.0), name
    assert found["mae"]["value"] == 0.0


def test_compare_pairs_runs_and_refuses_others(whole, tmp_path):
    settings, directory = whole
    oracle = dataclasses.replace(settings, policy="oracle", texts=None)
    run(oracle, tmp_path / "oracle", share=Share())
    found = compare_runs(directory.path, tmp_path / "oracle")
    row = found["metrics"]["giou"]
    assert row["difference"] == pytest.approx(row["b"] - row["a"])
    assert row["ci95"][0] > 0
    assert found["slices"]["objects"]["1"]["metrics"]["giou"]["difference"] > 0
    assert 0 < found["changed"]["mask"] < found["changed"]["text"] <= 1
    assert found["settings"]["policy.name"] == "'scripted' → 'oracle'"
    same = compare_runs(directory.path, directory.path)
    assert same["metrics"]["giou"] == {**same["metrics"]["giou"], "difference": 0.0, "ci95": [0.0, 0.0]}
    assert same["changed"] == {"text": 0.0, "mask": 0.0, "status": 0.0}
    other = write_examples(tmp_path, N, query="something else")
    run(other, tmp_path / "other", share=Share())
    with pytest.raises(SegrlError, match="other examples"):
        compare_runs(directory.path, tmp_path / "other")
    with pytest.raises(SegrlError, match=r"run\.json is not there"):
        compare_runs(directory.path, tmp_path / "nowhere")


def test_the_best_of_checkpoints_is_a_variant_with_its_run_named(whole, tmp_path):
    settings, directory = whole
    oracle = dataclasses.replace(settings, policy="oracle", texts=None, saliency=True)
    run(oracle, tmp_path / "oracle", share=Share())
    run(dataclasses.replace(settings, saliency=True), tmp_path / "script", share=Share())
    runs = [tmp_path / "script", tmp_path / "oracle", directory.path]
    found = best_of_checkpoints(runs)
    assert list(found["runs"]) == [str(path) for path in runs]
    assert found["runs"][str(runs[2])]["giou"] == json.loads(directory.metrics.read_text())["metrics"]["giou"]
    assert found["best_of_checkpoints"]["giou"] == {"value": 1.0, "run": str(runs[1])}
    assert "mae" not in found["best_of_checkpoints"]  # the third run did not measure it
    assert best_of_checkpoints(runs[:2])["best_of_checkpoints"]["mae"] == {"value": 0.0, "run": str(runs[1])}
    run(write_examples(tmp_path, N, query="something else"), tmp_path / "other", share=Share())
    with pytest.raises(SegrlError, match="other examples"):
        best_of_checkpoints([*runs, tmp_path / "other"])


def test_the_page_shows_answers_and_every_failure(whole):
    _, directory = whole
    page = write_evaluation(directory.path).read_text()
    assert "The worst" in page
    assert "The best" in page
    failures = sum(json.loads(directory.metrics.read_text())["failures"].values())
    assert f"{failures} answers that could not be read" in page
    assert page.count("<tr><td>e") == failures
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_killed_at_random_it_ends_as_if_undisturbed(whole, tmp_path):
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "killed_eval.py"),
        str(tmp_path),
        str(N),
        "20",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    kills, runs = map(int, result.stdout.split())
    assert kills == 20
    for number in range(runs):
        ended = EvalDir(tmp_path / f"run{number}")
        assert same_result(ended, whole[1])
        assert len(read_jsonl(ended.records)) == N


def test_two_processes_give_what_one_gives(whole, tmp_path):
    settings, directory = whole
    told: list[int] = []
    assert run_on(settings, tmp_path, Processes(2), lambda records, finished, total: told.append(finished))
    assert same_result(EvalDir(tmp_path), directory)
    assert told[-1] == N
    assert json.loads((tmp_path / "summary.json").read_text())["speed"]["processes"] == 2


def test_an_error_in_a_process_is_told_in_its_words(whole, tmp_path):
    settings, _ = whole
    script = tmp_path / "script.jsonl"
    script.write_text('{"id": "e0", "text": "a"}\n')
    with pytest.raises(SegrlError, match="no text for the example"):
        run_on(dataclasses.replace(settings, texts=str(script)), tmp_path / "run", Processes(1))
