"""The Wan2.2 models in plain PyTorch: loaders of models, and a pipeline for each task.

    from wan_models import TextToVideo
    frames = TextToVideo.from_folder("Wan2.2-T2V-A14B", device="cuda")("two cats surf in the evening sun")

What is named here is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import (
        load_audio_encoder,
        load_dit,
        load_image_encoder,
        load_text_encoder,
        load_vae,
        read_info,
    )
    from .pipelines.animate import Animate
    from .pipelines.animate2 import Animate2
    from .pipelines.driving import DrivingVideos
    from .pipelines.image_to_video import ImageToVideo
    from .pipelines.speech_to_video import SpeechToVideo
    from .pipelines.text_image_to_video import TextImageToVideo
    from .pipelines.text_to_video import TextToVideo

_MODULES = {
    "load_audio_encoder": "models",
    "load_dit": "models",
    "load_image_encoder": "models",
    "load_text_encoder": "models",
    "load_vae": "models",
    "read_info": "models",
    "Animate": "pipelines.animate",
    "Animate2": "pipelines.animate2",
    "DrivingVideos": "pipelines.driving",
    "ImageToVideo": "pipelines.image_to_video",
    "SpeechToVideo": "pipelines.speech_to_video",
    "TextImageToVideo": "pipelines.text_image_to_video",
    "TextToVideo": "pipelines.text_to_video",
}
__all__ = [
    "Animate",
    "Animate2",
    "DrivingVideos",
    "ImageToVideo",
    "SpeechToVideo",
    "TextImageToVideo",
    "TextToVideo",
    "load_audio_encoder",
    "load_dit",
    "load_image_encoder",
    "load_text_encoder",
    "load_vae",
    "read_info",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
