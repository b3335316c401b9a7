"""A recipe: one YAML file that names a whole training run, of one stage or several. Reading one imports no torch.

    dataset: {name: folder, root: …}     # what stands beside `stages` holds for every stage
    stages:
      cold_start: {method: sft, policy: tiny, …}
      rl: {method: grpo, …}               # without a policy, or one without a path: the one of the stage before

Each stage goes on from the policy that the one before it made. A file without `stages` is one stage with no name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from segrl import answers
from segrl.errors import RecipeError
from segrl.files import load_yaml
from segrl.plugins import PREFIX, make_importable, named_in
from segrl.rewards.registry import RewardTerm, build_terms
from segrl.text import nearest, one_line
from segrl.training.sections import (
    CheckpointSection,
    ControlSection,
    DatasetSection,
    DynamicSamplingSection,
    EvaluationSection,
    LogSection,
    PolicySection,
    RewardCheckSection,
    Section,
    SegmenterSection,
    SelectSection,
    TrainingSection,
    TurnsSection,
    section_of,
)

if TYPE_CHECKING:
    from segrl.evaluation import EvalSettings


_SHORT: Mapping[str, Callable[[Any], Any]] = {
    "answer_format": lambda value: format_name(value),
    "policy": lambda value: {"path": value} if isinstance(value, str) else value,
    "segmenter": section_of,
    "dataset": section_of,
    "dynamic_sampling": lambda value: {"flat": value} if isinstance(value, str) else value,
    "reward_check": lambda value: ({} if value else {"samples": 0}) if isinstance(value, bool) else value,
}
"""Sections that may be written as one value, and what each stands for."""


class Recipe(Section):
    """A validated recipe. `trainer` holds TRL's own options (GRPOConfig or SFTConfig), checked when the run starts.

    answer_format: a name of `segrl.answers`, or `{python: my_package.MyFormat}`, a subclass of AnswerFormat.
    peft: options of peft's LoraConfig; the policy is then trained through adapters. quantization:
    options of transformers' BitsAndBytesConfig for the frozen weights under them (QLoRA). about: what
    the report says of the run in the recipe's own words.
    """

    about: str = ""
    method: Literal["grpo", "sft"]
    seed: int = Field(0, ge=0, lt=2**32)
    policy: PolicySection
    answer_format: str | None = None
    segmenter: SegmenterSection | None = None
    dataset: DatasetSection
    rewards: dict[str, float | dict[str, Any]] = Field(default_factory=dict)
    trainer: dict[str, Any] = Field(default_factory=dict)
    training: TrainingSection = TrainingSection()
    select: SelectSection | None = None
    dynamic_sampling: DynamicSamplingSection = DynamicSamplingSection()
    peft: dict[str, Any] | None = None
    quantization: dict[str, Any] | None = None
    turns: TurnsSection | None = None
    evaluation: EvaluationSection | None = None
    reward_check: RewardCheckSection = RewardCheckSection()
    checkpoints: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()
    control: ControlSection = ControlSection()

    @model_validator(mode="before")
    @classmethod
    def _held_out_inherits(cls, values: Any) -> Any:
        """Held-out data without a name are the training data with other options (`part: test`), never augmented."""
        if not isinstance(values, dict):
            return values
        trained_on, measured = values.get("dataset"), values.get("evaluation")
        held_out = measured.get("dataset") if isinstance(measured, dict) else None
        if not isinstance(measured, dict) or not isinstance(held_out, dict) or {"name", "python"} & held_out.keys():
            return values
        base = section_of(trained_on) if isinstance(trained_on, dict) else {"name": trained_on}
        inherited = {key: value for key, value in base.items() if key != "augment"}
        return {**values, "evaluation": {**measured, "dataset": {**inherited, **held_out}}}

    @model_validator(mode="before")
    @classmethod
    def _instruct(cls, values: Any) -> Any:
        """Puts the answer format's instruction where `policy.system` asks for it."""
        policy = values.get("policy") if isinstance(values, dict) else None
        if not isinstance(policy, dict) or policy.get("system") != "answer_format":
            return values
        name = format_name(values.get("answer_format"))
        if name not in answers.names() and not str(name).startswith(PREFIX):
            raise RecipeError(
                f"policy.system: answer_format needs an answer_format, one of {', '.join(answers.names())}"
            )
        return {**values, "policy": {**policy, "system": answers.get(str(name)).system or None}}

    @field_validator(
        "answer_format", "policy", "segmenter", "dataset", "dynamic_sampling", "reward_check", mode="before"
    )
    @classmethod
    def _written_short(cls, value: Any, info: ValidationInfo) -> Any:
        return _SHORT[str(info.field_name)](value)

    @model_validator(mode="after")
    def _check_method(self) -> Recipe:
        if self.checkpoints.best and (self.evaluation is None or not self.evaluation.every):
            raise RecipeError("checkpoints.best needs held-out answers during training: set evaluation.every")
        if self.quantization is not None and self.peft is None:
            raise RecipeError(
                "quantization freezes the policy's weights: add a peft section, whose adapters are trained"
            )
        if self.policy.freeze_vision_tower and self.peft is not None:
            raise RecipeError(
                "policy.freeze_vision_tower goes without peft, which trains adapters alone: "
                "peft.target_modules and peft.exclude_modules say where they are"
            )
        if self.method == "grpo":
            if self.segmenter is None:
                raise RecipeError("method: grpo needs a segmenter, for instance segmenter: grabcut")
            self.terms()
        elif self.evaluation is not None and self.segmenter is None:
            raise RecipeError("evaluation needs a segmenter, for instance segmenter: grabcut")
        elif self.rewards or self.control.shuffle_rewards or self.select or self.dynamic_sampling.flat != "keep":
            raise RecipeError(
                "method: sft learns from gold answers: rewards, select and control belong to method: grpo"
            )
        return self

    def terms(self) -> tuple[RewardTerm, ...]:
        """The reward terms with their weights; raises RecipeError as `build_terms` does."""
        return build_terms(self.rewards)

    def as_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain YAML values, defaults included."""
        return self.model_dump(mode="json")


def eval_settings(recipe: Recipe, policy: str) -> EvalSettings:
    """The evaluation that a recipe asks for, of the policy in `policy`: its own, or one that was trained from it.

    Raises RecipeError if it asks for none.
    """
    from segrl.evaluation import Decoding, EvalSettings

    section, given = recipe.evaluation, recipe.policy
    if section is None or recipe.segmenter is None:
        raise RecipeError("this recipe measures nothing: give it an evaluation section and a segmenter")
    names = ("frame", "input_wh", "system", "prompt_template", *(["base"] if policy == given.path else ()))
    options = {name: value for name in names if (value := getattr(given, name)) is not None}
    return EvalSettings(
        policy=policy,
        dataset=section.dataset.name,
        segmenter=recipe.segmenter.name,
        policy_options=options if recipe.turns is None else {**options, "turns": recipe.turns.view},
        dataset_options=section.dataset.options,
        segmenter_options=recipe.segmenter.options,
        answer_format=recipe.answer_format,
        decoding=Decoding(
            section.max_new_tokens, section.batch_size, turns=1 if recipe.turns is None else recipe.turns.max
        ),
        threads=None,
    )


def format_name(value: Any) -> Any:
    """The name of an answer format of one's own, `{python: my_package.MyFormat}`, as `segrl.answers.get` takes it."""
    return f"{PREFIX}{value['python']}" if isinstance(value, dict) and set(value) == {"python"} else value


def load_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file; each override `key.sub=value` (value in YAML) replaces one entry.

    Raises RecipeError for a missing or unreadable file, an unknown key (naming the nearest valid
    one), a wrong value, and whatever `Recipe` refuses.
    """
    return parse_recipe(read_values(path, overrides), source=str(path))


def read_values(path: Path | str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The entries of a recipe file with the overrides in place, not validated yet. Raises RecipeError."""
    try:
        values = yaml_value(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path} is no valid YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must hold a mapping with method, policy, dataset, trainer, …")
    for override in overrides:
        _apply(values, override)
    for own in named_in(values):
        make_importable(own, (Path(path).parent, Path.cwd()))
    return values


def parse_recipe(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from plain values. Raises RecipeError, whose message begins with `source`."""
    try:
        return Recipe.model_validate(dict(values))
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error)}") from error


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"an override looks like trainer.learning_rate=1e-5, not {override!r}")
    for i, part in enumerate(parts[:-1]):
        inner = values.setdefault(part, {})
        if isinstance(inner, str) and parts[i] in _NAMED:  # `policy: tiny` and `policy: {path: tiny}` are one
            inner = values[part] = {_NAMED[part]: inner}
        if not isinstance(inner, dict):
            raise RecipeError(f"{override!r}: {'.'.join(parts[: i + 1])} is a value and has no entries")
        values = inner
    try:
        values[parts[-1]] = yaml_value(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not is a ValueError
        raise RecipeError(f"{override!r}: the value is no valid YAML") from error


_NAMED = {"policy": "path", "segmenter": "name", "dataset": "name"}


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of its version 1.2: 1e-5 is a number there, and a text in version 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def yaml_value(text: str) -> Any:
    """What a YAML text says, in plain Python values. Raises YAMLError or ValueError for what it does not say."""
    return load_yaml(text, _Loader)


def _explain(error: ValidationError) -> str:
    """The first fault of a recipe as one line."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, name = (str(part) for part in fault["loc"])
        return f"unknown key {key!r}; did you mean {'.'.join([*parents, str(nearest(name, _keys_under(parents)))])!r}?"
    if fault["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {fault['msg']}, not {fault['input']!r}"


def _keys_under(parents: list[str]) -> list[str]:
    model: Any = Recipe
    for parent in parents:
        model = model.model_fields[parent].annotation
        model = next((arm for arm in getattr(model, "__args__", (model,)) if hasattr(arm, "model_fields")), model)
    return list(model.model_fields)


_LATER = "(the policy of the stage before)"


@dataclass(frozen=True)
class Stage:
    """One stage. follows: whether it starts from the stage before; name: its directory's, empty for a plain recipe."""

    name: str
    recipe: Recipe
    follows: bool

    def directory(self, out: Path) -> Path:
        """Where this stage is kept."""
        return out / self.name if self.name else out

    def resolved(self, previous_model: Path | None) -> Recipe:
        """The recipe with the policy that it starts from."""
        if not self.follows:
            return self.recipe
        policy = self.recipe.policy.model_copy(update={"path": str(previous_model), "base": None})
        return self.recipe.model_copy(update={"policy": policy})


def load_stages(path: Path | str, overrides: Iterable[str] = ()) -> list[Stage]:
    """The stages of a recipe file, all validated; overrides as `load_recipe`, `stages.NAME.key=value` for one stage.

    Raises RecipeError as `load_recipe`, for stages that are no mapping, for a first stage without a policy,
    and for one that would start from another's adapter.
    """
    overrides = list(overrides)
    values = read_values(path, overrides)
    if "stages" not in values:
        return [Stage("", parse_recipe(values, str(path)), follows=False)]
    named = values.pop("stages")
    if not isinstance(named, dict) or not named or not all(isinstance(entry, dict) for entry in named.values()):
        raise RecipeError(f"{path}: stages is a mapping from a stage's name to its recipe")
    _check_overrides(overrides, named)
    stages: list[Stage] = []
    for name, own in named.items():
        entries = _merged(values, own)
        follows = bool(stages) and not _names_policy(entries)
        if follows:
            if stages[-1].recipe.peft is not None:
                raise RecipeError(f"{path}, stage {name}: the stage before leaves an adapter; name a policy.path")
            entries["policy"] = {**(entries.get("policy") or {}), "path": _LATER}
        stages.append(Stage(str(name), parse_recipe(entries, f"{path}, stage {name}"), follows))
    return stages


def _check_overrides(overrides: Iterable[str], stages: Mapping[str, Any]) -> None:
    """Raises RecipeError for a shared entry from outside that stages set themselves: it would have no effect there."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        setting = [f"stages.{name}.{key}" for name, own in stages.items() if _sets(own, key.split("."))]
        if setting:
            raise RecipeError(f"{override}: the stages set it themselves; say {' or '.join(setting)}")


def _sets(entries: Any, parts: Sequence[str]) -> bool:
    """Whether nested entries hold a key, or a plain value above it."""
    for part in parts:
        if not isinstance(entries, Mapping):
            return True
        if part not in entries:
            return False
        entries = entries[part]
    return True


def _names_policy(entries: Mapping[str, Any]) -> bool:
    """Whether a stage says which policy it starts from, and not only how that is shown images."""
    policy = entries.get("policy") or {}
    return "path" in policy if isinstance(policy, Mapping) else True


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` laid over `shared`; mappings are merged key by key."""
    both = dict(shared)
    for key, value in own.items():
        under = both.get(key)
        both[key] = _merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return both
