"""Two experts as one GUIDER: the noise level of each model call says which of them answers; and before them, if wanted,
a base model for the first steps.

The sampler's loop and its solver state run through the switches. Each expert is a guider of the host's own class,
with its own options, wrappers (EasyCache ...), LoRAs and CFG scale; weights are loaded by the host's model
management when an expert is first asked, which makes room by unloading the others where it must.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...wan_models.sampling.guidance import check_boundary
from ..host_types import Conditioning, Model
from ..media.conditioning import negative_beside
from .phases import BASE, HIGH, LOW, Phases


class BaseExpert(NamedTuple):
    """A model that takes the first `steps` of a run in the place of the high-noise expert: that expert without its
    distilled LoRA, with a CFG scale of its own."""

    model: Model
    steps: int
    cfg: float

    @classmethod
    def of(cls, model_base: Model | None, base_steps: int, base_cfg: float) -> "BaseExpert | None":
        """The base of the nodes' inputs; None for 0 steps. ValueError where there are steps and no model for them."""
        if not base_steps:
            return None
        if model_base is None:
            raise ValueError(
                f"base_steps is {base_steps}, and no model_base is connected: connect the high-noise expert without "
                "its distilled LoRA, or set base_steps to 0"
            )
        if not math.isfinite(base_cfg):
            raise ValueError(f"base_cfg must be a finite number, not {base_cfg}")
        return cls(model_base, base_steps, base_cfg)


class Experts(NamedTuple):
    """The MODELs of a run: that of high and that of low noise levels, or one model twice; and a base for the first
    steps if there is one."""

    high: Model
    low: Model
    base: BaseExpert | None = None

    @classmethod
    def of(cls, high: Model, low: Model | None = None, base: BaseExpert | None = None) -> "Experts":
        """All of them, where `low` None stands for a release with one model."""
        return cls(high, high if low is None else low, base)


@dataclass(frozen=True)
class GuiderInputs:
    """Arguments of the host's `CFGGuider.outer_sample` that set-up of an expert needs."""

    noise: Tensor
    latent_image: Tensor
    sigmas: Tensor
    denoise_mask: Tensor | None
    seed: int | None
    latent_shapes: list


@dataclass(frozen=True)
class ExpertRun:
    """A run of several experts, fixed from its start to its end. others: all but the one that it starts with."""

    phases: Phases
    others: dict[str, "OtherExpert"]


class _Capture(comfy.samplers.Sampler):
    """Stands in for a sampler so that the host prepares conditioning and options, and keeps what it would pass."""

    def __init__(self) -> None:
        self.extra_args: dict[str, Any] = {}

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        self.extra_args = extra_args
        return noise


class OtherExpert(comfy.samplers.CFGGuider):
    """An expert that does not start the run. `sample` enters the host's set-up for it, and in there calls `inside`,
    which runs the sampler; the weights are loaded when a noise level is this expert's.

    All that changes while experts take turns is here: whether this one answers now, and what was loaded for it, which
    stays when others answer."""

    conds: dict[str, Any]
    inner_model: Any

    def __init__(self, model: Model, conds: dict[str, Any], cfg: float, inside: Callable[[], Tensor]) -> None:
        super().__init__(model)
        self.original_conds = conds
        self.set_cfg(cfg)
        self._inside = inside
        self.is_active = False
        self.inputs: GuiderInputs | None = None
        self._loaded: list | None = None
        self._options: dict[str, Any] | None = None

    def outer_sample(self, *args: Any, **kwargs: Any) -> Tensor:
        # called by the host where it would load the model and sample
        bound = inspect.signature(super().outer_sample).bind(*args, **kwargs)
        bound.apply_defaults()
        self.inputs = GuiderInputs(
            **{field.name: bound.arguments[field.name] for field in fields(GuiderInputs)}
        )
        try:
            return self._inside()
        finally:
            if self._loaded is not None:
                self.model_patcher.cleanup()
                comfy.sampler_helpers.cleanup_models(self.conds, self._loaded)
                del self.inner_model

    def activate(self) -> None:
        """Loads the weights (or brings them back), and prepares conditioning and options the first time."""
        inputs = self.inputs
        assert inputs is not None
        self.is_active = True
        self.inner_model, self.conds, self._loaded = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, inputs.noise.shape, self.conds, self.model_options
        )
        self.model_patcher.pre_run()
        if self._options is not None:
            return
        device = self.model_patcher.load_device
        comfy.samplers.cast_to_load_options(
            self.model_options, device=device, dtype=self.model_patcher.model_dtype()
        )
        mask = inputs.denoise_mask
        if mask is not None:
            mask = comfy.sampler_helpers.prepare_mask(mask, inputs.noise.shape, device)
        capture = _Capture()
        self.inner_sample(
            inputs.noise.to(device, torch.float32),
            inputs.latent_image.to(device, torch.float32),
            device,
            capture,
            inputs.sigmas.to(device),
            mask,
            None,
            True,
            inputs.seed,
            latent_shapes=inputs.latent_shapes,
        )
        self._options = capture.extra_args["model_options"]

    def rest(self) -> None:
        """Lets another expert answer; what was loaded stays."""
        self.is_active = False

    def options_like(self, sampler_options: dict, base: dict) -> dict:
        """This expert's options, with what the sampler itself has added to the `base` expert's (CFG++ samplers)."""
        options = comfy.model_patcher.create_model_options_clone(self._options)
        hook = "sampler_post_cfg_function"
        added = [f for f in sampler_options.get(hook, []) if f not in base.get(hook, [])]
        if added:
            options[hook] = [*options.get(hook, []), *added]
        if sampler_options.get("disable_cfg1_optimization"):
            options["disable_cfg1_optimization"] = True
        return options


class ExpertsGuider(comfy.samplers.CFGGuider):
    """GUIDER over a high-noise and a low-noise MODEL, and a base for the first steps if there is one.

    boundary: noise level in 0..1 from which the high-noise expert answers; the official rule on whole timesteps.
    scales: CFG scale of the high- and of the low-noise expert; 1 runs without the negative prompt.
    Raises ValueError on a boundary outside 0..1, on models that do not belong together, and, where it samples, on steps
    of the base that go past the boundary."""

    conds: dict[str, Any]
    original_conds: dict[str, Any]
    model_patcher: Any

    def __init__(self, experts: Experts, boundary: float, scales: tuple[float, float] = (1.0, 1.0)) -> None:
        check_boundary(boundary)
        check_pair(experts)
        super().__init__(experts.high)
        self._experts = {HIGH: (experts.high, scales[0]), LOW: (experts.low, scales[1])}
        self._base_steps = 0
        if experts.base is not None:
            self._experts[BASE] = (experts.base.model, experts.base.cfg)
            self._base_steps = experts.base.steps
        self._boundary = boundary
        self._low_conds: dict[str, Any] = {}
        self._run: ExpertRun | None = None

    def set_conds(
        self, positive: Conditioning, negative: Conditioning, positive_low: Conditioning | None = None
    ) -> None:
        """Sets the prompts; positive_low: of the low-noise expert, where it has another positive one."""
        super().set_conds(positive, negative_beside(positive, negative))
        if positive_low is not None:
            prompts = {"positive": positive_low, "negative": negative_beside(positive_low, negative)}
            self._low_conds = {
                name: comfy.sampler_helpers.convert_cond(cond) for name, cond in prompts.items()
            }

    def sample(
        self, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if sigmas.shape[-1] == 0:
            return latent_image
        phases = Phases.of(sigmas, self._boundary, self._base_steps)
        starts, *later = phases.in_turn()
        # the run is this guider's own, as the expert that it starts with
        self.model_patcher, self.cfg = self._experts[starts]
        self.model_options = self.model_patcher.model_options
        conds = self.original_conds
        others: dict[str, OtherExpert] = {}

        def conds_of(name: str) -> dict[str, Any]:
            return conds | self._low_conds if name == LOW else conds

        def own() -> Tensor:
            self.original_conds = conds_of(starts)
            if others:  # else all noise levels belong to one expert
                self._run = ExpertRun(phases, others)
            try:
                return super(ExpertsGuider, self).sample(
                    noise, latent_image, sampler, sigmas, *args, **kwargs
                )
            finally:
                self._run = None
                self.original_conds = conds

        def enter(name: str, inside: Callable[[], Tensor]) -> Tensor:
            """The run inside of the set-up of an expert."""
            model, cfg = self._experts[name]
            others[name] = OtherExpert(model, conds_of(name), cfg, inside)
            return others[name].sample(noise, latent_image, sampler, sigmas, *args, **kwargs)

        run: Callable[[], Tensor] = own
        for name in later:
            run = partial(enter, name, run)
        try:
            return run()
        finally:
            others.clear()  # they know of it: what they hold would stay until garbage is looked for

    def outer_predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: Any = None
    ) -> Tensor:
        model_options = model_options or {}
        run = self._run
        if run is None:
            return super().outer_predict_noise(x, timestep, model_options, seed)
        other = run.others.get(run.phases.at(timestep))
        active = next((expert for expert in run.others.values() if expert.is_active), None)
        if other is not active:
            self._switch(active, other)
        if other is None:
            return super().outer_predict_noise(x, timestep, model_options, seed)
        return other.outer_predict_noise(
            x, timestep, other.options_like(model_options, self.model_options), seed
        )

    def _switch(self, active: OtherExpert | None, other: OtherExpert | None) -> None:
        """Lets another expert answer than the one that did; None stands for this guider's own."""
        if active is not None:
            active.rest()
        if other is not None:
            other.activate()
            return
        assert active is not None
        assert active.inputs is not None
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, active.inputs.noise.shape, self.conds, self.model_options
        )
        self.model_patcher.pre_run()


def _shape(model: Model) -> tuple[int, ...] | None:
    weight = getattr(getattr(model.model, "diffusion_model", None), "patch_embedding", None)
    return None if weight is None else tuple(weight.weight.shape)


def check_pair(experts: Experts) -> None:
    """Raises ValueError where the models cannot take turns on the same latents."""
    one = _shape(experts.high)
    others = [("low-noise one", experts.low)]
    if experts.base is not None:
        others.append(("base", experts.base.model))
    for name, model in others:
        two = _shape(model)
        if one is not None and two is not None and one != two:
            raise ValueError(
                f"the two models do not belong together: the high-noise one takes {one[1]} channels and is {one[0]} "
                f"wide, the {name} takes {two[1]} and is {two[0]} wide. Connect experts of the same release"
            )
