"""Kernels by name, and rotary positions."""

import math
import sys
import weakref
from types import ModuleType

import pytest
import torch
from tests_support import rel_l2

from wan_models import attention, rope
from wan_models.attention import Backend, available, get_attention, sdpa
from wan_models.rope import apply_rotary_, axis_split, rotary_table


def test_sdpa_equals_the_formula(seed):
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    heads = [t.unflatten(-1, (3, 4)).transpose(1, 2) for t in (q, k, v)]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(4)).softmax(-1)
    assert rel_l2(sdpa(q, k, v, 3), (weights @ heads[2]).transpose(1, 2).flatten(2)) < 1e-6


@pytest.mark.parametrize("backend", [b for b in Backend if available()[b]])
def test_an_explicit_choice_that_cannot_run_fails_loudly(backend):
    with pytest.raises(ValueError, match=rf"'{backend.value}' cannot be used: .*, or choose 'auto'"):
        get_attention(backend.value)


def formula(q, k, v, heads):
    """softmax(q k^T / sqrt(D)) v in float64, head by head, as it is written."""
    parts = []
    for one in range(heads):
        a, b, c = (x.double().chunk(heads, -1)[one] for x in (q, k, v))
        scores = (a @ b.transpose(1, 2) / a.shape[-1] ** 0.5).exp()
        parts.append(scores / scores.sum(-1, keepdim=True) @ c)
    return torch.cat(parts, -1)


@pytest.mark.parametrize("backend", [b for b in Backend if not available()[b]])
def test_every_usable_kernel_agrees_with_the_formula(seed, backend):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float32, 1e-6 if device == "cpu" else 1e-3)):
        q, k, v = (torch.randn(1, n, 256, device=device, dtype=dtype) for n in (64, 48, 48))
        if backend not in (Backend.AUTO, Backend.SDPA, Backend.XFORMERS) and dtype is torch.float32:
            with pytest.raises(ValueError, match="takes float16 and bfloat16"):
                get_attention(backend)(q, k, v, 2)
            continue
        found = get_attention(backend)(q, k, v, 2)
        assert found.dtype is dtype and rel_l2(found.double(), formula(q, k, v, 2)) < tolerance
        assert rel_l2(formula(q, k, v, 1), formula(q, k, v, 2)) > 0.2  # heads are told apart


@pytest.fixture
def flash4(monkeypatch):
    """A fake kernel of a GPU that says when it is used; the real ones are on a few machines only."""
    used = []
    package = {name: ModuleType(name) for name in ("flash_attn", "flash_attn.cute")}
    package["flash_attn.cute"].flash_attn_func = lambda q, k, v: used.append(q.dtype) or (q, None)
    for name, module in package.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        attention, "_why_not", lambda backend: "" if backend is Backend.FLASH4 else "not here"
    )
    attention._auto.cache_clear()
    yield used
    attention._auto.cache_clear()


def test_what_a_kernel_does_not_take(flash4, seed, monkeypatch):
    """AUTO takes torch's own kernel for it, and an explicit choice is an error that says why."""
    q = torch.randn(1, 8, 64)
    for dtype in (torch.float32, torch.bfloat16):
        x = q.to(dtype)
        assert torch.equal(get_attention()(x, x, x, 2), sdpa(x, x, x, 2))
        with pytest.raises(
            ValueError, match=r"'flash4' cannot be used: it runs on a GPU, and this model is on the CPU"
        ):
            get_attention("flash4")(x, x, x, 2)
    assert not flash4
    on_gpu = attention._why_not_for
    monkeypatch.setattr(
        attention, "_why_not_for", lambda backend, dtype, device: on_gpu(backend, dtype, "cuda")
    )
    half = q.bfloat16()
    assert torch.equal(get_attention()(q, q, q, 2), sdpa(q, q, q, 2)) and not flash4
    with pytest.raises(
        ValueError, match=r"takes float16 and bfloat16, and this model computes in float32.*'auto'"
    ):
        get_attention("flash4")(q, q, q, 2)
    for name in ("auto", "flash4"):
        assert torch.equal(get_attention(name)(half, half, half, 2), half)  # of the fake
    assert flash4 == [torch.bfloat16] * 2


def test_hints_name_packages_that_can_be_installed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for backend, module in attention._MODULES.items():
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
        reason = attention._why_not.__wrapped__(backend)
        assert f"package {module} is not installed. Install it: " in reason and "comfyui" not in reason
        assert attention.INSTALL[backend] in reason


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
    shifted = tuple(
        tuple(n + by for n in range(cells)) for cells, by in zip((2, 3, 4), (3.0, 0.5, 7.0), strict=True)
    )
    moved = apply_rotary_(x.clone(), rope.rotary_at(shifted, head_dim, x.device))
    products = [torch.einsum("blhd,bmhd->bhlm", y, y) for y in (plain, moved)]
    assert rel_l2(products[1], products[0]) < 1e-5
    assert rel_l2(moved, plain) > 1e-2


def test_scaled_positions_stand_where_they_should():
    """Every second cell at scale 0.5 is a cell of the plain grid."""
    device = torch.device("cpu")
    plain = rotary_table((3, 1, 1), 12, device)
    fine = rope.rotary_at(((0.0, 0.5, 1.0, 1.5, 2.0), (0.0,), (0.0,)), 12, device)
    assert rel_l2(torch.view_as_real(fine[::2]), torch.view_as_real(plain)) < 1e-6


def test_tables_are_kept_for_a_run_and_no_longer():
    """They lie on a device, where nobody knows of them."""
    table = rotary_table((2, 3, 5), 12, torch.device("cpu"))
    assert rotary_table((2, 3, 5), 12, torch.device("cpu")) is table
    gone = weakref.ref(table)
    del table
    assert gone() is not None
    rope.clear()
    assert gone() is None
