"""The implementations we measure ourselves against, with our weights in them."""

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from devhost.cpu_torch import repair_torchvision

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

    for name, module in list(sys.modules.items()):
        if name.startswith("wan.") and hasattr(module, "flash_attention"):
            module.flash_attention = attention
    return wan.modules.model.WanModel
