"""Longer prompts by a language model: of models/LLM under the host's memory management, or behind an address."""

import os
from dataclasses import dataclass

import comfy.model_management
import torch
from torch import Tensor

from ..wan_models.images.pixels import rgb, to_pil
from ..wan_models.prompt import chat_endpoint
from ..wan_models.prompt import extension as prompt_extension
from ..wan_models.prompt.extension import Question, clean_answer
from ..wan_models.prompt.language_model import MAX_TOKENS, LanguageModel
from . import compat, folders
from .progress import progress

ENDPOINT = "OpenAI-compatible endpoint"
ADDRESS = chat_endpoint.DASHSCOPE
DEVICES = ["default", "cpu"]


def models() -> list[str]:
    """Names of what can extend a prompt: the folders of models/LLM, then an endpoint."""
    return [*folders.language_models(), ENDPOINT]


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """A short prompt, and the task and language of the longer one. image: IMAGE, of which the model sees the first."""

    prompt: str
    task: str
    language: str
    image: Tensor | None = None

    def question(self) -> Question:
        """The request as it is put to a language model."""
        shown = None if self.image is None else to_pil(rgb(self.image)[0])
        return prompt_extension.question(self.task, self.prompt, self.language, shown)


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Address of an OpenAI-compatible server, and its name for the model. An empty address: that of the environment."""

    base_url: str = ADDRESS
    endpoint_model: str = "qwen-plus"


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How the answer is generated. temperature 0: the likeliest tokens, whatever the seed. max_tokens, device: for
    local models only."""

    seed: int
    temperature: float = 0.7
    max_tokens: int = MAX_TOKENS
    device: str = DEVICES[0]


def extend(
    request: PromptRequest, model: str, server: EndpointSettings, generation: GenerationSettings
) -> str:
    """The longer prompt, by one of `models`.

    Raises ValueError, ConnectionError or TimeoutError with what is wrong and what to do."""
    question = request.question()
    if model != ENDPOINT:
        return clean_answer(_answer_locally(model, question, generation), ", or more max_tokens")
    try:
        endpoint = chat_endpoint.endpoint(server.base_url, server.endpoint_model, os.environ)
    except chat_endpoint.MissingKeyError as error:
        raise ValueError(f"{error} before ComfyUI starts. A key is never written into the workflow") from None
    answer = chat_endpoint.answer(endpoint, question, generation.seed, generation.temperature, progress())
    return clean_answer(answer)


def _answer_locally(name: str, question: Question, generation: GenerationSettings) -> str:
    """Answer of a model that is loaded for it alone: while a video is made nothing of it stays in memory."""
    folder = folders.language_models().get(name)
    if folder is None:
        raise ValueError(
            f"there is no language model {name!r} in models/{folders.LANGUAGE}. Put a folder of transformers there, "
            "such as Qwen/Qwen2.5-7B-Instruct or, to see images, Qwen/Qwen2.5-VL-7B-Instruct"
        )
    model = LanguageModel(folder)
    model.check(question)
    cpu = torch.device("cpu")
    # the host writes attributes on what it manages, which transformers' model does not let it
    patcher = compat.make_patcher(
        torch.nn.ModuleDict({"network": model.network}),
        cpu if generation.device == "cpu" else comfy.model_management.text_encoder_device(),
        comfy.model_management.text_encoder_offload_device(),
    )
    comfy.model_management.load_model_gpu(patcher)
    return model.answer(question, generation.seed, generation.temperature, generation.max_tokens, progress())
