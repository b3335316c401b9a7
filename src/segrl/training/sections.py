"""The sections of a recipe, as pydantic models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from segrl.plugins import PREFIX


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicySection(Section):
    """The policy to train: a directory, a model's name on the hub, or `tiny`; a string is its `path`.

    What is not given follows from the policy's own segrl.json and its model family. system: the
    system prompt; `answer_format` stands for the instruction of the recipe's answer format. prompt_template: a file
    with the text prompt, `{query}` in it, in place of the answer format's. base: of an adapter, where the model below
    it is, if it is not where it was in the adapter's training; a run starts from the two merged.
    freeze_vision_tower: train the language model alone.
    """

    path: str
    frame: str | None = None
    input_wh: tuple[int, int] | None = None
    system: str | None = None
    prompt_template: str | None = None
    base: str | None = None
    freeze_vision_tower: bool = False


class SegmenterSection(BaseModel):
    """The frozen segmenter: its name or path, and options of `segrl.segmenters.load`; a string is its `name`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Every key besides `name`."""
        return dict(self.model_extra or {})


class DatasetSection(SegmenterSection):
    """The training data: a name and options of `segrl.datasets.load`; a string is its `name`.

    `python: my_data.Cells` in place of the name is a data set of one's own.
    """


class EvaluationSection(Section):
    """Held-out data on which the policy is measured before and after training, greedily.

    batch_size: answers generated together; max_new_tokens: where an answer is cut off. every: during
    training too, after every so many steps (0: never), on `examples` of the examples (None: on all).
    """

    dataset: DatasetSection
    batch_size: int = Field(1, ge=1)
    max_new_tokens: int = Field(512, ge=1)
    every: int = Field(0, ge=0)
    examples: int | None = Field(None, ge=1)

    @field_validator("dataset", mode="before")
    @classmethod
    def _dataset_by_name(cls, value: Any) -> Any:
        return section_of(value)


class TurnsSection(Section):
    """Turns: the policy is shown its mask and corrects it. It is asked in the same way wherever it is used later.

    max: turns of a conversation at most, the first answer counted. show, instruction, continues: what it is shown and
    what the segmenter goes on from (`segrl.turns.TurnView`). answer_tokens: where each answer is cut off
    (`method: grpo`; `trainer.max_completion_length` must hold all turns with their pictures). shared_first: of this
    share of the groups the completions have one first answer in common, so that their rewards differ by the later
    turns alone (`method: grpo`).
    """

    max: int = Field(2, ge=2)
    show: Literal["outline", "cutout", "crop"] = "outline"
    instruction: bool = True
    continues: bool = True
    answer_tokens: int = Field(512, ge=1)
    shared_first: float = Field(0.0, ge=0, le=1)

    @property
    def view(self) -> dict[str, Any]:
        """The options of `segrl.turns.TurnView`, which the trained policy keeps."""
        return {"show": self.show, "instruction": self.instruction, "continues": self.continues}


class RolloutLog(Section):
    """Which completions are kept: the first `groups` groups of every `every`-th step, the first step included."""

    every: int = Field(10, ge=0)
    groups: int = Field(4, ge=1)

    def wants(self, step: int) -> bool:
        """Whether a step (counted from 1) is kept; `every: 0` keeps none."""
        return self.every > 0 and (step - 1) % self.every == 0


class LogSection(Section):
    """What is logged beside steps.jsonl."""

    rollouts: RolloutLog = RolloutLog()


class CheckpointSection(Section):
    """Which checkpoints are kept: the `last` ones, and with `best` the one with the highest held-out gIoU.

    `best` needs `evaluation.every`, a multiple of the trainer's `save_steps`.
    """

    last: int = Field(2, ge=2)  # one may be half written when a run is killed
    best: bool = False


class TrainingSection(Section):
    """How segrl trains, where it does not do as TRL does; the result is the same.

    shared_prefix: each prompt, its picture included, is read once for all completions of its group.
    """

    shared_prefix: bool = True


class SelectSection(Section):
    """Which completions of each group train: those with the highest and the lowest rewards."""

    best: int = Field(8, ge=1)
    worst: int = Field(8, ge=1)


class DynamicSamplingSection(Section):
    """What becomes of groups whose rewards are all equal; a string is `flat`: `keep` them in the mean, `skip` them,
    or `replace` them by groups of other examples, in at most `attempts` further rollouts; the rest is skipped."""

    flat: Literal["keep", "skip", "replace"] = "keep"
    attempts: int = Field(1, ge=1)


class RewardCheckSection(Section):
    """The reward check before step 1; `reward_check: false` turns it off, as `samples: 0` does.

    samples: on how many training examples gold answers are set beside wrong ones. margin: how far
    gold must lie above every other, as a share of how far it lies above the worst.
    """

    samples: int = Field(8, ge=0)
    margin: float = Field(0.1, ge=0, lt=1)


class ControlSection(Section):
    """Switches for control experiments, never for real training.

    shuffle_rewards: rewards are shuffled within each group, so that they no longer belong to their
    completions. What such a run gains did not come from the reward.
    """

    shuffle_rewards: bool = False


def section_of(value: Any) -> Any:
    """A section by name: `tiny` is `{name: tiny}`; `{python: my_data.Cells}` has the name `python:my_data.Cells`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and "python" in value and "name" not in value:
        return {"name": f"{PREFIX}{value['python']}"} | {key: one for key, one in value.items() if key != "python"}
    return value
