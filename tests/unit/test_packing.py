"""Prompts and completions packed into one sequence per group: what stands where, and who sees whom."""

from __future__ import annotations

import torch

from segrl.training.packing import PADDING, lengths_of, pack, spread, visible

X = 0  # padding
IDS_MP = torch.tensor([[X, 5, 6], [7, 8, 9], [X, 5, 6], [7, 8, 9], [X, 5, 6]])
MASK_MP = (IDS_MP != X).long()
IDS_MC = torch.tensor([[11, 12], [21, X], [13, X], [22, 23], [14, 15]])
MASK_MC = (IDS_MC != X).long()


def test_a_group_becomes_a_row_without_padding():
    packed = pack([[0, 2, 4], [1, 3]], IDS_MP, MASK_MP, IDS_MC, MASK_MC)
    assert lengths_of([[0, 2, 4], [1, 3]], MASK_MP, MASK_MC) == [7, 6]
    assert packed.ids_RL.tolist() == [[5, 6, 11, 12, 13, 14, 15], [7, 8, 9, 21, 22, 23, 11]]
    assert packed.segments_RL.tolist() == [[0, 0, 1, 1, 2, 3, 3], [0, 0, 0, 1, 2, 2, PADDING]]
    assert packed.offsets_RL.tolist() == [[0, 1, 2, 3, 2, 2, 3], [0, 1, 2, 3, 3, 4, 0]]


def test_each_scored_token_follows_the_one_before_it_in_its_own_sequence():
    packed = pack([[0, 2, 4], [1, 3]], IDS_MP, MASK_MP, IDS_MC, MASK_MC)
    assert packed.tokens_N.tolist() == [11, 12, 13, 14, 15, 21, 22, 23]
    assert packed.ids_RL.flatten()[packed.before_N].tolist() == [6, 11, 6, 6, 14, 9, 9, 22]
    assert spread(packed.tokens_N.float(), packed.places_N, (5, 2)).long().tolist() == IDS_MC.tolist()


def test_a_completion_that_is_left_out_takes_no_place():
    mask = MASK_MC.clone()
    mask[2] = 0
    packed = pack([[0, 2, 4]], IDS_MP, MASK_MP, IDS_MC, mask)
    assert packed.ids_RL.tolist() == [[5, 6, 11, 12, 14, 15]]
    assert packed.places_N.tolist() == [0, 1, 8, 9]


SEEN = """\
1......
11.....
111....
1111...
11..1..
11...1.
11...11"""


def test_a_completion_sees_the_prompt_and_itself():
    segments = torch.tensor([[0, 0, 1, 1, 2, 3, 3], [0, 0, 0, 1, 2, 2, PADDING]])
    seen = visible(segments)
    assert seen.shape == (2, 1, 7, 7)
    assert "\n".join("".join("1" if s else "." for s in row) for row in seen[0, 0].tolist()) == SEEN
    assert seen[1, 0, 6].tolist() == [False] * 6 + [True]  # what fills a row sees itself: a softmax over nothing is NaN
    assert not seen[1, 0, :6, 6].any()
