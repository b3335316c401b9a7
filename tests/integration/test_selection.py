"""Of a rollout the best and worst train, and groups without spread do not: the gradient is that of those alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_families import save_family

from segrl.errors import RecipeError
from segrl.files import read_rows
from segrl.training import parse_recipe, train
from segrl.training.checkpoints import RunDir
from segrl.training.parts import Parts
from segrl.training.selection import advantages, check_selection, chosen_rows, is_flat
from segrl.training.trainer import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

BOX = "<think>{}</think> <bbox>[10,10,60,60]</bbox>, <points>[[30,30]]</points>, <labels>[1]</labels>"
EIGHT = [
    "nothing",
    "<bbox>[10,10,60,60]</bbox>",
    BOX.format("A box."),
    "no",
    "<bbox>[0,0,112,112]</bbox>",
    BOX.format("This one."),
    "none",
    "<bbox>[10,10,20,20]</bbox>, <points>[[15,15]]</points>",
]
FLAT = ["nothing"] * 8


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return save_family("qwen2_5_vl", tmp_path_factory.mktemp("policy"), sharp=True)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns of its `rollout_func`


def recipe_of(policy: Path, trainer: dict[str, Any], **more: Any) -> Any:
    base = {
        "max_steps": 2,
        "save_steps": 2,
        "num_generations": 8,
        "per_device_train_batch_size": 16,
        "max_completion_length": 96,
        "learning_rate": 0.01,
        "optim": "sgd",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "beta": 0.1,
    }
    values = {
        "method": "grpo",
        "policy": {"path": str(policy), "input_wh": [112, 112], "frame": "relative_1000"},
        "answer_format": "seg-r1",
        "segmenter": "box",
        "dataset": {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape", "pair"]},
        "rewards": {"iou": 1.0, "format": 0.5},
        "reward_check": False,
        "trainer": base | trainer,
    }
    return parse_recipe(values | more)


class Script:
    """A rollout function: the n-th different query gets the n-th list of texts, each text once; the last list again."""

    def __init__(self, *lists: Sequence[str]) -> None:
        self.lists = lists

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        tokenizer, places, seen = trainer.processing_class.tokenizer, {}, Counter()
        completions = []
        for prompt in prompts:
            query = json.dumps(prompt, default=lambda image: "")
            own = self.lists[min(places.setdefault(query, len(places)), len(self.lists) - 1)]
            completions.append([*tokenizer(own[seen[query] % len(own)])["input_ids"], tokenizer.eos_token_id])
            seen[query] += 1
        return {"prompt_ids": trainer._tokenize_prompts(prompts)[0], "completion_ids": completions, "logprobs": None}


class Pass:
    """A trainer with one rollout."""

    def __init__(self, recipe: Any, run: Path, script: Script) -> None:
        self.trainer = build(Parts(recipe), RunDir(run), rollout_func=script, say=lambda line: None).trainer
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        self.inputs = self.trainer._prepare_inputs(next(iter(self.trainer.get_train_dataloader())))

    @property
    def texts(self) -> list[str]:
        tokenizer = self.trainer.processing_class.tokenizer
        rows = zip(self.inputs["completion_ids"], self.inputs["completion_mask"], strict=True)
        return [tokenizer.decode(ids[mask.bool()][:-1]) for ids, mask in rows]

    def gradient(self) -> torch.Tensor:
        self.trainer.model.zero_grad()
        self.trainer.compute_loss(self.trainer.model, self.inputs).backward()
        return torch.cat([p.grad.flatten() for p in self.trainer.model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("loss_type", "scale"),
    [*((loss, scale) for loss in ("grpo", "dapo") for scale in ("group", "batch", "none")), ("bnpo", "group")],
)
def test_selected_completions_train_as_if_there_were_no_others(
    policy: Path, tmp_path: Path, loss_type: str, scale: str
):
    same = {"loss_type": loss_type, "scale_rewards": scale}
    few = Pass(recipe_of(policy, same, select={"best": 2, "worst": 2}), tmp_path / "few", Script(EIGHT))
    assert len(few.texts) == 8
    assert sum(BOX.format("A box.") == text for text in few.texts) == 2  # the best of both groups
    alone = [text for text in EIGHT if text in few.texts]
    assert len(alone) == 4
    only = {"num_generations": 4, "per_device_train_batch_size": 8}
    other = Pass(recipe_of(policy, same | only), tmp_path / "alone", Script(alone))
    assert sorted(other.texts) == sorted(few.texts)
    whole = Pass(recipe_of(policy, same), tmp_path / "whole", Script(EIGHT)).gradient()
    selected, wanted = few.gradient(), other.gradient()
    assert (selected - wanted).norm() < 1e-5 * wanted.norm()
    assert (whole - wanted).norm() > 0.05 * wanted.norm()


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_groups_without_spread_are_no_part_of_the_mean(policy: Path, tmp_path: Path, loss_type: str):
    same = {"loss_type": loss_type}
    skipping = recipe_of(policy, same, dynamic_sampling="skip")
    both = Pass(skipping, tmp_path / "both", Script(EIGHT, FLAT))
    assert both.trainer._metrics["train"]["groups/flat"] == [0.5]
    assert both.trainer._metrics["train"]["groups/skipped"] == [0.5]
    only = {"per_device_train_batch_size": 8}
    one = Pass(recipe_of(policy, same | only), tmp_path / "one", Script(EIGHT)).gradient()
    kept = Pass(recipe_of(policy, same), tmp_path / "kept", Script(EIGHT, FLAT)).gradient()
    skipped = both.gradient()
    assert (skipped - one).norm() < 1e-5 * one.norm()
    assert (kept - one).norm() > 0.1 * one.norm()  # the KL of the flat group, and a mean over twice as many
    nothing = Pass(skipping, tmp_path / "nothing", Script(FLAT, FLAT)).gradient()
    assert nothing.abs().max() == 0


def test_groups_without_spread_are_replaced_by_others(policy: Path, tmp_path: Path):
    class Later(Script):
        calls = 0

        def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
            self.lists = ((EIGHT, FLAT), (FLAT, EIGHT))[min(self.calls, 1)]
            self.calls += 1
            return super().__call__(prompts, trainer)

    script = Later()
    found = Pass(recipe_of(policy, {}, dynamic_sampling="replace"), tmp_path, script)
    logged = found.trainer._metrics["train"]
    assert script.calls == 2
    assert (logged["groups/flat"], logged["groups/replaced"], logged["groups/skipped"]) == ([0.5], [0.5], [0.0])
    assert len(found.texts) == 16
    assert Counter(found.texts) == Counter(EIGHT * 2)
    prompts = {tuple(row.tolist()) for row in found.inputs["prompt_ids"]}
    assert len(prompts) == 2
    assert found.gradient().isfinite().all()


def test_the_shares_stand_in_the_log(policy: Path, tmp_path: Path):
    train(recipe_of(policy, {}, dynamic_sampling="skip"), tmp_path, rollout_func=Script(EIGHT, FLAT), progress=False)
    rows = list(read_rows(tmp_path / "steps.jsonl"))
    assert [(row["groups/flat"], row["groups/skipped"]) for row in rows] == [(0.5, 0.5)] * 2
    sampled = list(read_rows(tmp_path / "rollouts.jsonl"))
    assert {row["step"] for row in sampled} <= {1, 2}
    texts = {completion["text"] for row in sampled for completion in row["completions"]}
    assert texts & {*EIGHT}


NAN = float("nan")


@pytest.mark.parametrize(
    ("rewards", "best", "worst", "rows"),
    [
        ([1, 3, 2, 0, 9, 8, 7, 6], 1, 1, [1, 3, 4, 7]),
        ([1, 1, 1, 1, 0, 0, 0, 0], 1, 1, [0, 3, 4, 7]),  # ties: the earlier is the better one
        ([1, NAN, 3, 0, NAN, NAN, NAN, NAN], 1, 1, [2, 3, 4, 7]),
        ([1, 3, 2, 0, 9, 8, 7, 6], 2, 2, [0, 1, 2, 3, 4, 5, 6, 7]),
        ([1, 3, 2, 0], 0, 0, [0, 1, 2, 3]),
    ],
)
def test_the_best_and_the_worst_of_each_group(rewards: list[float], best: int, worst: int, rows: list[int]):
    assert chosen_rows(torch.tensor(rewards, dtype=torch.float), 4, best, worst) == rows


def test_advantages_and_spread_are_trls():
    rewards = torch.tensor([1.0, 3.0, NAN, 2.0, 5.0, 5.0, 5.0, 5.0])
    assert is_flat(rewards.view(2, 4)).tolist() == [False, True]
    group = advantages(rewards, 4, "group")
    torch.testing.assert_close(group[:4], torch.tensor([-1.0, 1.0, 0.0, 0.0]) / (1 + 1e-4))
    assert group[4:].tolist() == [0.0] * 4
    assert advantages(rewards, 4, "none")[:4].tolist() == [-1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("trainer", "more", "hint"),
    [
        ({}, {"select": {"best": 6, "worst": 4}}, "more than num_generations"),
        ({"gradient_accumulation_steps": 4}, {"select": {"best": 1, "worst": 2}}, "cannot be shared among 4"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, {"dynamic_sampling": "skip"}, "must be sum_then_norm"),
    ],
)
def test_what_cannot_be_selected_from_is_refused(policy: Path, tmp_path: Path, trainer: Any, more: Any, hint: str):
    if "gradient_accumulation_steps" in trainer:
        trainer = trainer | {"per_device_train_batch_size": 2, "save_steps": 4}
    with pytest.raises(RecipeError, match=hint):
        build(Parts(recipe_of(policy, trainer, **more)), RunDir(tmp_path), say=lambda line: None)


def test_groups_that_processes_cut_are_refused(policy: Path):
    """Two processes of four completions hold one group of eight, neither of them whole."""
    config = SimpleNamespace(num_generations=8, per_device_train_batch_size=4, steps_per_generation=1)
    with pytest.raises(RecipeError, match="must hold whole groups of 8"):
        check_selection(recipe_of(policy, {}, select={"best": 1, "worst": 1}), config)
