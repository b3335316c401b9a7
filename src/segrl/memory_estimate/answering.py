"""What one answer of a policy costs on a GPU, reckoned from its dimensions; not compared with a measured run.

Reading a prompt takes two operations a weight and token, at the GPU's rate. Writing a token reads all weights once for
all samples together, and each sample's keys and values, at the memory's rate: which is why eight samples take much
less than eight times as long. The prompt is read once for all samples. Left out: the image encoder's own attention,
the segmenter, and everything on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

from segrl.memory_estimate.dimensions import PolicyModel

BYTES = 2
"""Of a weight in bfloat16."""


@dataclass(frozen=True)
class Gpu:
    """flops: operations a second in bfloat16 that a model reaches. bandwidth: bytes a second that it reaches."""

    flops: float = 400e12
    bandwidth: float = 2.0e12


H100 = Gpu()
"""About two fifths of the peak of an H100 in operations, and three fifths of its bandwidth."""


@dataclass(frozen=True)
class AnswerCost:
    """Of one question. read, written: tokens of the prompt and of all samples. reading, writing: seconds."""

    read: int
    written: int
    reading: float
    writing: float

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.reading + self.writing


def answer_cost(
    model: PolicyModel,
    image_wh: tuple[int, int],
    *,
    samples: int = 1,
    tokens: int = 250,
    text_tokens: int = 100,
    gpu: Gpu = H100,
) -> AnswerCost:
    """The cost of `samples` answers of `tokens` tokens each about an image and a prompt of `text_tokens`."""
    prompt = model.image_tokens(image_wh) + text_tokens
    weights = model.parameters - model.vision_parameters
    see = 2 * model.vision_parameters * model.image_tokens(image_wh) * model.vision.merge**2
    reading = (2 * weights * prompt + see) / gpu.flops
    keys = 2 * model.layers * model.kv_heads * model.head * BYTES
    a_token = weights * BYTES + samples * keys * (prompt + tokens / 2)
    return AnswerCost(prompt, samples * tokens, reading, tokens * a_token / gpu.bandwidth)
