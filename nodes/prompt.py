"""A longer prompt by a language model."""

from typing import Any

from comfy_api.latest import io, ui

from ..comfy_bridge import prompt as extension
from ..wan_models.prompt.extension import LANGUAGES, TASKS
from .schema import FileInput, WanNode, schema, take


class WanPromptExtend(WanNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        local, endpoint = " Used with a local model.", " Used with the endpoint."
        return schema(
            "WanPromptExtend",
            "Wan Prompt Extend",
            ["prompt enhance", "llm", "qwen", "rewrite", "dashscope", "openai"],
            folder="conditioning",
            description="Rewrites a short prompt into the long one that the models follow best, by a language model of "
            "yours. The same inputs are not asked again.",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the video shows, in a few words. May be empty where an image is shown.",
                ),
                io.Combo.Input(
                    "task",
                    options=list(TASKS),
                    tooltip="T2V: describes everything. I2V: what changes from the start image on. TI2V: for the 5B "
                    "model, with or without an image.",
                ),
                io.Combo.Input(
                    "language",
                    options=list(LANGUAGES),
                    default="auto",
                    tooltip="Of the result: auto takes the prompt's. The models know Chinese and English.",
                ),
                FileInput(
                    "model",
                    options=extension.models(),
                    tooltip="A folder in models/LLM, as transformers has them (Qwen2.5 and Qwen3; Qwen2.5-VL sees the "
                    "image), or a server. Nothing is downloaded.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63,
                    control_after_generate=False,
                    tooltip="The same seed gives the same text; servers promise it only roughly. Another one: another "
                    "text.",
                ),
                io.Float.Input(
                    "temperature",
                    default=extension.GenerationSettings.temperature,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    tooltip="How freely words are chosen. 0: always the likeliest, whatever the seed.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The start image, for I2V and TI2V, shown to a model that can see. Of a batch, the first.",
                ),
                io.String.Input(
                    "base_url",
                    default=extension.EndpointSettings.base_url,
                    optional=True,
                    tooltip="The server's address, as OpenAI's client takes it. Keys are read from ComfyUI's "
                    "environment: DASHSCOPE_API_KEY, OPENAI_API_KEY, or WAN_PROMPT_API_KEY for the address in "
                    "WAN_PROMPT_BASE_URL, which an empty base_url means." + endpoint,
                ),
                io.String.Input(
                    "endpoint_model",
                    default=extension.EndpointSettings.endpoint_model,
                    optional=True,
                    tooltip="The server's name of the model: qwen-plus, or qwen-vl-max to see the image."
                    + endpoint,
                ),
                io.Int.Input(
                    "max_tokens",
                    default=extension.GenerationSettings.max_tokens,
                    min=16,
                    max=8192,
                    optional=True,
                    tooltip="Length of the answer at most; more for models that always think first." + local,
                ),
                io.Combo.Input(
                    "device",
                    options=extension.DEVICES,
                    default=extension.GenerationSettings.device,
                    optional=True,
                    tooltip="cpu: for models that do not fit into GPU memory; takes minutes." + local,
                ),
            ],
            outputs=[io.String.Output(display_name="prompt")],
        )

    @classmethod
    def execute(cls, model: str, **inputs: Any) -> io.NodeOutput:
        request, inputs = take(extension.PromptRequest, inputs)
        server, inputs = take(extension.EndpointSettings, inputs)
        text = extension.extend(request, model, server, extension.GenerationSettings(**inputs))
        return io.NodeOutput(text, ui=ui.PreviewText(text))
