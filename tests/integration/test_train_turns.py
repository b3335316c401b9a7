"""Turns in training: TRL's environments read what we say they read, and recipes that could be cut are refused."""

from __future__ import annotations

import json

import pytest
from small import save_policy

import segrl
from segrl.errors import DataError, RecipeError
from segrl.files import read_rows
from segrl.policies import load
from segrl.training import parse_recipe, train
from segrl.training.options import build_config
from segrl.training.parts import Parts
from segrl.training.turns import answer_head, looking_template, prepare, response_template

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

POINT = "<think>too much</think> <points>[[12,10]]</points>, <labels>[0]</labels>"
DONE = "<think>fits</think> <answer>done</answer>"
END = "<|im_end|>"
HEAD = "\n<|im_start|>assistant\n"


def recipe(policy, **changes):
    values = {
        "method": "grpo",
        "policy": str(policy),
        "segmenter": "box",
        "dataset": {"name": "tiny", "n": 8, "seed": 1},
        "rewards": {"iou": 1.0, "improvement": 0.2, "first_iou": 0.2, "turn_cost": 0.02},
        "reward_check": False,
        "turns": {"max": 2, "show": "cutout", "instruction": False, "answer_tokens": 24},
        "trainer": {
            "max_steps": 2,
            "num_generations": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_completion_length": 200,
            "save_steps": 1,
            "gradient_checkpointing": False,
            "beta": 0.0,
        },
        "log": {"rollouts": {"every": 1, "groups": 2}},
    }
    return parse_recipe({**values, **changes})


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (POINT + END, POINT),
        (DONE + END, None),
        ("Done." + END, None),
        (POINT, None),
        ("" + END, ""),
        ("<think>done</think> not yet" + END, "<think>done</think> not yet"),
    ],
)
def test_an_answer_calls_the_tool_unless_it_is_done_or_cut_off(policy, text, calls):
    tokenizer = load(str(policy), device="cpu").processor.tokenizer
    tokenizer.response_template = response_template(HEAD, [END, "<|endoftext|>"])
    parsed = tokenizer.parse_response(text, prefix=f"<|im_start|>user\nit{END}{HEAD}")
    found = [call["function"]["arguments"]["text"] for call in parsed.get("tool_calls", [])]
    assert found == ([] if calls is None else [calls])


def test_a_tool_speaks_as_a_user_under_any_template(policy):
    """What TRL puts between two answers is what the policy reads in use."""
    processor = load(str(policy), device="cpu").processor
    own = processor.chat_template
    picture = [{"type": "image"}, {"type": "text", "text": "area 10%"}]
    said = {"role": "assistant", "content": [{"type": "text", "text": POINT}]}
    as_user = processor.apply_chat_template([said, {"role": "user", "content": picture}], add_generation_prompt=True)
    processor.chat_template = looking_template(own)
    as_tool = processor.apply_chat_template([said, {"role": "tool", "content": picture}], add_generation_prompt=True)
    assert as_tool == as_user
    assert answer_head(lambda chat: processor.apply_chat_template(chat, add_generation_prompt=True), END) == HEAD


@pytest.mark.parametrize(
    ("length", "section", "said"),
    [
        (
            60,
            {"max": 2, "answer_tokens": 24},
            "is too short for turns.max: 2: 2 answers of turns.answer_tokens: 24 and",
        ),
        (2000, {"max": 2, "answer_tokens": 24}, "is more than the 1024 that the policy can read"),
    ],
)
def test_a_recipe_whose_turns_could_be_cut_is_refused(policy, tmp_path, length, section, said):
    chosen = recipe(policy, turns={**section, "instruction": False})
    chosen = chosen.model_copy(update={"trainer": {**chosen.trainer, "max_completion_length": length}})
    parts = Parts(chosen)
    config = build_config(chosen, tmp_path, say=lambda line: None)
    with pytest.raises(RecipeError, match=said):
        prepare(parts, config)


def test_a_run_over_turns_is_logged_by_turn_and_resumes_exactly(policy, tmp_path):
    whole = train(recipe(policy), tmp_path / "whole", progress=False, say=lambda line: None)
    rows = read_rows(whole.steps_path)
    assert {"turns/mean", "turns/giou_1", "turns/done"} <= rows[0].keys()
    assert all(row["tools/failure_frequency"] == 0 for row in rows)
    groups = read_rows(whole.rollouts_path)
    turns = [turn for group in groups for one in group["completions"] for turn in one["turns"]]
    assert {"text", "move", "mask", "iou", "prompts", "status", "tokens"} <= turns[0].keys()
    settings = json.loads((whole.model_dir / "segrl.json").read_text())
    assert settings["turns"] == {"show": "cutout", "instruction": False, "continues": True}
    assert "tool" not in (whole.model_dir / "chat_template.jinja").read_text()
    assert "response_template" not in json.loads((whole.model_dir / "tokenizer_config.json").read_text())
    with pytest.raises(InterruptedError):
        train(recipe(policy), tmp_path / "cut", progress=False, callbacks=[_stop_after(1)], say=lambda line: None)
    again = train(recipe(policy), tmp_path / "cut", progress=False, say=lambda line: None)
    assert [r["completions_sha"] for r in read_rows(again.steps_path)] == [r["completions_sha"] for r in rows]


@pytest.mark.parametrize(("share", "shared"), [(0.5, [False, True]), (1.0, [True, True])])
def test_of_a_share_of_the_groups_the_first_answer_is_one(policy, tmp_path, share, shared):
    section = {"max": 2, "show": "cutout", "instruction": False, "answer_tokens": 24, "shared_first": share}
    run = train(recipe(policy, turns=section), tmp_path, progress=False, say=lambda line: None)
    groups = read_rows(run.rollouts_path)
    firsts = [{one["turns"][0]["text"] for one in group["completions"]} for group in groups]
    assert [len(texts) == 1 for texts in firsts] == shared * 2


def test_groups_that_are_cut_cannot_share_a_first_answer(policy, tmp_path):
    section = {"max": 2, "show": "cutout", "instruction": False, "answer_tokens": 24, "shared_first": 0.5}
    chosen = recipe(policy, turns=section)
    cut = {"num_generations": 4, "per_device_train_batch_size": 2, "steps_per_generation": 3}
    config = build_config(chosen, tmp_path, say=lambda line: None)
    for name, value in cut.items():
        setattr(config, name, value)
    with pytest.raises(RecipeError, match="6 completions are no multiple of"):
        prepare(Parts(chosen), config)


def _stop_after(step: int):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise InterruptedError

    return Stop()


def test_transcripts_are_trained_on(policy, tmp_path):
    options = {"seed": 0, "segmenter": None, "first": 0.2, "wording": "short"}
    chosen = recipe(
        policy,
        method="sft",
        segmenter=None,
        rewards={},
        dataset={"name": "tiny", "n": 8, "seed": 1, "turns": options},
        trainer={"max_steps": 1, "per_device_train_batch_size": 4, "save_steps": 1, "gradient_checkpointing": False},
    )
    row = Parts(chosen).policy.reader.sft_row(next(e for e in Parts(chosen).examples if len(e.meta["turns"]) == 2))
    assert row["prompt"].count("<|image_pad|>") == len(row["images"]) == 2
    assert row["completion"].endswith(END)
    assert train(chosen, tmp_path, progress=False, say=lambda line: None).last_step == 1
    wrong = Parts(recipe(policy, dataset={"name": "tiny", "n": 8, "seed": 1, "turns": {"good": 2}}))
    with pytest.raises(DataError, match=r"turns\.good is a share"):
        _ = wrong.examples


def test_data_that_a_later_stage_misses_is_told_before_the_first_trains(policy, tmp_path):
    recipe_path = tmp_path / "recipe.yaml"
    recipe_path.write_text(
        f"method: sft\npolicy: {policy}\ndataset: {{name: tiny, n: 8, seed: 1}}\ntrainer: {{max_steps: 1}}\n"
        "stages:\n  look: {seed: 1}\n  correct: {dataset: {turns: {answers: missing}}}\n"
    )
    with pytest.raises(DataError, match="there is no missing"):
        segrl.train(recipe_path, tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()
