"""Rows made on access, and the order in which a run reads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from segrl import policies
from segrl.errors import RecipeError
from segrl.masks import from_rle
from segrl.policies import PolicySettings
from segrl.tiny import resolve_policy
from segrl.training import parse_recipe
from segrl.training.parts import Reader, layout, lazy_dataset, load_policy, rows_needed
from segrl.types import ORIGINAL, Example, Frame, MaskPrompt


def example(i: int = 0, **meta) -> Example:
    targets = np.zeros((1, 20, 40), dtype=bool)
    targets[0, 4:12, 10:30] = True
    return Example(f"e{i}", f"i{i}", Image.new("RGB", (40, 20)), "the bar", targets, tags={"kind": "a"}, meta=meta)


READER = Reader(
    PolicySettings(input_wh=(80, 80), system="Point."),
    "seg-r1",
    lambda image_wh: Frame.resized(80, 80),
    lambda chat: f"{chat[-1]['content'][-1]['text']} ->",
)


def test_every_epoch_is_one_seeded_permutation():
    order = layout(7, 18, seed=3)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert order[:7].tolist() != order[7:14].tolist()
    assert layout(7, 18, seed=3).tolist() == order.tolist()
    assert layout(7, 40, seed=3)[:18].tolist() == order.tolist()  # a longer run begins alike
    assert layout(7, 18, seed=4).tolist() != order.tolist()


def settings(**values) -> SimpleNamespace:
    base = {"per_device_train_batch_size": 8, "world_size": 1, "gradient_accumulation_steps": 2, "max_steps": -1}
    grpo = {"generation_batch_size": 16, "num_generations": 4, "steps_per_generation": 2, "num_iterations": 1}
    return SimpleNamespace(**{**base, **grpo, **values})


@pytest.mark.parametrize(
    ("method", "values", "rows"),
    [
        ("sft", {}, 75),
        ("sft", {"max_steps": 10}, 160),
        ("grpo", {}, 75),
        ("grpo", {"max_steps": 10}, 40),
        ("grpo", {"max_steps": 10, "num_iterations": 2}, 20),
        ("grpo", {"max_steps": 5, "num_iterations": 2}, 12),
    ],
)
def test_rows_of_a_whole_run(method, values, rows):
    assert rows_needed(settings(**values), method, n=50, epochs=1.5) == rows


def test_too_little_data_for_one_batch():
    with pytest.raises(RecipeError, match="2 examples are less than the 4 of one batch"):
        rows_needed(settings(), "grpo", n=2, epochs=1)


def test_rl_row_shows_the_squashed_image_and_keeps_the_original():
    row = READER.rl_row(example())
    assert (row["image"].size, row["original"].size, row["image_hw"]) == ((80, 80), (40, 20), (20, 40))
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert [part["type"] for part in row["prompt"][1]["content"]] == ["image", "text"]
    assert (from_rle(row["ground_truth"][0]) == example().targets[0]).all()
    assert (row["ignore"], row["tags"], row["query"]) == (None, {"kind": "a"}, "the bar")


def test_sft_row_has_the_same_prompt_and_the_gold_answer_in_the_policys_frame():
    gold = MaskPrompt((10.0, 4.0, 30.0, 12.0), ((15.0, 6.0),), (1,), ORIGINAL)
    e = example(prompts=(gold,), reasoning="a bar")
    row = READER.sft_row(e)
    assert row["prompt"] == READER.rl_row(e)["prompt"]
    (answer,) = row["completion"]
    text = answer["content"][0]["text"]
    assert "a bar" in text
    assert "[20,16,60,48]" in text.replace(" ", "")
    assert row["images"][0].size == (80, 80)


def test_gold_prompts_come_from_masks_and_other_skills_from_raw_texts():
    assert "[20,16,60,48]" in READER.completion(example()).replace(" ", "")
    e = example(prompt_text="How many?", completion_text="Two.")
    assert READER.prompt(e)[1]["content"][1]["text"] == "How many?"
    assert READER.completion(e) == "Two."


def test_rows_are_made_when_read_and_kept_while_in_use():
    made = []

    def row(e: Example) -> dict:
        made.append(e.id)
        return {"id": e.id}

    rows = lazy_dataset([example(i) for i in range(5)], np.array([3, 1, 3, 4]), row, keep=2)
    assert (len(rows), made) == (4, [])
    assert [r["id"] for r in rows.__getitems__([0, 0, 1, 2])] == ["e3", "e3", "e1", "e3"]
    assert made == ["e3", "e1"]


def test_an_answer_that_begins_in_the_prompt_is_plain_text_without_an_image():
    blank = np.zeros((0, 80, 80), dtype=bool)
    meta = {"text_only": True, "answer_begins": "<think>1 cup", "completion_text": ". it is 1</think>"}
    example = Example("a", "a", Image.new("RGB", (80, 80)), "the cup", blank, meta=meta)
    row = READER.sft_row(example)
    assert row == {
        "prompt": "Identify and segment the cup -><think>1 cup",
        "completion": ". it is 1</think>",
        "images": [],
    }


def test_training_reads_a_known_checkpoint_as_an_evaluation_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = Path("geshang", "Seg-R1-7B")
    shutil.copytree(resolve_policy("tiny"), named, ignore=shutil.ignore_patterns("segrl.json"))
    sft = {"method": "sft", "policy": str(named), "dataset": {"name": "tiny", "n": 4, "seed": 1}}
    trained = load_policy(parse_recipe(sft)).settings
    assert trained == policies.load(named).settings
    assert (trained.answer_format, trained.input_wh) == ("seg-r1", (768, 768))
    assert trained.system
    overridden = load_policy(parse_recipe({**sft, "policy": {"path": str(named), "input_wh": [112, 112]}})).settings
    assert overridden.input_wh == (112, 112)
