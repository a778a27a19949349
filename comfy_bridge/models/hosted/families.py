"""The host's classes for each family of models: one line per family."""

from dataclasses import dataclass, field
from typing import Any

import comfy.supported_models

from ....wan_models.config import DiTConfig
from .models import WanAnimate2Base, WanAnimateBase, WanBase, WanSpeechBase, WanTI2VBase
from .networks import HostAnimate2DiT, HostAnimateDiT, HostDiT, Hosted, HostSpeechDiT


@dataclass(frozen=True)
class HostFamily:
    """network: class of our network. model: class of the host's model object around it, with its own `options`.
    config: the host's description of such models, a class of comfy.supported_models; model_type: what that calls them.
    with_image_context: both for models that see CLIP image features, where these differ."""

    network: type[Hosted]
    model: type
    config: str
    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    with_image_context: tuple[str, str] | None = None

    def described(self, config: DiTConfig) -> tuple[str, str]:
        """The host's class of description, and the model type, of a model with that config."""
        plain = (self.config, self.model_type)
        return self.with_image_context or plain if config.image_dim else plain


# older hosts have no class of its own for it
_ANIMATE_2 = (
    ("WAN_Animate2", "animate2") if hasattr(comfy.supported_models, "WAN_Animate2") else ("WAN21_I2V", "i2v")
)
FAMILIES: dict[str, HostFamily] = {
    "t2v": HostFamily(HostDiT, WanBase, "WAN21_T2V", "t2v", {"image_to_video": False}),
    "i2v": HostFamily(HostDiT, WanBase, "WAN21_T2V", "t2v", {"image_to_video": True}, ("WAN21_I2V", "i2v")),
    "ti2v": HostFamily(HostDiT, WanTI2VBase, "WAN22_T2V", "t2v", {"image_to_video": True}),
    "s2v": HostFamily(HostSpeechDiT, WanSpeechBase, "WAN22_S2V", "s2v"),
    "animate": HostFamily(HostAnimateDiT, WanAnimateBase, "WAN22_Animate", "animate"),
    "animate2": HostFamily(HostAnimate2DiT, WanAnimate2Base, *_ANIMATE_2, {"image_to_video": True}),
}
"""By `DiTConfig.family`."""
