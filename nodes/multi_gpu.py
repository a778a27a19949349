"""Several GPUs: a MODEL that they run together, and the sampler with it in one node."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge.media.conditioning import Prompts
from ..comfy_bridge.multi_gpu.model import share
from ..comfy_bridge.multi_gpu.workers import ATTENTION, FSDP, MODES, Settings
from ..comfy_bridge.sampling.experts import Experts
from .sampling import phase_inputs, sample, sampler_inputs
from .schema import WanNode, advanced, schema, split, take
from .settings import BASE, base_of

_DEFAULT = Settings()


def _group_inputs() -> list:
    """Settings of the group of GPUs, by the names of `Settings`."""
    explicit = " Used when mode is explicit."
    return [
        io.Int.Input(
            "gpus",
            default=_DEFAULT.gpus,
            min=0,
            max=256,
            optional=True,
            tooltip="GPUs to use; 0 for all. Without GPUs: processes, 0 for two.",
        ),
        io.Combo.Input(
            "mode",
            options=MODES,
            default=_DEFAULT.mode,
            optional=True,
            tooltip="auto: measures the GPUs and takes the way that is predicted to be fastest, and says why. "
            "explicit: cfg_parallel x ulysses as below.",
        ),
        io.Int.Input(
            "cfg_parallel",
            default=_DEFAULT.cfg_parallel,
            min=1,
            max=2,
            optional=True,
            tooltip="2: with and without the prompt are computed side by side. Needs CFG above 1." + explicit,
        ),
        io.Int.Input(
            "ulysses",
            default=_DEFAULT.ulysses,
            min=1,
            max=64,
            optional=True,
            tooltip="GPUs that share one video's tokens; must divide the attention heads (40, TI2V-5B 24)."
            + explicit,
        ),
        io.Combo.Input(
            "fsdp",
            options=FSDP,
            default=_DEFAULT.fsdp,
            optional=True,
            tooltip="Each GPU keeps a part of the weights and gathers a block when it runs: for models that do not fit "
            "whole. auto: where it is needed.",
        ),
        io.Boolean.Input(
            "offload",
            default=_DEFAULT.offload,
            optional=True,
            tooltip="With fsdp on or auto: the parts stay in the computer's memory between uses. Slow, and takes the "
            "least GPU memory." + explicit,
        ),
        io.Combo.Input(
            "attention",
            options=ATTENTION,
            default=_DEFAULT.attention,
            optional=True,
            tooltip="Attention kernel of the workers. auto: the fastest exact one that is installed.",
        ),
        *advanced(
            io.String.Input(
                "ray_address",
                default=_DEFAULT.ray_address,
                optional=True,
                tooltip="Of an existing Ray cluster (auto, or host:6379). Empty: the GPUs of this computer.",
            ),
            io.Int.Input(
                "timeout",
                default=int(_DEFAULT.timeout),
                min=5,
                max=86400,
                optional=True,
                tooltip="Seconds without progress after which a worker counts as stalled and the run ends with an "
                "error.",
            ),
        ),
    ]


class WanMultiGPU(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanMultiGPU",
            "Wan Multi GPU",
            ["parallel", "ulysses", "fsdp", "distributed", "ray"],
            folder="multi gpu",
            reports=True,
            description="Lets several GPUs run a model together. Samplers, LoRA loaders, previews and Cancel work as "
            "with any MODEL.",
            inputs=[
                io.Model.Input("model", tooltip="From WanDiTLoader, with LoRAs or without."),
                *_group_inputs(),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, **group: Any) -> io.NodeOutput:
        shared, report = share(model, Settings(**group))
        return io.NodeOutput(shared, ui=ui.PreviewText(report))


class WanMultiGPUSampler(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanMultiGPUSampler",
            "Wan Multi GPU Sampler",
            ["parallel", "ulysses", "fsdp", "experts", "sample"],
            folder="multi gpu",
            reports=True,
            description="WanMoESampler on several GPUs.",
            inputs=[*sampler_inputs(), *_group_inputs(), *phase_inputs()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        model_low: io.Model.Type | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        group, inputs = take(Settings, inputs)
        high, report = share(model_high, group)
        low = None if model_low is None else share(model_low, group)[0]
        base, inputs = split(inputs, BASE)
        if base.get("model_base") is not None:
            base["model_base"] = share(base["model_base"], group)[0]
        experts = Experts.of(high, low, base_of(**base))
        latent, text = sample(experts, Prompts(positive, negative), **inputs)
        return io.NodeOutput(latent, ui=ui.PreviewText(f"{report}\n{text}"))
