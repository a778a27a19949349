"""diffusers' Wan-Animate-2 for tests on a CPU: its block mask as a plain one, and its flex attention as torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wan_models.checkpoints.keys import to_foreign


def small_reference(monkeypatch, *, bias=0.0, **sizes):
    """A transformer of diffusers without its compiled kernel. bias: added to the logits of the first frame after the
    reference, as the distilled release has it and diffusers does not."""
    from diffusers.models.transformers import transformer_wan_animate_2 as theirs

    def dense_mask(rule, **sizes):
        q, k = torch.arange(sizes["Q_LEN"])[:, None], torch.arange(sizes["KV_LEN"])[None]
        return rule(None, None, q, k)

    def dense_attention(query, key, value, attn_mask=None, **_):
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        logits = None
        if attn_mask is not None:
            logits = torch.zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
            logits[:, dense_attention.first] += bias
            logits[~attn_mask.any(1)] = 0  # rows of padding, which are cut off
        return F.scaled_dot_product_attention(q, k, v, attn_mask=logits).transpose(1, 2)

    dense_attention.first = slice(0, 0)
    monkeypatch.setattr(theirs, "create_block_mask", dense_mask)
    monkeypatch.setattr(theirs, "dispatch_attention_fn", dense_attention)
    model = theirs.WanAnimate2Transformer3DModel(**sizes).eval().requires_grad_(False)
    model.attention = dense_attention
    return model, theirs.WanAnimate2KVCache


def official_names(reference) -> dict[str, Tensor]:
    """The weights of diffusers' model by the names of the image-to-video model."""
    state = reference.state_dict()
    ours = {name: None for name in state}
    foreign = to_foreign("diffusers Animate-2", map(_official, ours))
    return {official: state[name] for official, name in foreign.items()}


def _official(name: str) -> str:
    from wan_models.checkpoints.keys import SCHEMES

    return SCHEMES["diffusers Animate-2"].forth(name) or name
