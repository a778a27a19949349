"""Our transformers under the host's calling convention: wrappers, block patches, rope options, attention, Cancel."""

from typing import Any

import comfy.ldm.common_dit
import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..wan_models.dit.steps import AnimateStepModel, SpeechStepModel, StepModel
from ..wan_models.rope import rotary_table


class Hosted(StepModel):
    """A transformer under the signature with which the host calls a Wan diffusion model."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x [B, C, F, H, W] of any H and W, timestep [B] or [B, F], context [B, L, text_dim] -> velocity fp32."""
        transformer_options = {} if transformer_options is None else transformer_options
        # positional and in this order: wrappers (EasyCache ...) find transformer_options by position
        return comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._denoise,
            self,
            comfy.patcher_extension.get_all_wrappers(
                comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
            ),
        ).execute(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)

    def _denoise(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None,
        time_dim_concat: Tensor | None,
        transformer_options: dict,
        **kwargs: Any,
    ) -> Tensor:
        frames, height, width = x.shape[2:]
        if time_dim_concat is not None:
            x = torch.cat([x, time_dim_concat.to(x)], dim=2)
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.config.patch_size)

        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
            return optimized_attention(q, k, v, heads=heads, transformer_options=transformer_options)

        out = self.velocity(
            x,
            timestep,
            context,
            clip_fea=clip_fea,
            attention=attention,
            rotary=self._rotary(x, transformer_options.get("rope_options")),
            run_block=_block_runner(transformer_options, len(self.blocks), x),
            **kwargs,
        )
        return out[:, :, :frames, :height, :width]

    def _rotary(self, x: Tensor, options: dict | None) -> Any:
        """The table for the host's rope_options (positions scaled and shifted per axis), None for the plain one."""
        if not options:
            return None
        grid = tuple(n // p for n, p in zip(x.shape[2:], self.config.patch_size, strict=True))
        return rotary_table(
            grid,
            self.config.head_dim,
            x.device,
            shift=tuple(options.get(f"shift_{axis}", 0.0) for axis in "tyx"),
            scale=tuple(options.get(f"scale_{axis}", 1.0) for axis in "tyx"),
        )


class HostDiT(Hosted):
    """`WanModel` for the host."""


class HostSpeechDiT(Hosted, SpeechStepModel):
    """`WanSpeechModel` for the host."""


class HostAnimateDiT(Hosted, AnimateStepModel):
    """`WanAnimateModel` for the host."""


def _block_runner(transformer_options: dict, total: int, latents: Tensor) -> Any:
    """Runs one block as the host would: announces it to patches, lets a patch replace it, and hears Cancel."""
    replacements = transformer_options.get("patches_replace", {}).get("dit", {})
    after_block = transformer_options.get("patches", {}).get("double_block", [])

    def run(index: int, block: torch.nn.Module, x: Tensor, **inputs: Any) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        transformer_options.update(block_index=index, total_blocks=total, block_type="double")
        replacement = replacements.get(("double_block", index))
        if replacement is None:
            x = block(x, **inputs)
        else:

            def original(args: dict) -> dict:
                changed = {**inputs, "context": args["txt"], "e": args["vec"], "rotary": args["pe"]}
                # our blocks work in place, and a patch may compare what came out with what went in
                return {"img": block(args["img"].clone(), **changed)}

            args = {"img": x, "txt": inputs["context"], "vec": inputs["e"], "pe": inputs["rotary"]}
            args["transformer_options"] = transformer_options
            x = replacement(args, {"original_block": original})["img"]
        for patch in after_block:
            args = {"img": x, "x": latents, "vec": inputs["e"], "block_index": index, "img_offset": 0}
            x = patch({**args, "transformer_options": transformer_options})["img"]
        return x

    return run
