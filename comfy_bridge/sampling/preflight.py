"""Checks before sampling starts: models, presets, LoRAs and conditioning that do not belong together."""

from collections.abc import Sequence

from ...wan_models.families import DISTILLED, FAMILIES, Release, find_family
from ..host_types import Conditioning, Model, Vae
from ..media.conditioning import check_vae
from ..models.hosted.models import SCHEDULE_KEY
from ..models.hosted.networks import Hosted
from ..models.lora import loras_of
from .experts import Experts

# of the host's other Wan models, which take their own conditions: Fun-Camera, Fun-Control, HuMo and SCAIL
_NO_FAMILY = ("control_adapter", "ref_conv", "audio_proj", "patch_embedding_pose",
              "patch_embedding_mask", "patch_embedding_global")  # fmt: skip


def channels(model: Model) -> tuple[int, int] | None:
    """Input channels of a MODEL's transformer, and channels of its latents; None where it is no Wan model."""
    layer = getattr(getattr(model.model, "diffusion_model", None), "patch_embedding", None)
    if layer is None:
        return None
    return layer.weight.shape[1], model.get_model_object("latent_format").latent_channels


def family(model: Model) -> str | None:
    """Family (a name of `FAMILIES`) of our models and the host's; None where they do not tell."""
    dims = channels(model)
    network = getattr(model.model, "diffusion_model", None)
    config = getattr(network, "config", None) if dims else None
    if config is not None:
        return config.family
    described = getattr(getattr(model.model, "model_config", None), "unet_config", None) or {}
    if dims and described.get("model_type") == "animate2":
        return "animate2"
    if any(getattr(network, part, None) is not None for part in _NO_FAMILY):
        return None
    entry = find_family(dims or (0, 0), lambda part: hasattr(network, part.rstrip(".")))
    return entry.name if entry else None


def check_prompts(experts: Experts, positive: Conditioning, positive_low: Conditioning | None = None) -> None:
    """Raises ValueError where a model does not go with what its positive prompt holds; positive_low: of the low-noise
    expert, where it has another one."""
    base = experts.base and experts.base.model
    for model, prompt in ((experts.high, positive), (base, positive), (experts.low, positive_low)):
        if model is not None and prompt is not None:
            check_image(model, prompt)
            check_vision(model, prompt)
    check_schedule([experts.high, experts.low, *([base] if base else [])], [*positive, *(positive_low or ())])


def check_schedule(models: Sequence[Model], positive: Conditioning) -> None:
    """Raises ValueError where a prompt has a schedule, and a model is of another loader, which would not look at it."""
    are_ours = all(isinstance(getattr(model.model, "diffusion_model", None), Hosted) for model in models)
    if not are_ours and any(SCHEDULE_KEY in options for _, options in positive):
        raise ValueError(
            "the prompt has a schedule (WanPromptSchedule), which only models of WanDiTLoader follow: load the file "
            "with it, or encode the prompt with WanT5Encode"
        )


def check_image(model: Model, positive: Conditioning) -> None:
    """Raises ValueError where an image-to-video model got no image, or a text-to-video model got one."""
    has_image = any("concat_latent_image" in options for _, options in positive)
    kind = family(model)
    if kind == "i2v" and not has_image:
        raise ValueError(
            "this is an image-to-video model, and its conditioning holds no image. Put WanI2VCondition between the "
            "text and the sampler, or load a text-to-video model"
        )
    if kind in ("t2v", "ti2v") and has_image:
        where = "WanTI2VLatent gives it its image" if kind == "ti2v" else "load an image-to-video model"
        raise ValueError(
            f"the conditioning holds an image, and this {FAMILIES[kind].description} model does not look at it there: "
            f"{where}"
        )


def check_vision(model: Model, positive: Conditioning) -> None:
    """Raises ValueError where a model was to look at the features of another CLIP model than its own."""
    image_dim = getattr(
        getattr(getattr(model.model, "diffusion_model", None), "config", None), "image_dim", 0
    )
    for _, options in positive:
        features = getattr(options.get("clip_vision_output"), "penultimate_hidden_states", None)
        if image_dim and features is not None and features.shape[-1] != image_dim:
            raise ValueError(
                f"the CLIP vision model gives features {features.shape[-1]} wide, and this model looks at {image_dim}: "
                "load CLIP ViT-H/14 (models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth, or clip_vision_h)"
            )


def check_vae_of(release: str, vae: Vae | None) -> None:
    """Raises ValueError where a VAE is not that of a 14B release."""
    check_vae(vae, 16, f"{release} works with the 2.1 VAE")


def check_family(model: Model, family_name: str) -> None:
    """Raises ValueError where a model is not of the family that a node is for."""
    kind = family(model)
    if kind != family_name:
        release = FAMILIES[family_name].release.name
        description = FAMILIES[kind].in_words() if kind else "none of those that this pack knows"
        hint = ""
        if (family_name, kind) == ("animate2", "i2v"):
            hint = ". If the file is Animate-2 and does not say so, choose kind animate2 in WanDiTLoader"
        raise ValueError(
            f"this is a node for {FAMILIES[family_name].description} and needs {release}; the connected model is "
            f"{description}: load wan/{release}{hint}"
        )


def warnings(experts: Experts, preset: Release | None = None) -> list[str]:
    """One sentence for each thing that looks wrong; nothing that stops a run."""
    high, low, _ = experts
    sentences = [_swapped(experts)]
    if preset is not None:
        kind = family(high)
        if kind is not None and kind != preset.family:
            sentences.append(
                f"The preset {preset.name} is for {FAMILIES[preset.family].description}, and this is "
                f"{FAMILIES[kind].in_words()}."
            )
        if preset.name in DISTILLED:
            both = {"": high} if low is high else {"high": high, "low": low}
            sentences += [_without_lora(name, model) for name, model in both.items()]
            sentences += [_other_lora(model, preset.family, name) for name, model in both.items()]
    return [sentence for sentence in sentences if sentence]


def _the_model(name: str) -> str:
    """A model by its expert's name, which is empty where it is the only one."""
    return f"the {name}-noise model" if name else "the model"


def _without_lora(name: str, model: Model) -> str | None:
    if model.patches:
        return None
    return (
        f"There is no LoRA on {_the_model(name)}: the 4-step preset needs the distilled LoRA (or a model it was "
        "merged into), else the video stays blurred."
    )


def _other_lora(model: Model, kind: str, name: str) -> str | None:
    """A LoRA whose file name speaks of another family or of the other expert."""
    other_kind = {"t2v": "i2v", "i2v": "t2v"}[kind]
    pairs = [(other_kind, kind)]
    if name:
        pairs.append((f"{'low' if name == 'high' else 'high'}_noise", f"{name}_noise"))
    for file in loras_of(model):
        lower = file.lower()
        for wrong, right in pairs:
            if wrong in lower and right not in lower:
                return f"{file} on {_the_model(name)} looks made for {wrong.replace('_', ' ')}."
    return None


def _swapped(experts: Experts) -> str | None:
    """A warning where the names of the two files say that they are connected the wrong way round."""
    names = [str(getattr(m.model, "source", "")).lower() for m in (experts.high, experts.low)]
    names = [name.replace("\\", "/").split("/models/")[-1] for name in names]
    if "low" in names[0] and "high" not in names[0] and "high" in names[1] and "low" not in names[1]:
        return (
            f"The experts look swapped: {names[0]} is connected as the high-noise model and {names[1]} as the "
            "low-noise model."
        )
    return None
