"""Patches are embedded by a matrix product that equals the convolution."""

import pytest
import torch
from torch import nn

from segrl.policies.model_speedups import PatchProjection, project_patches


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_equal_the_convolution(bias):
    torch.manual_seed(0)
    patches = torch.randn(5, 3, 2, 4, 6)
    convolution = nn.Conv3d(3, 8, (2, 4, 6), (2, 4, 6), bias=bias)
    model = nn.Sequential(convolution)
    expected = model(patches)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    names, kept = list(model.state_dict()), list(model.parameters())
    model.zero_grad()

    project_patches(model)

    assert type(model[0]) is PatchProjection
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), kept, strict=True))
    found = model(patches)
    assert found.shape == expected.shape == (5, 8, 1, 1, 1)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_larger_input_is_convolved():
    layer = nn.Conv3d(1, 2, (1, 2, 2), (1, 2, 2))
    video = torch.randn(1, 1, 3, 4, 4)
    expected = layer(video)
    project_patches(nn.Sequential(layer))
    torch.testing.assert_close(layer(video), expected)


def test_overlapping_convolutions_are_left_alone():
    layer = nn.Conv3d(1, 2, 3, stride=1)
    project_patches(nn.Sequential(layer))
    assert type(layer) is nn.Conv3d


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_families_that_it_is_for_have_such_a_layer(family):
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CONFIG_MAPPING[family]())
    project_patches(model)
    assert sum(isinstance(module, PatchProjection) for module in model.modules()) == 1
