"""A negative prompt without a second call of the model."""

from comfy_api.latest import io

from ..comfy_bridge.models.nag import nag_of, with_nag
from ..wan_models.dit.text_guidance import NAG
from .schema import WanNode, advanced, schema


def _part(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, optional=True, tooltip=tooltip)


class WanNAG(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanNAG",
            "Wan NAG",
            ["normalized attention guidance", "negative prompt", "cfg 1"],
            folder="sampling",
            description="A negative prompt that works at CFG 1, with 4-step LoRAs too: normalized attention guidance.",
            inputs=[
                io.Model.Input("model_high", tooltip="The high-noise expert, or the only model."),
                io.Model.Input("model_low", optional=True, tooltip="The low-noise expert."),
                io.Conditioning.Input("negative", tooltip="What to keep out: negative of WanT5Encode."),
                io.Float.Input(
                    "scale",
                    default=NAG.scale,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly the video is kept away from the negative prompt; 1: not at all.",
                ),
                io.Float.Input(
                    "tau",
                    default=NAG.tau,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    optional=True,
                    tooltip="Largest size of what is seen, as a multiple of what the prompt alone gives.",
                ),
                _part("alpha", NAG.alpha, "Share of the guided part; 0: none."),
                *advanced(
                    _part("start_percent", 0.0, "Where in the schedule it begins, as in the host's nodes."),
                    _part(
                        "end_percent",
                        1.0,
                        "Where in the schedule it ends; 0.5 saves time in the second half.",
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model_high"),
                io.Model.Output(display_name="model_low"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        negative: io.Conditioning.Type,
        model_low: io.Model.Type | None = None,
        scale: float = NAG.scale,
        tau: float = NAG.tau,
        alpha: float = NAG.alpha,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ) -> io.NodeOutput:
        nag = nag_of(negative, scale, tau, alpha)
        models = (model_high, model_low)
        return io.NodeOutput(*(m and with_nag(m, nag, start_percent, end_percent) for m in models))
