"""LoRAs on both experts."""

from comfy_api.latest import io, ui

from ..comfy_bridge import folders
from ..comfy_bridge.models import loaded_files, lora
from .schema import FileInput, WanNode, schema


def _strength(which: str) -> io.Float.Input:
    return io.Float.Input(
        f"strength_{which}",
        default=1.0,
        min=-20.0,
        max=20.0,
        step=0.05,
        optional=True,
        tooltip=f"On the {which}-noise model; 0 leaves it as it is.",
    )


class WanLoRA(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "WanLoRA",
            "Wan LoRA",
            ["lora loader", "lightx2v", "lightning"],
            folder="loaders",
            reports=True,
            description="One LoRA file on both experts, each at its own strength. Chain nodes for several files.",
            inputs=[
                io.Model.Input("model_high", tooltip="The high-noise expert, or the only model."),
                io.Model.Input("model_low", optional=True, tooltip="The low-noise expert."),
                FileInput(
                    "lora_name",
                    options=folders.options("loras", named="lora"),
                    tooltip="A file in models/loras, or of a release in models/wan (relighting_lora.ckpt). "
                    "Of a pair, give each to its expert: the other strength is 0.",
                ),
                _strength("high"),
                _strength("low"),
            ],
            outputs=[
                io.Model.Output(display_name="model_high"),
                io.Model.Output(display_name="model_low"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **_: object) -> str:
        return loaded_files.fingerprint(lora_name, "loras")

    @classmethod
    def execute(
        cls,
        model_high: io.Model.Type,
        lora_name: str,
        model_low: io.Model.Type | None = None,
        strength_high: float = 1.0,
        strength_low: float = 1.0,
    ) -> io.NodeOutput:
        models = {"high-noise": (model_high, strength_high), "low-noise": (model_low, strength_low)}
        path = folders.resolve(lora_name, "loras")
        patched, report = lora.apply_lora(models, path)
        return io.NodeOutput(*patched, report, ui=ui.PreviewText(report))
