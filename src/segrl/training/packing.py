"""One sequence per prompt: the prompt, then all of its completions, none of which sees another.

    sees →     prompt   c1   c2
    prompt       ◣
    c1           █      ◣
    c2           █           ◣

Each completion's positions go on from the prompt's end, so every token reads what it reads in a
sequence of its own, and its log-probability is the same; the prompt and its images are computed
once instead of once per completion (Prefix Grouper, arXiv 2506.05433, has this for text). `Cost` says when
that pays: the same numbers for the trainer and for `segrl plan`. Importing this loads no torch.

R: packed rows, one per group. M: completions. L: longest packed row. P, C: width of the padded prompts
and completions. N: completion tokens that are scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PADDING = -1
"""`segments` of what fills a shorter row."""


@dataclass(frozen=True)
class Packed:
    """Groups as packed rows.

    ids_RL: token ids. segments_RL: 0 for the prompt, k for its k-th completion, `PADDING` after the end.
    offsets_RL: a token's place in the sequence that it stands for, prompt and one completion.
    before_N: where, in R × L flattened, the hidden state lies that predicts a scored token. tokens_N: its
    id. places_N: where, in M × C flattened, its log-probability belongs.
    """

    ids_RL: Tensor
    segments_RL: Tensor
    offsets_RL: Tensor
    before_N: Tensor
    tokens_N: Tensor
    places_N: Tensor


def lengths_of(groups: Sequence[Sequence[int]], mask_MP: Tensor, mask_MC: Tensor) -> list[int]:
    """Tokens of each group's packed row."""
    prompts, completions = mask_MP.sum(1).tolist(), mask_MC.sum(1).tolist()
    return [prompts[group[0]] + sum(completions[i] for i in group) for group in groups]


def pack(groups: Sequence[Sequence[int]], ids_MP: Tensor, mask_MP: Tensor, ids_MC: Tensor, mask_MC: Tensor) -> Packed:
    """Packs groups, one row each; padding of prompts and completions is left out, shorter rows are filled at the end.

    A completion whose mask is all zero (a cut one, with `mask_truncated_completions`) takes no place.
    """
    import torch

    rows = [_row(group, ids_MP, mask_MP.bool(), ids_MC, mask_MC.bool()) for group in groups]
    longest = max(len(row[0]) for row in rows)

    def filled(k: int, value: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row[k], (0, longest - len(row[k])), value=value) for row in rows])

    before = torch.cat([row[3] + r * longest for r, row in enumerate(rows)])
    # What fills a row is an ordinary token: any id that stands for no image would do.
    return Packed(
        filled(0, int(ids_MC[0, 0])),
        filled(1, PADDING),
        filled(2, 0),
        before,
        torch.cat([row[4] for row in rows]),
        torch.cat([row[5] for row in rows]),
    )


def _row(
    group: Sequence[int], ids_MP: Tensor, mask_MP: Tensor, ids_MC: Tensor, mask_MC: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Ids, segments, offsets; before, tokens and places of what is scored."""
    import torch

    prompt = ids_MP[group[0]][mask_MP[group[0]]]
    width, arange = mask_MC.shape[1], torch.arange(mask_MC.shape[1], device=prompt.device)
    ids, segments = [prompt], [torch.zeros_like(prompt)]
    offsets = [torch.arange(len(prompt), device=prompt.device)]
    before, places, end = [], [], len(prompt)
    for k, i in enumerate(group, 1):
        completion, at = ids_MC[i][mask_MC[i]], arange[mask_MC[i]]
        n = len(completion)
        ids.append(completion)
        segments.append(torch.full_like(completion, k))
        offsets.append(len(prompt) + arange[:n])
        predecessor = end - 1 + arange[:n]
        before.append(torch.where(arange[:n] == 0, len(prompt) - 1, predecessor))
        places.append(i * width + at)
        end += n
    return (
        torch.cat(ids),
        torch.cat(segments),
        torch.cat(offsets),
        torch.cat(before),
        torch.cat(ids[1:]),
        torch.cat(places),
    )


def visible(segments_RL: Tensor) -> Tensor:
    """`(R, 1, L, L)` bool: which tokens each token sees, itself included. What fills a row sees itself alone."""
    import torch

    query, key = segments_RL[:, :, None], segments_RL[:, None, :]
    length = segments_RL.shape[1]
    not_later = torch.ones(length, length, dtype=torch.bool, device=segments_RL.device).tril()
    seen = not_later & ((key == 0) & (query != PADDING) | (key == query) & (query != PADDING))
    seen |= torch.eye(length, dtype=torch.bool, device=segments_RL.device)
    return seen[:, None]


def block_mask(segments_RL: Tensor) -> object:
    """`visible` as flex attention takes it: blocks of 128 × 128, of which those that nothing sees cost nothing."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_query, of_key = segments_RL[row, query], segments_RL[row, key]
        is_shared = (of_key == 0) | (of_key == of_query)
        return ((query >= key) & is_shared & (of_query != PADDING)) | (query == key)

    rows, length = segments_RL.shape
    return create_block_mask(seen, rows, None, length, length, device=segments_RL.device)


def spread(values_N: Tensor, places_N: Tensor, shape: tuple[int, int]) -> Tensor:
    """`(M, C)` with each value at its place and 0 elsewhere; gradients flow back."""
    flat = values_N.new_zeros(shape[0] * shape[1])
    return flat.index_put((places_N,), values_N).view(shape)


MASK_SHARE = 0.05
"""Of the device's memory, the most that a mask over a packed sequence may take."""
MASK_BYTES = 5
"""Of a pair of tokens under the mask: a bool, and the float32 that an attention kernel may make of it."""
GAIN = 0.8
"""A packed pass is taken where its operations are at most this share of the plain pass's. Measured, its time is within
0.15 of that share, and less than the plain pass's from 0.98 down; see docs/performance.md."""


@dataclass(frozen=True)
class Cost:
    """Operations of a pass through the language model's layers: per token, and per pair of tokens in attention."""

    per_token: float
    per_pair: float

    @classmethod
    def of_layers(cls, layers: int, width: int, mlp: int, queries: int, keys: int) -> Cost:
        """queries, keys: width of all heads' queries together, and of all keys."""
        weights = width * (2 * queries + 2 * keys + 3 * mlp)
        return cls(2 * weights * layers, 4 * queries * layers)

    def of(self, rows: int, length: int) -> float:
        """Of `rows` sequences of `length` tokens under a mask, which every pair of tokens goes through."""
        return rows * length * (self.per_token + length * self.per_pair)

    def share(self, packed: Iterable[tuple[int, int]], plain: tuple[int, int]) -> float:
        """Operations of passes over packed rows, over those of one with a row per completion; each (rows, length)."""
        return sum(self.of(*shape) for shape in packed) / self.of(*plain)

    def gains(self, packed: Iterable[tuple[int, int]], plain: tuple[int, int]) -> bool:
        """Whether passes over packed rows cost clearly less."""
        return self.share(packed, plain) <= GAIN


def mask_bytes(rows: int, length: int) -> int:
    """What a mask over so many packed rows takes."""
    return MASK_BYTES * rows * length**2
