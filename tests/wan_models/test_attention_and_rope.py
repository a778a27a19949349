"""Kernels by name, and rotary positions."""

import math
import weakref
from types import SimpleNamespace

import pytest
import torch
from tests_support import rel_l2

from wan_models.attention import Backend, available, get_attention, sdpa
from wan_models.dit.steps import AnimateStepModel, SpeechStepModel, StepModel
from wan_models.rope import apply_rotary_, axis_split, rotary_table


def test_sdpa_equals_the_formula(seed):
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    heads = [t.unflatten(-1, (3, 4)).transpose(1, 2) for t in (q, k, v)]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(4)).softmax(-1)
    assert rel_l2(sdpa(q, k, v, 3), (weights @ heads[2]).transpose(1, 2).flatten(2)) < 1e-6


@pytest.mark.parametrize("backend", [b for b in Backend if available()[b]])
def test_an_explicit_choice_that_cannot_run_fails_loudly(backend):
    with pytest.raises(ValueError, match=rf"'{backend.value}' cannot be used: .*kernels"):
        get_attention(backend.value)


@pytest.mark.parametrize("backend", [b for b in Backend if not available()[b]])
def test_every_usable_kernel_agrees(seed, backend):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = (torch.randn(1, n, 256, device=device, dtype=dtype) for n in (64, 48, 48))
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-6
    assert rel_l2(get_attention(backend)(q, k, v, 2), sdpa(q.float(), k.float(), v.float(), 2)) < tolerance


def test_unknown_kernel_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown attention 'fast'; choose one of auto, sdpa"):
        get_attention("fast")


@pytest.mark.parametrize("head_dim", [128, 64, 48, 10])
def test_rotation_keeps_lengths_and_tells_distances(seed, head_dim):
    """q.k depends on the distance between two positions alone; a shift of all positions changes nothing."""
    assert sum(axis_split(head_dim)) == head_dim
    x = torch.randn(1, 24, 2, head_dim)
    plain = apply_rotary_(x.clone(), rotary_table((2, 3, 4), head_dim, x.device))
    assert rel_l2(plain.norm(dim=-1), x.norm(dim=-1)) < 1e-6
    moved = apply_rotary_(x.clone(), rotary_table((2, 3, 4), head_dim, x.device, shift=(3.0, 0.5, 7.0)))
    products = [torch.einsum("blhd,bmhd->bhlm", y, y) for y in (plain, moved)]
    assert rel_l2(products[1], products[0]) < 1e-5
    assert rel_l2(moved, plain) > 1e-2


def test_scaled_positions_stand_where_they_should():
    """Every second cell at scale 0.5 is a cell of the plain grid."""
    device = torch.device("cpu")
    plain = rotary_table((3, 1, 1), 12, device)
    fine = rotary_table((5, 1, 1), 12, device, scale=(0.5, 1.0, 1.0))
    assert rel_l2(torch.view_as_real(fine[::2]), torch.view_as_real(plain)) < 1e-6


@pytest.mark.parametrize("kind", [StepModel, SpeechStepModel, AnimateStepModel])
def test_tables_are_kept_for_a_run_and_no_longer(kind):
    """They lie on a device, where nobody knows of them."""
    table = rotary_table((2, 3, 5), 12, torch.device("cpu"))
    assert rotary_table((2, 3, 5), 12, torch.device("cpu")) is table
    gone = weakref.ref(table)
    del table
    assert gone() is not None
    kind.forget(SimpleNamespace())
    assert gone() is None
