"""Longer prompts by a language model: of models/LLM under the host's memory management, or behind an address."""

import os

import comfy.model_management
import torch
from torch import Tensor

from ..wan_models.images.pixels import rgb, to_pil
from ..wan_models.prompt import chat_endpoint
from ..wan_models.prompt import extension as prompt_extension
from ..wan_models.prompt.extension import LANGUAGES, TASKS, Question, clean_answer
from ..wan_models.prompt.language_model import MAX_TOKENS, LanguageModel
from . import compat, folders
from .progress import progress

__all__ = ["ADDRESS", "DEVICES", "ENDPOINT", "LANGUAGES", "MAX_TOKENS", "TASKS", "extend", "models"]

ENDPOINT = "OpenAI-compatible endpoint"
ADDRESS = chat_endpoint.DASHSCOPE
DEVICES = ["default", "cpu"]


def models() -> list[str]:
    """What a prompt can be extended by: the folders of models/LLM, then an endpoint."""
    return [*folders.language_models(), ENDPOINT]


def extend(
    prompt: str,
    task: str,
    language: str,
    model: str,
    seed: int,
    temperature: float,
    image: Tensor | None,
    base_url: str,
    endpoint_model: str,
    max_tokens: int,
    device: str,
) -> str:
    """The longer prompt. image: IMAGE, of which the first is shown to the model.

    Raises ValueError, ConnectionError, TimeoutError or ImportError with what is wrong and what to do."""
    shown = None if image is None else to_pil(rgb(image)[0])
    asked = prompt_extension.question(task, prompt, language, shown)
    if model == ENDPOINT:
        where = chat_endpoint.endpoint(base_url, endpoint_model, os.environ)
        return clean_answer(chat_endpoint.answer(where, asked, seed, temperature, progress()))
    return clean_answer(_answer_locally(model, asked, seed, temperature, max_tokens, device))


def _answer_locally(
    name: str, asked: Question, seed: int, temperature: float, max_tokens: int, device: str
) -> str:
    """Loads, asks, and lets go: while a video is made nothing of the language model stays in memory."""
    folder = folders.language_models().get(name)
    if folder is None:
        raise ValueError(
            f"there is no language model {name!r} in models/{folders.LANGUAGE}. Put a folder of transformers there, "
            "such as Qwen/Qwen2.5-7B-Instruct or, to see images, Qwen/Qwen2.5-VL-7B-Instruct"
        )
    model = LanguageModel(folder)
    model.check(asked)
    cpu = torch.device("cpu")
    # the host writes attributes on what it manages, which transformers' model does not let it
    patcher = compat.make_patcher(
        torch.nn.ModuleDict({"network": model.network}),
        cpu if device == "cpu" else comfy.model_management.text_encoder_device(),
        comfy.model_management.text_encoder_offload_device(),
    )
    comfy.model_management.load_model_gpu(patcher)
    return model.answer(asked, seed, temperature, max_tokens, progress())
