"""GRPO in a script of your own: plain TRL, with a recipe's data and mask reward.

    python examples/grpo_in_plain_trl.py recipes/tiny_quickstart.yaml runs/plain 5

For those who have a training script already. `segrl train` adds exact resume, checks, logs and a report.
"""

import sys

from trl import GRPOConfig, GRPOTrainer

from segrl.integrations import from_recipe


def main(recipe: str, out: str, steps: str = "5", generations: str = "4", tokens: str = "104") -> None:
    """Train, and save the policy in `out`."""
    reward = from_recipe(recipe)  # answer format, frozen segmenter, terms and weights
    options = GRPOConfig(
        output_dir=out,
        max_steps=int(steps),
        num_generations=int(generations),
        per_device_train_batch_size=int(generations),
        max_completion_length=int(tokens),
        gradient_checkpointing=False,
        bf16=False,  # segrl train measures which type is faster on a CPU
        use_cpu=True,
        report_to="none",
    )
    trainer = GRPOTrainer(
        model=reward.policy.path,
        args=options,
        reward_funcs=reward,
        train_dataset=reward.dataset(),
        processing_class=reward.policy.processor,
    )
    trainer.train()
    trainer.save_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
