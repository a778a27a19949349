"""The implementations we measure ourselves against, with our weights in them."""

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from demo.cpu_torch import repair_torchvision

ROOT = Path(__file__).resolve().parents[1]


def prepare():
    """Makes the official code and the host importable on a CPU."""
    repair_torchvision()
    torch.cuda.current_device = lambda: 0
    comfyui = os.environ.get("COMFYUI")
    if comfyui:
        sys.path.insert(0, str((ROOT / comfyui).resolve()))
        import comfy.cli_args

        comfy.cli_args.args.cpu = not torch.cuda.is_available()
    return bool(comfyui)


def official_attention():
    """Gives the official modules plain SDPA, as everybody else here has it."""
    import wan.modules.model

    def attention(q, k, v, k_lens=None, window_size=None):
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()

    wan.modules.model.flash_attention = attention
    return wan.modules.model.WanModel


def diffusers_dit_names(name):
    """The name in diffusers' WanTransformer3DModel of one of our parameters."""
    for ours, theirs in (
        ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
        ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
        ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
        ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
        ("time_projection.1", "condition_embedder.time_proj"),
        ("head.modulation", "scale_shift_table"),
        ("head.head", "proj_out"),
        ("modulation", "scale_shift_table"),
        ("self_attn.", "attn1."),
        ("cross_attn.", "attn2."),
        (".q.", ".to_q."),
        (".k.", ".to_k."),
        (".v.", ".to_v."),
        (".o.", ".to_out.0."),
        ("norm3.", "norm2."),
        ("ffn.0", "ffn.net.0.proj"),
        ("ffn.2", "ffn.net.2"),
    ):
        name = name.replace(ours, theirs)
    return name
