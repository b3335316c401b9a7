"""Turns in training: TRL's environments and tools, with our conversation in them.

To TRL an answer is a call of the one tool, `look`, which gives back a picture of the mask; "done", or an answer that
was cut off, calls nothing and ends the rollout. Nothing of that stands in the texts: the policy writes its answer
format and reads ordinary user messages, in training as in use.

On several processes generations may wait for each other: weights that are divided (FSDP2, ZeRO-3) are gathered by all
processes at once, and vLLM's server is asked by one for all. TRL 1.16 generates in each process as many turns as its
own conversations have, so the others would wait for ever. Here a process that is through generates along
(`RoundsTrainer`), and nothing of it is kept.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from segrl.answers.turns import DONE_PATTERN
from segrl.errors import RecipeError
from segrl.policies import opened_think, prepare_image, turn_suffix, without_control
from segrl.policies.chat import end_token_ids
from segrl.training.shared_prefix import SharedPrefixTrainer, taken
from segrl.turns import LONGEST_DETAIL, Conversation, TurnView, feedback, take

if TYPE_CHECKING:
    from segrl.text_to_masks import TextToMasks
    from segrl.training.parts import Parts, PolicyParts


AS_USER = """\
{%- set segrl = namespace(chat=[]) -%}
{%- for message in messages -%}
{%- if message.tool_calls -%}
{%- set called = {'type': 'text', 'text': message.tool_calls | tojson} -%}
{%- set segrl.chat = segrl.chat + [{'role': 'assistant', 'content': [called]}] -%}
{%- elif message.role == 'tool' -%}
{%- set segrl.chat = segrl.chat + [{'role': 'user', 'content': message.content}] -%}
{%- else -%}
{%- set segrl.chat = segrl.chat + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = segrl.chat -%}
{%- set tools = none -%}
"""
"""In front of a chat template: what a tool gave back is a user's message, and no tool is described. The text of a call
is never part of a rollout, whose tokens TRL joins; TRL only asks that a template can write one."""


def looking_template(template: str) -> str:
    """A chat template under which TRL's messages of tools read as those of a user. Any template will do."""
    return AS_USER + template


def answer_head(render: Callable[[list[dict[str, Any]]], str], end: str) -> str:
    """What a template writes between the end of a user's message and an answer, without an opening <think>."""
    suffix = turn_suffix(render, "segrl-words").partition("segrl-words")[2]
    head = suffix.partition(end)[2] or suffix
    return head.removesuffix(opened_think(head)) if opened_think(head) else head


def response_template(head: str, ends: Sequence[str]) -> dict[str, Any]:
    """How transformers reads an answer (`tokenizer.response_template`): a call of `look`, unless it is done or cut off.

    head: `answer_head`. ends: the tokens that end an answer. All content is a list, as that of a picture is: TRL's
    table of completions takes no mixture.
    """
    end = "|".join(map(re.escape, ends))
    call = {"type": "function", "function": {"name": "look", "arguments": {"text": "{text}"}}}
    opened = rf"\A(?!{DONE_PATTERN}(?:{end}))(?P<text>.*?)(?:{end})"
    return {
        "defaults": {"role": "assistant", "content": [{"type": "text", "text": ""}]},
        "start_anchor": head,
        "fields": {
            "tool_calls": {"open_pattern": opened, "repeats": True, "content": "text", "transform": call},
            "content": {"content": "text", "transform": [{"type": "text", "text": "{content}"}]},
        },
    }


class LookAndCorrect:
    """One rollout's conversation, as TRL's environment; every public method but `reset` is a tool to TRL."""

    def __init__(self, text_to_masks: TextToMasks, policy: PolicyParts) -> None:
        self._road, self._policy = text_to_masks, policy
        self._view: TurnView = policy.settings.view
        self._conversation: Conversation | None = None
        self._fault: Exception | None = None

    def reset(self, **row: Any) -> None:
        """Begins the conversation about a row of the data set."""
        self._conversation, self._fault = Conversation(row["original"], row["query"]), None

    def look(self, text: str) -> list[dict[str, Any]]:
        """Shows the mask of an answer.

        Args:
            text: The answer, in the policy's answer format.

        Returns:
            A picture of the mask, and one line about it.
        """
        assert self._conversation is not None  # TRL resets before it generates
        try:
            (self._conversation,) = take(self._road, [self._conversation], [text], continues=self._view.continues)
            picture, words = feedback(self._conversation, self._view)
        except Exception as error:  # TRL would hand it to the policy as the tool's answer; `finished` raises it
            self._fault = error
            raise
        shown = prepare_image(picture, self._policy.settings)
        clean = without_control(self._policy.processor.tokenizer, words)
        return [{"type": "image", "image": shown}, {"type": "text", "text": clean}]


def finished(
    text_to_masks: TextToMasks,
    policy: PolicyParts,
    environments: Sequence[LookAndCorrect],
    ids: Sequence[Sequence[int]],
) -> list[Conversation]:
    """The whole conversations of a batch: what each environment saw, with the last answer, which nobody looked at.

    ids: each rollout's completion, pictures and words of the turns between its answers. Raises what a look raised.
    """
    head = answer_head(policy.reader.render_prompt, policy.reader.end)
    conversations, last, at = [], [], []
    for i, (environment, tokens) in enumerate(zip(environments, ids, strict=True)):
        if environment._fault is not None:
            raise environment._fault
        assert environment._conversation is not None
        conversations.append(environment._conversation)
        text, cut = _last_text(policy, environment._conversation, tokens, head)
        if text is not None:
            last.append((text, cut))
            at.append(i)
    taken = take(
        text_to_masks,
        [conversations[i] for i in at],
        [text for text, _ in last],
        truncated=[cut for _, cut in last],
        continues=policy.settings.view.continues,
    )
    for i, conversation in zip(at, taken, strict=True):
        conversations[i] = conversation
    return [_counted(policy, conversation) for conversation in conversations]


def _last_text(
    policy: PolicyParts, conversation: Conversation, tokens: Sequence[int], head: str
) -> tuple[str | None, bool]:
    """The text after the last picture, and whether it was cut off; None where TRL had no room for that picture."""
    tokenizer = policy.processor.tokenizer
    whole = policy.opening + tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    at = 0
    for turn in conversation.turns:
        at = whole.find(turn.text, at) + len(turn.text)
        found = whole.find(head, at)
        if found < 0:
            return None, False
        at = found + len(head)
    ends = [tokenizer.convert_ids_to_tokens(i) for i in end_token_ids(tokenizer)]
    places = [place for end in ends if (place := whole.find(end, at)) >= 0]
    return (whole[at : min(places)], False) if places else (whole[at:], True)


def _counted(policy: PolicyParts, conversation: Conversation) -> Conversation:
    """With the tokens of each turn, counted anew from its text, the end token included."""
    tokenizer = policy.processor.tokenizer
    turns = tuple(
        replace(turn, n_tokens=len(tokenizer(turn.text, add_special_tokens=False)["input_ids"]) + 1)
        for turn in conversation.turns
    )
    return replace(conversation, turns=turns)


def prepare(parts: Parts, config: Any) -> dict[str, Any]:
    """What TRL's trainer is given for a recipe with turns; {} without. `config` gets the limits.

    Raises RecipeError for a trainer that could not hold all turns, and for one whose answers come from elsewhere.
    """
    section, policy = parts.recipe.turns, parts.policy
    if section is None:
        return {}
    config.generation_kwargs = {**(config.generation_kwargs or {}), **_generation(parts, config.use_vllm)}
    config.max_tool_calling_iterations = section.max - 1
    _check_room(parts, config)
    rows = config.per_device_train_batch_size * config.steps_per_generation
    if section.shared_first and rows % config.num_generations:
        raise RecipeError(
            f"turns.shared_first: needs whole groups in each process, and {rows} completions are no multiple of "
            f"trainer.num_generations: {config.num_generations}"
        )
    processor, tokenizer = policy.processor, policy.processor.tokenizer
    ends = [tokenizer.convert_ids_to_tokens(i) for i in sorted(end_token_ids(tokenizer))]
    tokenizer.response_template = response_template(answer_head(policy.reader.render_prompt, policy.reader.end), ends)
    processor.chat_template = looking_template(processor.chat_template)
    return {"environment_factory": lambda: LookAndCorrect(parts.text_to_masks, policy)}


def _generation(parts: Parts, use_vllm: bool) -> dict[str, Any]:
    """Each answer has its own limit, and never a token that stands for a picture: a later turn would look for one."""
    section, policy = parts.recipe.turns, parts.policy
    assert section is not None
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(policy.base or policy.path)
    ids = [getattr(config, name, None) for name in ("image_token_id", "video_token_id")]
    pictures = [i for i in ids if i is not None]
    if use_vllm:
        return {"max_tokens": section.answer_tokens, "logit_bias": dict.fromkeys(pictures, -100.0)}
    return {"max_new_tokens": section.answer_tokens, "suppress_tokens": pictures}


def _check_room(parts: Parts, config: Any) -> None:
    """TRL ends a conversation, without a word, whose next picture would not fit."""
    section, policy = parts.recipe.turns, parts.policy
    assert section is not None
    look = look_tokens(policy, parts.examples[0].image)
    needed = section.max * section.answer_tokens + (section.max - 1) * look
    if config.max_completion_length < needed:
        raise RecipeError(
            f"trainer.max_completion_length: {config.max_completion_length} is too short for turns.max: {section.max}: "
            f"{section.max} answers of turns.answer_tokens: {section.answer_tokens} and {section.max - 1} × {look} "
            f"tokens of a picture and its words take {needed}; a smaller policy.input_wh makes pictures cheaper"
        )
    room = _positions(policy.base or policy.path)
    prompt = _tokens(policy, policy.reader.render_prompt(policy.reader.prompt(parts.examples[0])), _largest(parts))
    if room is not None and prompt + config.max_completion_length >= room:
        raise RecipeError(
            f"trainer.max_completion_length: with the prompt of the first example ({prompt} tokens) "
            f"{config.max_completion_length} is more than the {room} that the policy can read: fewer or shorter turns"
        )


def look_tokens(policy: PolicyParts, image: Any) -> int:
    """Tokens that one picture with the longest words takes, between two answers."""
    from PIL import Image

    words = f"not read: {'x' * LONGEST_DETAIL}, area 100%, score 0.00"
    if policy.settings.view.instruction:
        from segrl.turns import INSTRUCTION

        words = f"{words} {INSTRUCTION}"
    wh = policy.settings.input_wh or _most_wh(policy.processor) or image.size
    return _tokens(policy, turn_suffix(policy.reader.render_prompt, words), Image.new("RGB", wh))


def _largest(parts: Parts) -> Any:
    return prepare_image(parts.examples[0].image, parts.policy.settings)


def _most_wh(processor: Any) -> tuple[int, int] | None:
    """A square of as many pixels as the processor ever keeps; None where it names no such number."""
    size = getattr(processor.image_processor, "size", None) or {}
    most = size.get("longest_edge") if isinstance(size, Mapping) else None
    is_pixels = hasattr(processor.image_processor, "merge_size")
    return (int(most**0.5), int(most**0.5)) if most and is_pixels else None


def _tokens(policy: PolicyParts, text: str, image: Any) -> int:
    return len(policy.processor(text=[text], images=[[image]])["input_ids"][0])


def _positions(path: str) -> int | None:
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(path).get_text_config(), "max_position_embeddings", None)


@contextmanager
def quiet_experiment() -> Iterator[None]:
    """Without TRL's line that environments may change: the version is pinned, and our tests stand on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using 'environment_factory'")
        yield


class OwnTemplate(TrainerCallback):
    """Gives each checkpoint its policy's own chat template back, and takes the reading of tool calls out.

    Comes before the completion marker.
    """

    def __init__(self, template: str, checkpoints: Path) -> None:
        self._template, self._checkpoints = template, checkpoints

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        checkpoint = self._checkpoints / f"checkpoint-{state.global_step}"
        (checkpoint / "chat_template.jinja").write_text(self._template, encoding="utf-8")
        path = checkpoint / "tokenizer_config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        values.pop("response_template", None)
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class RoundsTrainer(SharedPrefixTrainer):
    """TRL's trainer whose processes generate equally often in a rollout over turns, with `turns.shared_first`."""

    shared_first = 0.0
    _in_turns = False

    @property
    def _waits_for_others(self) -> bool:
        is_divided = self.is_fsdp_enabled or self.is_deepspeed_enabled
        return self.accelerator.num_processes > 1 and (is_divided or self.use_vllm)

    def _tool_call_loop(self, prompts: Any, prompt_ids: Any, *args: Any) -> Any:
        """As TRL's; afterwards this process takes part in the rounds that others still have."""
        *_, images, fields = args
        shares, self._in_turns = self._rolls_out_groups, True
        if self._waits_for_others:
            self._rolls_out_groups = False  # which rows are equal differs by process
        try:
            found = super()._tool_call_loop(prompts, prompt_ids, *args)
            while self._waits_for_others and self._any_generates(False):
                super()._generate_single_turn(*_rows([0], prompt_ids, images, fields), num_generations=1)
        finally:
            self._in_turns, self._rolls_out_groups = False, shares
        return found

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, fields: dict[str, Any], num_generations: int, **kwargs: Any
    ) -> Any:
        """As TRL's; all processes begin a later turn at once, and some groups have their first answer in common."""
        if self._in_turns and self._waits_for_others:
            self._any_generates(True)
        if self._in_turns or not self.shared_first or not self.model.training:
            return super()._generate_single_turn(prompt_ids, images, fields, num_generations, **kwargs)
        n = len(prompt_ids)
        begin = self.accelerator.process_index * (n // num_generations)
        source = first_answers(n, num_generations, self.shared_first, begin)
        made = list(range(n)) if self._waits_for_others or self.use_vllm else sorted(set(source))
        given = (prompt_ids, images, fields, num_generations)
        if len(made) < n:
            given = (*_rows(made, prompt_ids, images, fields), 1)
        ids, logps = super()._generate_single_turn(*given, **kwargs)
        order = [made.index(i) for i in source]
        return [list(ids[i]) for i in order], None if logps is None else [list(logps[i]) for i in order]

    def _any_generates(self, is_here: bool) -> bool:
        """Whether any process has a turn left to generate; waits until all have said so."""
        said = torch.tensor([is_here], device=self.accelerator.device)
        return bool(self.accelerator.gather(said).any())


def first_answers(n: int, group: int, share: float, begin: int = 0) -> list[int]:
    """For each of n completions, in whole groups, the one whose first answer it has: of some groups the first's.

    share: of the groups. begin: number of the first group among those of all processes.

    >>> first_answers(8, 2, 0.5)
    [0, 1, 2, 2, 4, 5, 6, 6]
    >>> first_answers(2, 2, 0.5, begin=1)
    [0, 0]
    """
    numbers = (begin + i // group for i in range(n))
    shared = [int((number + 1) * share) > int(number * share) for number in numbers]
    return [i - i % group if is_shared else i for i, is_shared in enumerate(shared)]


def _rows(
    chosen: Sequence[int], prompt_ids: Any, images: Any, fields: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """Some of the prompts, with their pictures."""
    ids = [prompt_ids[i] for i in chosen]
    if images is None:
        return ids, None, {}
    parts = split_pixel_values_by_grid({**fields, "num_images": [len(of_row or []) for of_row in images]})
    alone = dict(unsplit_pixel_values_by_grid({name: taken(value, chosen) for name, value in parts.items()}))
    del alone["num_images"]
    return ids, [images[i] for i in chosen], alone
