"""Run by test_integrations.py where another trainer is installed: the client, loaded and called by its own code.

Reads [texts, ground truth] on standard input and prints the rewards.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def verl(client: str, texts: list[str], truth: str, tokenizer: Any) -> list[float]:
    """`reward.custom_reward_function`, called as verl's reward managers do."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    named = {"custom_reward_function": {"path": client, "name": "verl_score"}}
    compute_score = get_custom_reward_fn(OmegaConf.create({"reward": named}))
    info = {"num_turns": None, "rollout_reward_scores": {}}
    columns = {"data_source": "segrl", "ground_truth": truth, "extra_info": info}
    return [float(compute_score(solution_str=text, **columns)["score"]) for text in texts]


def swift(client: str, texts: list[str], truth: str, tokenizer: Any) -> list[float]:
    """`--external_plugins client.py --reward_funcs segrl`."""
    from swift.rewards import orms
    from swift.utils import import_external_file

    import_external_file(client)
    return list(orms["segrl"](args=None)(texts, ground_truth=[truth] * len(texts), trainer_state=None))


def easyr1(client: str, texts: list[str], truth: str, tokenizer: Any) -> list[float]:
    """`worker.reward.reward_function=client.py:easyr1_score`."""
    import numpy as np
    import torch
    from verl.protocol import DataProto
    from verl.workers.reward.config import RewardConfig
    from verl.workers.reward.function import AutoRewardManager

    config = RewardConfig(reward_function=f"{client}:easyr1_score")
    config.post_init()
    manager = AutoRewardManager(config, tokenizer)
    rows = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    truths = np.array([truth] * len(texts), dtype=object)
    data = DataProto.from_dict({"responses": ids, "response_mask": mask}, non_tensors={"ground_truth": truths})
    rewards, _ = manager.compute_reward(data)
    return [float(one) for one in rewards.sum(dim=1)]


if __name__ == "__main__":
    from transformers import AutoTokenizer

    trainer, client, policy = sys.argv[1:]
    texts, truth = json.load(sys.stdin)
    run = {"verl": verl, "swift": swift, "easyr1": easyr1}[trainer]
    print(json.dumps(run(client, texts, truth, AutoTokenizer.from_pretrained(policy))))
