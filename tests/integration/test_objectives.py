"""Each objective of docs/objectives.md against a computation by hand, through the trainer that a recipe builds.

The options are those of the shipped recipes. The log-probabilities are taken from the model itself, the
ratios from old log-probabilities that differ from them, as they do from the second update on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ci_overlay import ci
from small import save_data, save_policy

from segrl.files import read_rows
from segrl.training import parse_recipe, train
from segrl.training.checkpoints import RunDir
from segrl.training.parts import Parts
from segrl.training.recipe import load_recipe
from segrl.training.trainer import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

FOLDER = Path(__file__).parents[2] / "recipes"
LENGTHS_M = np.array([5, 2, 4, 1])
ADVANTAGES_M = np.array([1.2, -0.7, 0.4, -0.9])
MASK_MT = np.arange(5) < LENGTHS_M[:, None]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("objectives")
    save_policy(place / "policy")
    save_data(place / "data", n=4)
    return place


def recipe_of(place: Path, name: str, *overrides: str) -> Any:
    overrides = ("trainer.bf16=false", "trainer.gradient_checkpointing=false", "trainer.temperature=1.0", *overrides)
    recipe, _ = ci(load_recipe(FOLDER / f"{name}.yaml", overrides), {"hub": place / "policy"}, place / "data")
    return recipe


@pytest.fixture(scope="module")
def built(place):
    """Builds the trainer of a recipe once."""
    made: dict[tuple[str, ...], Any] = {}

    def make(name: str, *overrides: str) -> Any:
        if (name, *overrides) not in made:
            run = RunDir(place / f"run-{len(made)}")
            trainer = build(Parts(recipe_of(place, name, *overrides)), run, say=lambda line: None).trainer
            trainer.current_gradient_accumulation_steps = 1
            trainer.args.steps_per_generation = 1
            trainer.model.eval()  # no dropout anywhere; only the mode of the metrics' names
            made[name, *overrides] = trainer
        return made[name, *overrides]

    return make


def batch(trainer: Any, old_shift_MT: np.ndarray, ref_shift_MT: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """What TRL hands to its loss, and the model's own log-probabilities `(M, T)`."""
    rng = torch.Generator().manual_seed(7)
    prompt = torch.randint(20, 60, (4, 3), generator=rng)
    completion = torch.randint(20, 60, (4, 5), generator=rng)
    mask = torch.from_numpy(MASK_MT).long()
    with torch.no_grad():
        ids = torch.cat([prompt, completion], dim=1)
        attention = torch.cat([torch.ones_like(prompt), mask], dim=1)
        logits = trainer.model(input_ids=ids, attention_mask=attention).logits[:, 2:-1]
        logps = logits.float().log_softmax(-1).gather(-1, completion[..., None])[..., 0]
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": completion,
        "completion_mask": mask,
        "advantages": torch.from_numpy(ADVANTAGES_M).float(),
        "old_per_token_logps": logps + torch.from_numpy(old_shift_MT).float(),
        "ref_per_token_logps": logps + torch.from_numpy(ref_shift_MT).float(),
        "num_items_in_batch": mask.sum(),
    }
    return inputs, logps.numpy()


RATIOS_MT = np.array(
    [
        [1.0, 1.25, 1.4, 0.7, 0.9],  # advantage above 0: the upper bound acts
        [0.5, 1.5, 1.0, 1.0, 1.0],  # below 0: the lower one
        [1.2, 1.3, 1.31, 0.1, 1.0],
        [0.79, 1.0, 1.0, 1.0, 1.0],
    ]
)
REFERENCE_MT = np.linspace(-0.6, 0.8, 20).reshape(4, 5)
"""log π_ref − log π_θ of each token."""


def surrogate(low: float, high: float) -> np.ndarray:
    """PPO's clipped surrogate of each token, `(M, T)`, written out."""
    out = np.zeros(RATIOS_MT.shape)
    for i, t in np.ndindex(*RATIOS_MT.shape):
        ratio, advantage = RATIOS_MT[i, t], ADVANTAGES_M[i]
        bounded = 1 - low if ratio < 1 - low else 1 + high if ratio > 1 + high else ratio
        out[i, t] = min(ratio * advantage, bounded * advantage)
    return out


K3_MT = np.exp(REFERENCE_MT) - REFERENCE_MT - 1


def loss_of(trainer: Any) -> float:
    inputs, _ = batch(trainer, -np.log(RATIOS_MT), REFERENCE_MT)
    return float(trainer._compute_loss(trainer.model, inputs).detach())


def test_sam_r1_is_a_mean_over_tokens_with_a_higher_upper_clip_and_plain_k3(built):
    tokens_MT = -surrogate(0.2, 0.3) + 0.005 * K3_MT
    by_hand = tokens_MT[MASK_MT].sum() / LENGTHS_M.sum()
    assert loss_of(built("sam_r1")) == pytest.approx(by_hand, abs=1e-5)


def test_its_ablations_are_other_objectives(built):
    symmetric = -surrogate(0.2, 0.2) + 0.005 * K3_MT
    assert loss_of(built("sam_r1", "trainer.epsilon_high=0.2")) == pytest.approx(
        symmetric[MASK_MT].sum() / LENGTHS_M.sum(), abs=1e-5
    )
    no_kl = -surrogate(0.2, 0.3)
    assert loss_of(built("sam_r1", "trainer.beta=0.0")) == pytest.approx(
        no_kl[MASK_MT].sum() / LENGTHS_M.sum(), abs=1e-5
    )
    full = -surrogate(0.2, 0.3) + 0.005 * K3_MT
    per_sequence = np.mean([full[i, :n].sum() / n for i, n in enumerate(LENGTHS_M)])
    assert loss_of(built("sam_r1", "trainer.loss_type=grpo")) == pytest.approx(per_sequence, abs=1e-5)


def test_seg_r1_is_a_mean_of_the_completions_means_with_k3(built):
    tokens_MT = -surrogate(0.2, 0.2) + 0.04 * K3_MT
    by_hand = np.mean([tokens_MT[i, :n].sum() / n for i, n in enumerate(LENGTHS_M)])
    assert loss_of(built("seg_r1_rl")) == pytest.approx(by_hand, abs=1e-5)


def test_trls_default_kl_is_another_one(built):
    """k3 times the ratio: what `use_bias_correction_kl: false` keeps out of both papers' objectives."""
    tokens_MT = -surrogate(0.2, 0.2) + 0.04 * K3_MT * RATIOS_MT
    by_hand = np.mean([tokens_MT[i, :n].sum() / n for i, n in enumerate(LENGTHS_M)])
    assert loss_of(built("seg_r1_rl", "trainer.use_bias_correction_kl=true")) == pytest.approx(by_hand, abs=1e-5)


def test_advantages_are_those_of_the_group(place, tmp_path):
    """(R − mean) / (std + 1e-4) within a group, the standard deviation with n − 1."""
    recipe = recipe_of(place, "seg_r1_rl")
    rewards = {"length": {"weight": 1.0, "python": "test_objectives.characters"}}
    values = {**recipe.as_dict(), "rewards": rewards, "log": {"rollouts": {"every": 1}}, "reward_check": False}
    result = train(parse_recipe(values), tmp_path, say=lambda line: None, progress=False)
    group = read_rows(result.rollouts_path)[0]
    paid = np.array([completion["reward"] for completion in group["completions"]])
    assert len(set(paid)) > 1
    by_hand = (paid - paid.mean()) / (paid.std(ddof=1) + 1e-4)
    assert [c["advantage"] for c in group["completions"]] == pytest.approx(by_hand.tolist(), abs=1e-4)


def characters(rollout: Any) -> float:
    """A reward that differs between random completions."""
    return float(sum(map(ord, rollout.text)) % 11)


LENGTHS_G = (3, 8, 5, 1, 7, 2, 8, 4)


def of_lengths(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Completions of LENGTHS_G tokens each, the end token included."""
    end = trainer.processing_class.tokenizer.eos_token_id
    completions = [[40 + i] * (LENGTHS_G[i % 8] - 1) + [end] for i in range(len(prompts))]
    return {"prompt_ids": trainer._tokenize_prompts(prompts)[0], "completion_ids": completions, "logprobs": None}


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_token_level_counts_the_tokens_of_all_micro_batches(place, tmp_path, monkeypatch, loss_type):
    """A group of 8 in two micro-batches, ratios of 1: Σ A n / Σ n over the whole step, not over each micro-batch."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    overrides = ("trainer.num_iterations=1", "trainer.beta=0.0", f"trainer.loss_type={loss_type}")
    recipe = recipe_of(place, "sam_r1", *overrides)
    assert recipe.trainer["gradient_accumulation_steps"] == 2
    rewards = {"length": {"weight": 1.0, "python": "test_objectives.characters"}}
    values = {**recipe.as_dict(), "rewards": rewards, "log": {"rollouts": {"every": 1}}, "reward_check": False}
    result = train(parse_recipe(values), tmp_path, rollout_func=of_lengths, say=lambda line: None, progress=False)
    group = read_rows(result.rollouts_path)[0]
    advantages_G = np.array([completion["advantage"] for completion in group["completions"]])
    lengths_G = np.array(LENGTHS_G)
    assert abs(advantages_G).max() > 0.5
    by_hand = -(advantages_G * lengths_G).sum() / lengths_G.sum() if loss_type == "dapo" else -advantages_G.mean()
    assert read_rows(result.steps_path)[0]["loss"] == pytest.approx(by_hand, abs=1e-4)


def test_a_clip_acts_from_the_second_update_of_a_rollout_on(place, tmp_path):
    """SAM-R1 makes two updates per rollout: the ratio is 1 in the first, so only the second may clip."""
    rewards = {"length": {"weight": 1.0, "python": "test_objectives.characters"}}
    losses = {}
    for high in (0.3, 0.0001):
        faster = ["trainer.learning_rate=0.05", "trainer.optim=sgd", "trainer.epsilon=0.0001"]
        recipe = recipe_of(place, "sam_r1", f"trainer.epsilon_high={high}", *faster)
        values = {**recipe.as_dict(), "rewards": rewards, "reward_check": False}
        out = tmp_path / json.dumps(high)
        rows = read_rows(train(parse_recipe(values), out, say=lambda line: None, progress=False).steps_path)
        assert rows[0]["completions_sha"] == rows[1]["completions_sha"]
        assert rows[0]["clip_ratio/region_mean"] == 0
        assert rows[1]["clip_ratio/region_mean"] > 0
        losses[high] = [row["loss"] for row in rows]
    assert losses[0.3][0] == losses[0.0001][0]
    assert losses[0.3][1] != losses[0.0001][1]
