"""What lies beside a checkpoint's weights decides neither how rollouts are drawn nor how greedy answers are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_configs import GENERATION
from PIL import Image
from tiny_families import save_family

from segrl import policies
from segrl.training import parse_recipe
from segrl.training.checkpoints import RunDir
from segrl.training.parts import Parts
from segrl.training.trainer import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

OWN = {"Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"}
FURTHER = {"min_p": 0.9, "typical_p": 0.2, "no_repeat_ngram_size": 1, "epsilon_cutoff": 0.5, "min_new_tokens": 12}
"""Not in the checkpoints of today, and as easily written there."""
LADEN = {name: GENERATION[name] for name in sorted(OWN)} | {
    "everything": GENERATION["Qwen/Qwen2-VL-2B-Instruct"] | {"repetition_penalty": 1.5, "do_sample": True} | FURTHER
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a generation configuration."""
    directory = save_family("qwen2_5_vl", tmp_path_factory.mktemp("plain") / "policy")
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


def laden(plain: Path, place: Path, sampling: dict[str, Any]) -> Path:
    """The same with the sampling of `sampling`; ids of this tiny vocabulary stay as they are."""
    shutil.copytree(plain, place)
    own = {key: value for key, value in sampling.items() if not key.endswith("token_id")}
    (place / "generation_config.json").write_text(json.dumps(own))
    return place


def rollout(policy: Path, run: Path) -> list[list[int]]:
    values = {
        "method": "grpo",
        "policy": {"path": str(policy), "input_wh": [112, 112], "frame": "relative_1000"},
        "answer_format": "seg-r1",
        "segmenter": "box",
        "dataset": {"name": "tiny", "n": 4, "seed": 3},
        "rewards": {"iou": 1.0},
        "reward_check": False,
        "trainer": {
            "max_steps": 1,
            "save_steps": 1,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 24,
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
        },
    }
    trainer = build(Parts(parse_recipe(values)), RunDir(run), say=lambda line: None).trainer
    trainer.model.train()
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return [
        ids[mask.bool()].tolist() for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
    ]


def greedy(policy: Path) -> list[str]:
    loaded = policies.load(policy, frame="relative_1000", answer_format="seg-r1")
    image = Image.linear_gradient("L").convert("RGB").resize((112, 84))
    ((one,),) = loaded.generate([image], ["Where is it?"], max_new_tokens=24)
    drawn = loaded.generate([image], ["Where is it?"], max_new_tokens=24, temperature=1.0, num_samples=3)[0]
    return [one.text, *(sample.text for sample in drawn)]


@pytest.mark.parametrize("name", LADEN)
def test_no_sampling_default_of_a_checkpoint_is_taken_over(plain: Path, tmp_path: Path, name: str):
    other = laden(plain, tmp_path / "policy", LADEN[name])
    assert greedy(other) == greedy(plain)
    expected = rollout(plain, tmp_path / "plain")
    assert rollout(other, tmp_path / "laden") == expected
    assert len({tuple(ids) for ids in expected}) > 4  # they were drawn, not chosen
