"""Weights divided among processes (FSDP2, DeepSpeed ZeRO) as `trainer.fsdp` or `trainer.deepspeed` says.

What the libraries would pass over without a word is put right with a line, or refused: accelerate shards on GPUs
only, transformers waits for the other processes in `generate` only under ZeRO-3 and what it sharded itself, and TRL
spreads the reference model over all GPUs of each process under FSDP.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from segrl.devices import installed_version
from segrl.errors import RecipeError
from segrl.policies.checkpoint import without_adapters

Say = Callable[[str], None]


def prepare(options: Mapping[str, Any]) -> None:
    """Before TRL's configuration is made of `options`: the environment that DeepSpeed reads.

    It wants to have been started by a launcher, also where it is alone, and on a CPU to be told so. Raises RecipeError
    where it is not installed.
    """
    if not options.get("deepspeed"):
        return
    if installed_version("deepspeed") is None:
        raise RecipeError("trainer.deepspeed needs DeepSpeed: pip install deepspeed")
    if options.get("use_cpu"):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "WORLD_SIZE" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(_free_port()))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def check_sharding(config: Any) -> None:
    """Raises RecipeError for a division that would not be made, or whose checkpoints would hold no model."""
    if config.fsdp:
        _check_fsdp(config)
    if not config.deepspeed:
        return
    given = config.hf_deepspeed_config
    gathers = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    if given.is_zero3() and not given.get_value(gathers):
        raise RecipeError(f"trainer.deepspeed: set {gathers} to true, or checkpoints hold no model")


def _check_fsdp(config: Any) -> None:
    if config.world_size == 1:
        raise RecipeError("trainer.fsdp divides the weights among processes, and this is one: add --processes N")
    if config.fsdp_plugin_args["fsdp_version"] != 2:
        raise RecipeError("trainer.fsdp_config.version must be 2: the first FSDP is leaving transformers")
    if getattr(config.optim, "value", config.optim) == "sgd":
        raise RecipeError("trainer.optim: sgd has no state, and torch resumes no such run under FSDP: use adamw_torch")
    kind = config.fsdp_plugin_args["state_dict_type"]
    if kind != "FULL_STATE_DICT":
        raise RecipeError(
            f"trainer.fsdp_config.state_dict_type must be FULL_STATE_DICT, not {kind}, or checkpoints hold no model"
        )


def switch_on(config: Any, say: Say) -> None:
    """Before the trainer is built: what accelerate does for processes on GPUs alone is done for those on CPUs."""
    from accelerate.utils import DistributedType

    state = config.distributed_state
    on_cpus = state.distributed_type == DistributedType.MULTI_CPU
    if config.fsdp:
        # TRL sees no reason to load the reference model as it loads the policy
        config.model_init_kwargs = {**(config.model_init_kwargs or {}), "device_map": None}
        if on_cpus:
            say("trainer.fsdp on CPUs: switched on by segrl, since accelerate divides weights on GPUs only")
            state.distributed_type = DistributedType.MULTI_GPU  # accelerate's condition for what the recipe asks
    elif config.deepspeed and on_cpus:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)  # ZeRO-3 divides while it loads


def finish(trainer: Any) -> None:
    """After the trainer is built. Raises RecipeError if what the recipe asks for is not what accelerate does."""
    kind, config = trainer.accelerator.distributed_type.value, trainer.args
    wanted = "FSDP" if config.fsdp else "DEEPSPEED" if config.deepspeed else kind
    if kind != wanted:
        raise RecipeError(
            f"trainer.{'fsdp' if config.fsdp else 'deepspeed'}: accelerate made {kind} of it on this machine, and the "
            "weights would not be divided: take it out"
        )
    if config.fsdp:
        trainer.model._is_fsdp_managed_module = True  # `generate` looks for it, and only then waits for the slowest
    elif config.deepspeed and config.hf_deepspeed_config.is_zero3():
        inner = without_adapters(trainer.model)
        inner._weight_conversions = []  # else transformers saves under names that belong to no layout


def own_part(parameter: Any) -> Any:
    """What this process holds of a parameter; the parameter itself where it is not divided."""
    if hasattr(parameter, "to_local"):  # FSDP2
        return parameter.to_local()
    return getattr(parameter, "ds_tensor", parameter)  # ZeRO-3
