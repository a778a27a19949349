"""The graph nodes: each a schema and a few lines that call comfy_bridge."""

from comfy_api.latest import ComfyExtension, io

from ..comfy_bridge import folders, routes
from .animate import WanAnimateCondition, WanPoseAnimate
from .animate2 import WanAnimate2, WanAnimate2Condition
from .audio import WanAudioEncode, WanAudioEncoderLoader, WanTextToSpeech
from .conditioning import WanI2VCondition, WanTI2VLatent
from .latents import WanEmptyLatent, WanVAEDecode, WanVAEEncode
from .loaders import WanCLIPVisionLoader, WanDiTLoader, WanModelInfo, WanT5Loader, WanVAELoader
from .long_video import WanLongVideo
from .lora import WanLoRA
from .multi_gpu import WanMultiGPU, WanMultiGPUSampler
from .nag import WanNAG
from .pose import WanBackground, WanDrawPose, WanFaceCrop, WanPoseDetect, WanPoseRetarget, WanSubjectMask
from .prompt import WanPromptExtend
from .prompt_schedule import WanPromptSchedule
from .sampling import WanMoEGuider, WanMoESampler, WanSigmas, WanSolver
from .speech import WanS2VCondition, WanSpeechToVideo
from .text import WanPrompts, WanT5Encode
from .video import WanLoadVideo


class WanExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        folders.register()  # not in on_load: older hosts never call it
        routes.register()
        return [
            WanDiTLoader,
            WanT5Loader,
            WanVAELoader,
            WanCLIPVisionLoader,
            WanModelInfo,
            WanLoRA,
            WanAudioEncoderLoader,
            WanAudioEncode,
            WanTextToSpeech,
            WanS2VCondition,
            WanSpeechToVideo,
            WanAnimateCondition,
            WanPoseAnimate,
            WanAnimate2Condition,
            WanAnimate2,
            WanLoadVideo,
            WanPoseDetect,
            WanPoseRetarget,
            WanDrawPose,
            WanFaceCrop,
            WanSubjectMask,
            WanBackground,
            WanPromptExtend,
            WanT5Encode,
            WanPrompts,
            WanPromptSchedule,
            WanI2VCondition,
            WanTI2VLatent,
            WanEmptyLatent,
            WanVAEEncode,
            WanVAEDecode,
            WanSigmas,
            WanSolver,
            WanNAG,
            WanMoEGuider,
            WanMoESampler,
            WanLongVideo,
            WanMultiGPU,
            WanMultiGPUSampler,
        ]
