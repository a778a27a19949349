"""Our transformers under the host's calling convention: wrappers, patches, positions, compute dtype."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Protocol

import comfy.ldm.common_dit
import comfy.patcher_extension
import torch
import torch.nn.functional as F
from comfy.ldm.flux.layers import EmbedND
from torch import Tensor

from ....wan_models import rope
from ....wan_models.config import DiTConfig
from ....wan_models.dit.animate import WanAnimateModel
from ....wan_models.dit.animate2 import WanAnimate2Model
from ....wan_models.dit.base import InputError, RunBlock, WanModel
from ....wan_models.dit.guided_text import GuidedText
from ....wan_models.dit.speech import WanSpeechModel
from ....wan_models.dit.tokens import Inputs
from ....wan_models.rope import THETA, Positions, RotaryTable, axis_split
from ....wan_models.sampling.clip_cache import ClipCache
from .blocks import HostBlock, block_runner, host_attention, rotary_of

SCHEDULE_COND = "prompt_schedule"
"""Name of the conditioning that is the `Schedule` of a call's text, where there is one."""
NAG_OPTION = "wan_nag"
"""Key of transformer_options: the `NAG` of a call's positive rows, where there is one."""
# the host gives these to its own models of the same kind too, which leave them alone
_WITHOUT_EFFECT = {"control", "denoise_mask", "reference_latent", "crossattn_controlnet", "y"}
# what to do about an `InputError`
_ADVICE = {"text": ". Load it with WanT5Loader", "missing": ": connect WanS2VCondition"}


class RemoteVelocity(Protocol):
    """Computes a network's velocity somewhere else."""

    def __call__(self, network: "Hosted", step: Mapping[str, Any], options: dict) -> Tensor:
        """The velocity for `step`: "x", "timestep", "image", "rotary", what `GuidedText.plain` gives and the fields of
        the network's `Inputs`; under the host's transformer_options."""
        ...


class _PlainEmbedder(EmbedND):
    """The host's embedding of positions; packs put another in its place (RIFLEx ...)."""


class Hosted(WanModel):
    """A transformer under the signature with which the host calls a Wan diffusion model, and with its attributes."""

    block_class = HostBlock
    conditioning: ClassVar[dict[str, str]] = {}
    """The host's names of conditioning that this model takes, and the fields of its `Inputs` that they are."""
    remote: RemoteVelocity | None = None
    """Slot for what computes elsewhere; the network then stays on the meta device."""
    compute_dtype: torch.dtype
    """Set by who makes the model."""

    def __init__(self, config: DiTConfig, ops: ModuleType) -> None:
        super().__init__(config, ops)
        self.clips = ClipCache(self.kept_clips)
        self.dim, self.ffn_dim, self.num_heads = config.dim, config.ffn_dim, config.num_heads
        self.num_layers, self.head_dim = config.num_layers, config.head_dim
        self.in_dim, self.out_dim = config.in_dim, config.out_dim
        self.text_dim, self.text_len, self.freq_dim = config.text_dim, config.text_len, config.freq_dim
        self.patch_size, self.window_size = config.patch_size, (-1, -1)
        self.qk_norm, self.cross_attn_norm, self.eps = config.qk_norm, config.cross_attn_norm, config.eps
        self.model_type = "i2v" if config.image_dim else "t2v"
        self.ref_conv = None
        if not config.image_dim:
            self.img_emb = None
        axes = axis_split(config.head_dim)
        self.rope_embedder = _PlainEmbedder(dim=config.head_dim, theta=THETA, axes_dim=list(axes))

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
            self._forward,
            self,
            comfy.patcher_extension.get_all_wrappers(
                comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
            ),
        ).execute(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        options = {} if transformer_options is None else transformer_options
        if "forward_orig" in vars(self):
            Hosted.forward_orig(self)
        schedule = kwargs.pop(SCHEDULE_COND, None)
        self._refuse_unknown(kwargs)
        frames, height, width = x.shape[2:]
        if time_dim_concat is not None:
            x = torch.cat([x, time_dim_concat.to(x)], dim=2)
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.config.patch_size)
        options["grid_sizes"] = self._grid(x)

        inputs = self._inputs(kwargs, options)
        rotary = self._rotary(x, options)
        nag = options.get(NAG_OPTION)
        text = GuidedText(
            context,
            None if nag is None else replace(nag, rows=~_unconditional(options, x.shape[0])),
            None if schedule is None else replace(schedule, shown=_shown(options, frames, x.shape[2])),
        )
        step = {"x": x, "timestep": timestep, "image": clip_fea, "rotary": rotary, **text.plain()}
        if self.guided_apart:
            step["unconditional"] = _unconditional(options, x.shape[0])
        if self.remote is not None:
            out = self.remote(self, step | vars(inputs), options)
        else:
            out = self._compute(step, inputs, options, kwargs)
        return out[:, :, :frames, :height, :width]

    def _compute(self, step: Mapping[str, Any], inputs: Inputs, options: dict, conditioning: dict) -> Tensor:
        """The velocity for `step`, as of `RemoteVelocity` without the inputs, in this process."""
        x, timestep = step["x"], step["timestep"]

        @cache
        def vec() -> Tensor:
            return self._embedding(timestep, x.shape[2], conditioning)

        # the host has cast x to what it wants computed in
        before = self.compute_dtype
        self.compute_dtype = x.dtype
        size = (x.shape[2], x.shape[3], x.shape[4])
        try:
            conditions = self.clips.conditions(inputs, size, lambda: self.prepare(inputs, size))
            if conditions is not None and "unconditional" in step:
                conditions = conditions.with_unconditional(step["unconditional"])
            return super().forward(
                x,
                timestep,
                GuidedText.of_plain(step),
                image=step["image"],
                conditions=conditions,
                attention=host_attention(options),
                rotary=step["rotary"],
                run_block=block_runner(options, len(self.blocks), x, vec),
            )
        except InputError as error:
            raise ValueError(f"{error}{_ADVICE.get(error.what, '')}") from error
        finally:
            self.compute_dtype = before

    def _inputs(self, conditioning: dict, options: dict) -> Inputs:
        """The host's conditioning of a clip, as the model takes it, under the host's transformer_options."""
        named = {self.conditioning[name]: v for name, v in conditioning.items() if name in self.conditioning}
        return self.inputs_class(**named)

    def clear_cache(self, *_: Any) -> None:
        """Drops what is kept for the steps of a clip, tables of positions among it."""
        self.clips.clear()
        rope.clear()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # there is nothing to move or to cast where another process has the weights
        return self if self.remote is not None else super()._apply(fn, recurse)

    def forward_orig(self, *_: Any, **__: Any) -> Tensor:
        """Stands for what packs of Wan2.1 times replace (TeaCache ...). Raises ValueError."""
        raise ValueError(
            "a node before the sampler replaces the inside of ComfyUI's own Wan model (forward_orig, as TeaCache "
            "does), which this model does not have: take that node out. ComfyUI's EasyCache skips steps here too"
        )

    def _refuse_unknown(self, conditioning: dict) -> None:
        """ValueError where a node has conditioned the model with something that it would leave out."""
        for name, value in conditioning.items():
            is_known = name in self.conditioning or name in _WITHOUT_EFFECT
            if not is_known and isinstance(value, (Tensor, list, tuple)):
                raise ValueError(
                    f"a node before the sampler conditions the model with {name}, which this model does not take: load "
                    "the file with ComfyUI's own loader (Load Diffusion Model), whose MODEL runs in WanMoESampler too"
                )

    def _embedding(self, timestep: Tensor, frames: int, conditioning: dict) -> Tensor:
        """The embedded timesteps [B, S, C], one row for each segment that the host tells apart."""
        return self.embed_time(timestep if timestep.dim() == 2 else timestep.unsqueeze(1))[0]

    def _grid(self, x: Tensor) -> torch.Size:
        return torch.Size(n // p for n, p in zip(x.shape[2:], self.config.patch_size, strict=True))

    def _rotary(self, x: Tensor, options: dict) -> RotaryTable | None:
        """The table of positions where a node or a pack has changed them, None for the plain one."""
        if self._is_plain("rope_encode") and not options.get("rope_options"):
            return None
        frames, height, width = x.shape[2:]
        freqs = self.rope_encode(
            frames, height, width, device=x.device, dtype=torch.float32, transformer_options=options
        )
        return rotary_of(freqs)[0]

    def rope_encode(
        self,
        t: int,
        h: int,
        w: int,
        t_start: float = 0,
        steps_t: int | None = None,
        steps_h: int | None = None,
        steps_w: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        transformer_options: dict | None = None,
        **_: Any,
    ) -> Tensor:
        """The host's table [1, L, 1, D/2, 2, 2] of a latent size, under its rope_options; steps: cells of each axis."""
        options = (transformer_options or {}).get("rope_options") or {}
        axes = []
        for axis, size, patch, start, steps in zip(
            "tyx",
            (t, h, w),
            self.config.patch_size,
            (t_start, 0, 0),
            (steps_t, steps_h, steps_w),
            strict=True,
        ):
            cells = (size + patch // 2) // patch
            first = start + options.get(f"shift_{axis}", 0.0)
            last = first + (cells - 1) * options.get(f"scale_{axis}", 1.0)
            axes.append(torch.linspace(first, last, steps or cells, device=device, dtype=dtype))
        return self._embed(axes)

    def rotary_at(self, positions: Positions, device: torch.device) -> RotaryTable:
        if self._is_plain("rotary_at"):
            return super().rotary_at(positions, device)
        return rotary_of(self._embed([torch.tensor(axis, device=device).float() for axis in positions]))[0]

    def _embed(self, axes: list[Tensor]) -> Tensor:
        """The host's table of the grid of positions on each axis."""
        ids = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2).unsqueeze(0)
        return self.rope_embedder(ids).movedim(1, 2)

    def _is_plain(self, method: str) -> bool:
        """Whether positions are embedded as ever: no pack has replaced the embedder or that method."""
        return type(self.rope_embedder) is _PlainEmbedder and method not in vars(self)


def _unconditional(options: dict, batch: int) -> Tensor:
    """Which rows of a batch the host computes for the negative prompt, bool [B]; none where it does not say."""
    chunks = options.get("cond_or_uncond") or [0]
    return torch.tensor([which == 1 for which in chunks]).repeat_interleave(batch // len(chunks))


def _shown(options: dict, frames: int, total: int) -> tuple[int, ...] | None:
    """Which frames of the whole latents a call's `total` frames are, of which those after `frames` are none of them;
    None for all in order. The host's context windows take some out."""
    window = getattr(options.get("context_window"), "index_list", None)
    if window is None and frames == total:
        return None
    indices = range(frames) if window is None else window
    return (*indices, *(-1 for _ in range(total - frames)))


class HostDiT(Hosted):
    """`WanModel` for the host."""


class HostSpeechDiT(Hosted, WanSpeechModel):
    """`WanSpeechModel` for the host."""

    conditioning: ClassVar[dict[str, str]] = {
        "reference_latent": "reference",
        "reference_motion": "motion",
        "control_video": "pose",
        "audio_embed": "audio",
    }

    def _embedding(self, timestep: Tensor, frames: int, conditioning: dict) -> Tensor:
        # the host embeds a timestep for each latent frame, and 0 for the reference and the motion
        rows = timestep.view(-1, 1).expand(-1, frames)
        if conditioning.get("reference_latent") is not None:
            rows = F.pad(rows, (0, 1))
        if conditioning.get("reference_motion") is not None:
            rows = F.pad(rows.repeat_interleave(2, dim=1), (0, 3))
        return self.embed_time(rows)[0]


class HostAnimateDiT(Hosted, WanAnimateModel):
    """`WanAnimateModel` for the host."""

    conditioning: ClassVar[dict[str, str]] = {
        "pose_latents": "pose",
        "face_pixel_values": "faces",
        "face_strength": "face_strength",
    }


class HostAnimate2DiT(Hosted, WanAnimate2Model):
    """`WanAnimate2Model` for the host."""

    conditioning: ClassVar[dict[str, str]] = {
        "pose_latents": "driving",
        "context_pose": "driving_text",
        "clip_fea_pose": "driving_image",
        "pose_strength": "driving_strength",
        "reference_strength": "reference_strength",
        "driving_cache": "keep",
    }

    def _inputs(self, conditioning: dict, options: dict) -> Inputs:
        cache = options.get("animate2_cache")  # of the host's node WanAnimate2Cache
        if cache is not None and "driving_cache" not in conditioning:
            where = "ram" if getattr(cache, "store_device", torch.device("cpu")).type == "cpu" else "gpu"
            # its 4 bits are for inputs of blocks; keys and values are kept in no less than 8
            packed = " int8" if getattr(cache, "dtype", "default") in ("int8", "int4") else ""
            conditioning = {**conditioning, "driving_cache": where + packed}
        return super()._inputs(conditioning, options)

    def driving_runner(self, run_block: RunBlock) -> RunBlock:
        # patches are for the video that is made; Cancel is heard all the same
        run = block_runner({}, len(self.blocks), torch.empty(0), lambda: torch.empty(0))
        # so nobody asks for the number of a block, for each of which a compiler would make another graph
        return lambda index, block, x, **inputs: run(0, block, x, **inputs)
