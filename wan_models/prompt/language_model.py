"""A language model in a local folder of transformers (Qwen2.5, Qwen3 ..., and Qwen2.5-VL ..., which see an image),
asked one question. Nothing is downloaded, and no code of a model's folder runs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..progress import OnProgress
from .extension import Question

MAX_TOKENS = 512


def is_language_model(folder: Path) -> bool:
    """Whether a folder looks like a model for `LanguageModel`, from its config.json alone."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = config["architectures"]
        return any(str(name).endswith(("ForCausalLM", "ForConditionalGeneration")) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False


class LanguageModel:
    """A model and its tokenizer, on the CPU in the file's precision. `network` may be moved by whoever manages memory.

    Raises ValueError where the folder holds something else, a quantized model, or one that was not made to answer."""

    def __init__(self, folder: str | Path) -> None:
        import transformers as t

        self.name = Path(folder).name
        own = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = t.AutoConfig.from_pretrained(str(folder), **own)
            self.sees = type(config) in t.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            if getattr(config, "quantization_config", None) is not None:
                raise ValueError("its weights are quantized: take the folder of the plain model")
            kind = t.AutoModelForImageTextToText if self.sees else t.AutoModelForCausalLM
            precision = {
                "dtype" if hasattr(config, "dtype") else "torch_dtype": "auto"
            }  # renamed in version 4.56
            self.network: Any = kind.from_pretrained(str(folder), use_safetensors=True, **precision, **own)
            self.reader: Any = (t.AutoProcessor if self.sees else t.AutoTokenizer).from_pretrained(
                str(folder), **own
            )
        except Exception as error:  # the library raises many kinds for missing and foreign files
            raise ValueError(
                f"{folder} holds no language model that transformers can use ({error}). Put a whole folder there, such "
                "as Qwen/Qwen2.5-7B-Instruct or, to see images, Qwen/Qwen2.5-VL-7B-Instruct"
            ) from error
        self.tokenizer: Any = getattr(self.reader, "tokenizer", self.reader)
        self.template = getattr(self.reader, "chat_template", None) or self.tokenizer.chat_template
        if not self.template:
            raise ValueError(
                f"{self.name} has no chat template: take one that answers, such as Qwen2.5-7B-Instruct"
            )
        self.network.eval().requires_grad_(False)

    def check(self, asked: Question) -> None:
        """Raises ValueError where the question has an image and the model sees none."""
        if asked.image is not None and not self.sees:
            raise ValueError(
                f"{self.name} cannot see the image: choose a model that can, such as Qwen2.5-VL, or leave it out"
            )

    @torch.no_grad()
    def answer(
        self,
        asked: Question,
        seed: int,
        temperature: float = 0.7,
        max_tokens: int = MAX_TOKENS,
        on_progress: OnProgress = lambda done, total: None,
    ) -> str:
        """The model's whole answer, thoughts included. The same seed gives the same text on the same device.

        temperature: 0 takes the likeliest token each time, whatever the seed. on_progress(done, total) is called
        before every layer and token, and may raise to end the work."""
        self.check(asked)
        inputs = self._read(asked)
        prompt_length = inputs["input_ids"].shape[1]
        options: dict[str, Any] = {"do_sample": True, "temperature": temperature}
        if temperature <= 0:
            options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.network.generation_config.pad_token_id is None:
            ends = self.network.generation_config.eos_token_id
            options["pad_token_id"] = ends[0] if isinstance(ends, list) else ends
        cuda = list(range(torch.cuda.device_count()))  # a seed is set on all of them
        with torch.random.fork_rng(cuda), _progress_hooks(self.network, max_tokens, on_progress):
            torch.manual_seed(seed)
            out = self.network.generate(**inputs, max_new_tokens=max_tokens, **options)
        return self.tokenizer.decode(out[0, prompt_length:], skip_special_tokens=True)

    def _read(self, asked: Question) -> dict[str, torch.Tensor]:
        """The question in the model's own chat format, as tensors where and as the model computes."""
        words: Any = asked.text
        if self.sees:
            words = [{"type": "image"}] if asked.image is not None else []
            words.append({"type": "text", "text": asked.text})
        instructions: Any = (
            [{"type": "text", "text": asked.instructions}] if self.sees else asked.instructions
        )
        chat = [{"role": "system", "content": instructions}, {"role": "user", "content": words}]
        # thinking is for harder questions; templates without the switch ignore it
        text = self.tokenizer.apply_chat_template(
            chat,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        images = {} if asked.image is None else {"images": [asked.image]}
        # what begins and ends a text stands in the template
        inputs = self.reader(text=[text], return_tensors="pt", add_special_tokens=False, **images)
        device, dtype = self.network.device, self.network.dtype
        return {k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}


@contextmanager
def _progress_hooks(network: nn.Module, total: int, on_progress: OnProgress) -> Iterator[None]:
    """Calls of `on_progress` before each of `total` tokens, and before every layer."""
    done = -1

    def next_token(_module: nn.Module, _args: tuple) -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    def next_layer(_module: nn.Module, _args: tuple) -> None:
        on_progress(done, total)

    layers = [layer for part in network.modules() if isinstance(part, nn.ModuleList) for layer in part]
    hooks = [network.register_forward_pre_hook(next_token)]
    hooks += [layer.register_forward_pre_hook(next_layer) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
