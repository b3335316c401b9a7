"""Each finding with logs that show it and logs that do not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segrl.masks import box_to_mask, to_rle
from segrl.training.diagnosis import CompletionFacts, GroupFacts, diagnose, facts, history, same_answer_in
from segrl.types import ORIGINAL, MaskPrompt

BOX = (0.5, 0.4, 0.8, 0.9)
HEALTHY = {
    "reward": 0.6,
    "loss": 0.01,
    "grad_norm": 0.4,
    "kl": 0.03,
    "entropy": 0.6,
    "frac_reward_zero_std": 0.1,
    "completions/mean_length": 60.0,
    "completions/max_length": 90.0,
    "completions/clipped_ratio": 0.01,
    "clip_ratio/region_mean": 0.02,
    "rewards/iou/mean": 0.5,
    "rewards/format/mean": 0.9,
    "status/ok": 0.9,
    "status/no_answer": 0.1,
}


def steps(n: int = 20, **changed) -> list[dict]:
    """A healthy log whose last ten rows have other values."""
    rows = [{"step": i + 1, **HEALTHY} for i in range(n)]
    return [row if i < n - 10 else {**row, **changed} for i, row in enumerate(rows)]


def completion(**changed) -> CompletionFacts:
    healthy = CompletionFacts(
        status="ok",
        iou=0.6,
        area=0.15,
        boxes=(BOX,),
        n_points=2,
        outside=False,
        terms={"iou": 0.6, "format": 1.0, "extra": None},
        advantage=0.1,
    )
    return replace(healthy, **changed)


def groups(n: int = 20, size: int = 4, **changed) -> list[GroupFacts]:
    """Groups in which one answer is poor; `changed` is put into all of them."""
    each = [completion(**changed) for _ in range(size - 1)]
    poor = completion(**{"iou": 0.2, "terms": {"iou": 0.2, "format": 1.0, "extra": None}, **changed})
    return [GroupFacts(i + 1, f"query {i}", "size", 0.15, (BOX,), (*each, poor)) for i in range(n)]


def names(findings) -> list[str]:
    return [finding.name for finding in findings]


def test_a_healthy_run_has_no_findings():
    assert diagnose(steps(), groups()) == []


SHOWN_BY_STEPS = [
    ("equal_rewards", {"frac_reward_zero_std": 0.7}),
    ("format_never_right", {"status/ok": 0.01, "status/no_answer": 0.99, "rewards/format/mean": 0.0}),
    ("format_never_right", {"rewards/format/mean": 0.0}),
    ("cut_off", {"completions/clipped_ratio": 0.2}),
    ("length_runs_away", {"completions/mean_length": 130.0}),
    ("length_collapses", {"completions/mean_length": 20.0}),
    ("entropy_low", {"entropy": 0.001}),
    ("entropy_high", {"entropy": 5.0}),
    ("kl_high", {"kl": 2.5}),
    ("rollouts_differ", {"sampling/sampling_logp_difference/mean": 0.2, "sampling/sampling_logp_difference/max": 9.0}),
    ("not_finite", {"grad_norm": None}),
    ("clipped_tokens", {"clip_ratio/region_mean": 0.3}),
    ("never_applies", {"rewards/mine/mean": None}),
]


@pytest.mark.parametrize(("name", "changed"), SHOWN_BY_STEPS)
def test_steps_that_show_it(name, changed):
    (finding,) = diagnose(steps(**changed), groups())
    assert finding.name == name
    assert all((finding.title, finding.evidence, finding.advice))


def test_cispo_counts_its_clipped_tokens():
    rows = [{key: v for key, v in row.items() if not key.startswith("clip_")} for row in steps()]
    assert names(diagnose([{**row, "cispo_clip_ratio": 0.4} for row in rows], [])) == ["clipped_tokens"]
    assert diagnose([{**row, "cispo_clip_ratio": 0.1} for row in rows], []) == []


def test_the_evidence_names_the_most_frequent_fault():
    (finding,) = diagnose(steps(**{"status/ok": 0.0, "status/no_answer": 0.2, "status/bad_syntax": 0.8}), [])
    assert "bad_syntax (80%)" in finding.evidence


def test_every_documented_finding_is_shown_by_a_log_here():
    page = Path(__file__).parents[2].joinpath("docs", "diagnosis.md").read_text(encoding="utf-8")
    table = page.split("## Findings")[1].split("\n## ")[0]
    documented = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    shown = {name for name, _ in (*SHOWN_BY_STEPS, *SHOWN_BY_GROUPS)} | {name for *_, name in SHOWN_BY_POINTS}
    assert documented == shown


def test_too_few_rows_say_nothing():
    assert diagnose(steps(4, frac_reward_zero_std=1.0, entropy=0.0), []) == []
    assert diagnose([], []) == []


def test_supervised_logs_are_not_judged():
    rows = [{"step": i, "loss": 0.1, "entropy": 0.001, "mean_token_accuracy": 0.99} for i in range(30)]
    assert diagnose(rows, []) == []


MIRRORED = (0.05, 0.05, 0.35, 0.45)


SHOWN_BY_GROUPS = [
    ("always_right", {"iou": 0.95, "terms": {"iou": 0.95}}),
    ("always_wrong", {"iou": 0.01, "terms": {"iou": 0.01}}),
    ("wrong_frame", {"boxes": (tuple(v / 2.5 for v in BOX),)}),
    ("wrong_frame", {"boxes": (MIRRORED,)}),
    ("wrong_frame", {"outside": True}),
    ("wrong_frame", {"status": "bad_values", "boxes": (), "outside": True, "area": 0.0}),
    ("pays_empty", None),
    ("pays_full", None),
    ("same_answer", "elsewhere"),
]


@pytest.mark.parametrize(("name", "changed"), SHOWN_BY_GROUPS)
def test_groups_that_show_it(name, changed):
    some = (
        looking_away()
        if changed == "elsewhere"
        else groups(**changed)
        if changed is not None
        else paying({"pays_empty": 0.0, "pays_full": 1.0}[name])
    )
    (finding,) = diagnose(steps(), some)
    assert finding.name == name
    assert all((finding.title, finding.evidence, finding.advice))


def looking_away(answers_move: bool = False) -> list[GroupFacts]:
    """Groups about objects in different places, and answers that are all the same, or move with them."""
    moved = []
    for i, group in enumerate(groups()):
        truth = (0.02 * i, 0.03 * i, 0.02 * i + 0.3, 0.03 * i + 0.4)
        boxes = truth if answers_move else (0.25, 0.25, 0.75, 0.75)
        answers = tuple(replace(one, boxes=(boxes,)) for one in group.completions)
        moved.append(replace(group, truth_boxes=(truth,), completions=answers))
    return moved


def test_answers_that_follow_their_objects_are_not_the_same():
    assert diagnose(steps(), looking_away(answers_move=True)) == []
    assert "same_answer" not in names(diagnose(steps(), looking_away()[:5]))


def paying(area: float, extra: float = 0.9, usual: float = 0.3) -> list[GroupFacts]:
    """Groups in which one answer of four has a degenerate mask, which the term `extra` likes."""
    odd = completion(area=area, iou=0.1, terms={"iou": 0.1, "format": 1.0, "extra": extra})
    plain = [completion(iou=v, terms={"iou": v, "format": 1.0, "extra": usual}) for v in (0.3, 0.5, 0.7)]
    return [GroupFacts(i, "q", None, 0.15, (BOX,), (odd, *plain)) for i in range(20)]


def test_a_term_that_pays_all_alike_pays_for_nothing():
    assert diagnose(steps(), paying(0.0, extra=0.3)) == []
    assert diagnose(steps(), paying(1.0, extra=0.1)) == []
    assert "extra" in diagnose(steps(), paying(1.0))[0].evidence


def test_a_full_mask_is_right_where_the_truth_is_as_large():
    assert diagnose(steps(), [replace(group, truth_area=0.97) for group in paying(1.0)]) == []


def test_one_factor_that_mends_the_boxes_is_told():
    (finding,) = diagnose(steps(), groups(boxes=(tuple(v / 2.5 for v in BOX),)))
    assert "upper left quarter" in finding.evidence
    assert "Times 2.5" in finding.evidence
    three_quarters = groups(boxes=(tuple(v * 0.77 for v in BOX),))  # pixels of 768 read as thousandths
    assert "Times 1.3" in diagnose(steps(), three_quarters)[0].evidence


def test_loose_boxes_are_in_the_right_frame():
    loose = (BOX[0] - 0.1, BOX[1] - 0.1, BOX[2] + 0.1, BOX[3] + 0.1)
    assert diagnose(steps(), groups(boxes=(loose,))) == []


def test_objects_that_do_lie_in_the_upper_left_are_no_fault():
    there = [replace(group, truth_boxes=(MIRRORED,)) for group in groups(boxes=(MIRRORED,))]
    assert diagnose(steps(), there) == []


def test_a_kind_of_query_that_is_always_wrong_is_named():
    some = groups(20)
    wrong = [completion(iou=0.0, terms={"iou": 0.0}), completion(iou=0.02, terms={"iou": 0.02})]
    some[::4] = [replace(group, kind="relation", completions=tuple(wrong)) for group in some[::4]]
    (finding,) = diagnose(steps(), some)
    assert finding.name == "always_wrong"
    assert "relation" in finding.evidence
    assert "“query 0”" in finding.evidence
    assert diagnose(steps(), some[:4]) == []


SHOWN_BY_POINTS = [(2, 9, "points_run_away"), (4, 1, "points_collapse")]


@pytest.mark.parametrize(("first", "last", "name"), SHOWN_BY_POINTS)
def test_numbers_of_points_run(first, last, name):
    assert names(diagnose(steps(), groups(n_points=first) + groups(n_points=last))) == [name]
    assert diagnose(steps(), groups(n_points=first) + groups(n_points=first + 1)) == []


def test_history_says_from_when_to_when():
    rows = steps(40) + [{**row, "step": row["step"] + 40} for row in steps(40, **{"completions/clipped_ratio": 0.5})]
    for row in rows[10:25]:
        row["entropy"] = 0.001
    passed, now = sorted(history(rows, []), key=lambda spell: spell.last is None)
    assert (passed.finding.name, now.finding.name) == ("entropy_low", "cut_off")
    assert now.last is None
    assert now.first > 70
    assert 10 < passed.first <= passed.last < 40
    assert history([], []) == []


def test_facts_of_a_logged_group():
    truth, mask = box_to_mask((10, 10, 30, 20), (50, 100)), box_to_mask((0, 0, 100, 25), (50, 100))
    row = {
        "step": 3,
        "query": "the box",
        "tags": {"kind": "size"},
        "image_hw": [50, 100],
        "truth": [to_rle(truth)],
        "completions": [
            {
                "status": "ok",
                "iou": 0.1,
                "prompts": [{"box_xyxy": [0, 0, 100, 25], "points_xy": [[1, 2], [3, 4]], "labels": [1, 0]}],
                "mask": to_rle(mask),
                "terms": {"iou": 0.1},
                "advantage": -1.0,
            },
            {"status": "no_target", "iou": 0.0, "prompts": [], "mask": to_rle(np.zeros((50, 100), bool)), "terms": {},
             "advantage": None, "outside": True},
        ],
    }  # fmt: skip
    group = facts(row)
    assert (group.kind, group.truth_area, group.truth_boxes) == ("size", 0.04, ((0.1, 0.2, 0.3, 0.4),))
    one, silent = group.completions
    assert (one.area, one.boxes, one.n_points, one.outside) == (0.5, ((0.0, 0.0, 1.0, 0.5),), 2, False)
    assert (silent.area, silent.boxes, silent.outside, silent.names_something) == (0.0, (), True, False)


@pytest.mark.parametrize("looks", [False, True])
def test_greedy_answers_that_all_say_the_same(looks):
    """Held-out records in an image of 100×80: objects in different places, answers that follow them or do not."""
    records = []
    for i in range(24):
        truth = (2.0 * i, 1.0 * i, 2.0 * i + 40, 1.0 * i + 30)
        box = truth if looks else (25.0, 20.0, 75.0, 60.0)
        rle = to_rle(box_to_mask(truth, (80, 100)))
        records.append(SimpleNamespace(prompts=(MaskPrompt(box, frame=ORIGINAL),), truth=rle))
    finding = same_answer_in(records)
    assert (finding is None) if looks else ("0.25, 0.25, 0.75, 0.75" in str(finding))
    assert same_answer_in(records[:10]) is None
