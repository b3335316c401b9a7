"""What is refused of a division of the weights, in one line."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from segrl.errors import RecipeError
from segrl.training import parse_recipe, sharding
from segrl.training.held_out import check_held_out

FSDP = {"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT"}


def config(**changes):
    """What TRL's configuration says of FSDP on two processes."""
    given = {"fsdp": True, "deepspeed": None, "world_size": 2, "optim": "adamw_torch", "fsdp_plugin_args": FSDP}
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"world_size": 1}, "add --processes N"),
        ({"fsdp_plugin_args": {**FSDP, "fsdp_version": 1}}, "fsdp_config.version must be 2"),
        ({"fsdp_plugin_args": {**FSDP, "state_dict_type": "SHARDED_STATE_DICT"}}, "checkpoints hold no model"),
        ({"optim": "sgd"}, "use adamw_torch"),
    ],
)
def test_what_fsdp_would_not_do(changes, said):
    sharding.check_sharding(config())
    with pytest.raises(RecipeError, match=said) as caught:
        sharding.check_sharding(config(**changes))
    assert "\n" not in str(caught.value)


def test_zero_3_without_a_model_in_its_checkpoints():
    def of(stage: int, gathers: bool):
        return SimpleNamespace(is_zero3=lambda: stage == 3, get_value=lambda key: gathers)

    for stage, gathers in ((2, False), (3, True)):
        sharding.check_sharding(config(fsdp=None, deepspeed="a.json", hf_deepspeed_config=of(stage, gathers)))
    with pytest.raises(RecipeError, match="stage3_gather_16bit_weights_on_model_save to true"):
        sharding.check_sharding(config(fsdp=None, deepspeed="a.json", hf_deepspeed_config=of(3, False)))


def test_held_out_examples_need_whole_weights():
    """Processes with unequal shares of them would wait for each other for ever."""
    values = {"policy": "tiny", "segmenter": "box", "dataset": {"name": "tiny", "n": 4, "seed": 0}}
    evaluation = {"dataset": {"n": 2, "seed": 1}, "every": 1}
    recipe = parse_recipe({"method": "grpo", "rewards": {"iou": 1.0}, **values, "evaluation": evaluation})
    for stage in (2, 3):
        given = SimpleNamespace(is_zero3=lambda stage=stage: stage == 3)
        zero = config(fsdp=None, deepspeed="a.json", hf_deepspeed_config=given, logging_steps=1)
        with nullcontext() if stage == 2 else pytest.raises(RecipeError, match="evaluate the checkpoints after"):
            check_held_out(recipe, zero)
    with pytest.raises(RecipeError, match="FSDP and ZeRO-3 divide the weights"):
        check_held_out(recipe, config(logging_steps=1))


def test_what_accelerate_made_something_else_of():
    made = SimpleNamespace(accelerator=SimpleNamespace(distributed_type=SimpleNamespace(value="MULTI_CPU")))
    made.args, made.model = config(), torch.nn.Linear(1, 1)
    with pytest.raises(RecipeError, match=r"trainer.fsdp: accelerate made MULTI_CPU of it"):
        sharding.finish(made)


def test_deepspeed_that_is_not_there(monkeypatch):
    monkeypatch.setattr(sharding, "installed_version", lambda name: None)
    sharding.prepare({"use_cpu": True})
    with pytest.raises(RecipeError, match="pip install deepspeed"):
        sharding.prepare({"deepspeed": "recipes/zero2.json"})


def test_whole_parameters_are_ones_own():
    weights = torch.nn.Parameter(torch.ones(3))
    assert sharding.own_part(weights) is weights
