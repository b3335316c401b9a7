"""What an evaluation is asked to do, what it loads for that, and all that determines its result."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl import answers, datasets, policies
from segrl.devices import device_name, installed_version
from segrl.errors import DataError, SegrlError
from segrl.evaluation.replay import REPLAYED, PolicyFor, Script, oracle, scripted
from segrl.inference import PLAIN, Decoding
from segrl.loading import (
    WEIGHTLESS,
    fitting_max_new_tokens,
    fitting_options,
    fitting_segmenter,
    make_text_to_masks,
    takes_device,
)
from segrl.masks import to_rle
from segrl.policies.checkpoint import base_of
from segrl.segmenters.loading import checkpoint_of
from segrl.tiny import resolve_policy
from segrl.types import Example

if TYPE_CHECKING:
    from segrl.policies import Policy
    from segrl.segmenters import Segmenter
    from segrl.text_to_masks import TextToMasks


_VERSIONS = (
    "segrl",
    "torch",
    "torchvision",
    "transformers",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "pycocotools",
    "pysodmetrics",
)

_BLOCK, _BLOCKS = 65536, 64
"""A file of weights is known by its size and this many blocks, spread evenly over it."""


def versions() -> dict[str, str | None]:
    """The versions of Python and of every package that has a part in the result."""
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _VERSIONS}}


def examples_hash(examples: Sequence[Example], count: int = 8) -> str:
    """A hash of what examples spread over the data set hold: id, image, query and truth."""
    from segrl.datasets.rows import spread

    digest = hashlib.sha256()
    for example in (examples[place] for place in spread(len(examples), count)):
        digest.update(
            example_key(example.id, example.image_id, example.query, to_rle(example.truth)["counts"]).encode()
        )
    return digest.hexdigest()[:16]


def example_key(id: str, image_id: str, query: str, truth_counts: str) -> str:
    """What makes two examples the same: id, pixels, query and truth. 32 hexadecimal digits."""
    return hashlib.sha256("\0".join((id, image_id, query, truth_counts)).encode()).hexdigest()[:32]


def weights_fingerprint(name: str) -> str | None:
    """16 hexadecimal digits for the files of a local model; None for what is no directory.

    Settings and tokenizer are read whole, weights by their size and blocks spread over them: a merged
    adapter changes blocks all over the file.
    """
    from segrl.tiny import resolve_policy

    folder = Path(resolve_policy(name))
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".jinja", ".txt")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for i in range(_BLOCKS if size > _BLOCK * _BLOCKS else 1):
                file.seek(i * (size - _BLOCK) // (_BLOCKS - 1) if size > _BLOCK * _BLOCKS else 0)
                digest.update(file.read(_BLOCK if size > _BLOCK * _BLOCKS else -1))
    return digest.hexdigest()[:16]


PROTOCOL = 1
"""Raised when a rule of docs/protocol.md changes, so that results of two protocols are never taken for one."""


_WINDOW = 8  # batches handed to the policy at once, so that it can put equal lengths together


def window_size(batch_size: int) -> int:
    """Examples that are open, and answered, together."""
    return 1 if batch_size == 1 else batch_size * _WINDOW


@dataclass(frozen=True)
class EvalSettings:
    """A whole evaluation, in plain values that can be sent to another process.

    policy: a name for `policies.load`, or "oracle" or "scripted" (`segrl.evaluation.replay`), with its
    options; texts: the file that "scripted" replays. segmenter: a name for `segmenters.load`, None for
    the policy's usual one. dataset: a name for `datasets.load` with its options. answer_format: None for
    the policy's own. saliency: measure what only the field of saliency asks for; None for the
    sets of that field. threads: of torch on the CPU, fixed so that no result depends on the number of processes;
    None leaves them as they are.
    """

    policy: str
    dataset: str
    segmenter: str | None = None
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    segmenter_options: Mapping[str, Any] = field(default_factory=dict)
    texts: str | None = None
    answer_format: str | None = None
    decoding: Decoding = field(default_factory=Decoding)
    saliency: bool | None = None
    threads: int | None = 1

    def __post_init__(self) -> None:
        if (self.policy == "scripted") != (self.texts is not None):
            raise SegrlError("the policy scripted replays a file: give --texts FILE, and only with it")
        if self.decoding.samples > 1 and self.decoding.heat == 0 and self.policy not in REPLAYED:
            raise SegrlError("samples of a greedy policy are all alike: a vote needs --temperature above 0")
        if self.decoding.turns > 1 and self.policy in (*REPLAYED, policies.WORDS):
            raise SegrlError(f"the policy {self.policy} sees no image: it cannot look at its mask")
        if self.decoding.second_look and self.policy in (*REPLAYED, policies.WORDS):
            raise SegrlError(f"the policy {self.policy} sees no image: it cannot look a second time")

    @property
    def baseline(self) -> EvalSettings | None:
        """The same examples and segmenter with the query sent as it is; None where the segmenter takes no words."""
        from segrl.segmenters.loading import takes_words

        if self.policy == policies.WORDS or not takes_words(self.segmenter_name):
            return None
        plain = Decoding(self.decoding.max_new_tokens, self.decoding.batch_size)
        return replace(
            self,
            policy=policies.WORDS,
            policy_options={},
            texts=None,
            answer_format=None,
            segmenter=self.segmenter_name,
            decoding=plain,
        )

    @property
    def segmenter_name(self) -> str:
        """The segmenter, or the usual one: GrabCut for policies that see no image, `fitting_segmenter` for the rest."""
        return self.segmenter or (
            "grabcut" if self.policy in REPLAYED else fitting_segmenter(self.policy, self.answer_format)
        )

    @property
    def fitted_segmenter_options(self) -> dict[str, Any]:
        """The segmenter's options; where nobody gave one, what the policy's authors choose."""
        return {**fitting_options(self.policy, self.segmenter_name), **self.segmenter_options}

    @property
    def fitted_decoding(self) -> Decoding:
        """The decoding with the longest answer that fits the policy, if nobody gave one."""
        longest = self.decoding.max_new_tokens or fitting_max_new_tokens(self.policy)
        return replace(self.decoding, max_new_tokens=longest)

    @property
    def wants_saliency(self) -> bool:
        """Whether the field's measures are made, if nobody said."""
        from segrl.datasets.image_masks import LAYOUTS

        return self.dataset in LAYOUTS if self.saliency is None else self.saliency


@dataclass(frozen=True)
class Loaded:
    """What an evaluation works with."""

    settings: EvalSettings
    examples: Sequence[Example]
    policy_for: PolicyFor
    text_to_masks: TextToMasks
    policy_facts: Mapping[str, Any]

    @property
    def window(self) -> int:
        """Examples answered together: what the policy batches, and enough to keep a server busy."""
        concurrency = int(getattr(self.policy_for([]), "concurrency", 0))
        return max(window_size(self.settings.decoding.batch_size), 4 * concurrency)


def load(
    settings: EvalSettings,
    *,
    examples: Sequence[Example] | None = None,
    segmenter: Segmenter | None = None,
    processor: Any = None,
) -> Loaded:
    """Opens data set, segmenter and policy, the cheap ones first. Raises SegrlError for what the user can put right.

    examples, segmenter, processor (of the policy): what the settings name, where it is open already.
    """
    from segrl import segmenters

    if examples is None:
        examples = datasets.load(settings.dataset, **settings.dataset_options)
    if len(examples) == 0:
        raise DataError(f"the data set {settings.dataset} holds no examples")
    if settings.answer_format is not None:
        answers.get(settings.answer_format)
    if segmenter is None:
        options = _placed(settings.segmenter_name, settings.fitted_segmenter_options)
        segmenter = segmenters.load(settings.segmenter_name, **options)
    if settings.policy in REPLAYED:
        policy_for, facts = _replayed(settings)
        return Loaded(settings, examples, policy_for, _text_to_masks(policy_for([]), segmenter, settings), facts)
    options = {"answer_format": settings.answer_format, **_placed(settings.policy, settings.policy_options)}
    if processor is not None:
        options["processor"] = processor
    policy = policies.load(settings.policy, **options)
    if settings.policy == policies.WORDS:
        return Loaded(settings, examples, lambda window: policy, _text_to_masks(policy, segmenter, settings), {})
    facts = _policy_facts(policy) | {"weights": weights_fingerprint(settings.policy)} | _base_facts(settings)
    return Loaded(settings, examples, lambda window: policy, _text_to_masks(policy, segmenter, settings), facts)


def _text_to_masks(policy: Policy, segmenter: Segmenter, settings: EvalSettings) -> TextToMasks:
    return make_text_to_masks(policy, segmenter, settings.answer_format)


def _placed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and this process's own GPU where there are several and nobody chose."""
    import torch

    from segrl.devices import default_device

    if "device" in options or not takes_device(name) or torch.cuda.device_count() < 2:
        return dict(options)
    return {"device": str(default_device()), **options}


def _replayed(settings: EvalSettings) -> tuple[PolicyFor, dict[str, Any]]:
    from segrl.text import check_options

    name, options = settings.answer_format or "seg-r1", settings.policy_options
    check_options(f"the policy {settings.policy}", oracle if settings.texts is None else scripted, options)
    if settings.texts is None:
        return oracle(name, **options), {}
    script = Script(Path(settings.texts))
    return scripted(script, name, **options), {"texts_sha256": script.sha256}


def describe(loaded: Loaded) -> dict[str, Any]:
    """All that determines the result, as JSON holds it; equal exactly where two processes do the same work.

    Folders are left out: the data set is known by its options, its size and a hash of examples spread
    over it, a local policy, and the model below an adapter, by a hash of its files.
    """
    settings, text_to_masks = loaded.settings, loaded.text_to_masks
    options = {key: value for key, value in settings.dataset_options.items() if key != "root"}
    policy_options = {key: value for key, value in settings.policy_options.items() if key != "base"}
    facts = {
        "protocol": PROTOCOL,
        "dataset": {
            "name": settings.dataset,
            "options": options,
            "examples": len(loaded.examples),
            "sha256_of_some": examples_hash(loaded.examples),
        },
        "policy": {"name": settings.policy, "options": policy_options, **loaded.policy_facts},
        "prompt": _prompt_facts(loaded),
        "frame": _frame_facts(text_to_masks),
        "segmenter": {
            "name": settings.segmenter_name,
            "options": settings.fitted_segmenter_options,
            "weights": None
            if settings.segmenter_name in WEIGHTLESS
            else weights_fingerprint(checkpoint_of(settings.segmenter_name)),
        },
        "decoding": {**settings.fitted_decoding.to_json(), "test_time": settings.decoding.title or PLAIN},
        "measures": {"saliency": settings.wants_saliency},
        "device": device_name(settings.threads),
        "versions": versions(),
    }
    return dict(json.loads(json.dumps(facts, default=str)))


def _prompt_facts(loaded: Loaded) -> dict[str, Any]:
    """What the policy is sent for the query `{query}`, with the chat template where the policy has one."""
    text = loaded.text_to_masks.answer_format.wording
    render = getattr(loaded.policy_for([]), "render", None)
    sent = render(text) if callable(render) else text
    return {
        "answer_format": loaded.text_to_masks.answer_format.name,
        "text": text,
        "sha256": hashlib.sha256(str(sent).encode()).hexdigest(),
    }


def _frame_facts(text_to_masks: TextToMasks) -> dict[str, Any]:
    """What the numbers of the answers mean, on an image of 1000 × 700 where that depends on it."""
    frame = text_to_masks.frame_for((1000, 700))
    return {"kind": frame.kind.value, "size_wh_for_1000x700": None if frame.size_wh is None else list(frame.size_wh)}


def _base_facts(settings: EvalSettings) -> dict[str, Any]:
    """The model below an adapter: its name on the hub, or the hash of its files."""
    if policies.is_served(settings.policy):
        return {}
    base = base_of(resolve_policy(settings.policy), settings.policy_options.get("base"))
    return {} if base is None else {"base": weights_fingerprint(base) or base}


def _policy_facts(policy: Policy) -> dict[str, Any]:
    """What a policy that was loaded can say of itself; a remote one may say less."""
    model, processor = getattr(policy, "model", None), getattr(policy, "processor", None)
    images = getattr(processor, "image_processor", None)
    config, settings = getattr(model, "config", None), getattr(policy, "settings", None)
    found = {
        "settings": None if settings is None else {k: v for k, v in vars(settings).items() if k != "segmenter"},
        "dtype": None if model is None else str(getattr(model, "dtype", None)),
        "commit": getattr(config, "_commit_hash", None),
        "image_size": {
            key: getattr(images, key) for key in ("size", "patch_size", "merge_size") if getattr(images, key, None)
        },
    }
    return {key: value for key, value in found.items() if value}
