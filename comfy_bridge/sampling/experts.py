"""Two experts as one GUIDER: the noise level of each model call says which of them answers.

The sampler's loop and its solver state run through the switch. Each expert is a guider of the host's own class,
with its own options, wrappers (EasyCache ...), LoRAs and CFG scale; weights are loaded by the host's model
management when an expert is first asked, which makes room by unloading the other where it must.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...wan_models.sampling.guidance import check_boundary, is_high_noise
from ...wan_models.sampling.schedule import timestep_of
from ..host_types import Conditioning, Model
from ..media.conditioning import negative_beside


class Experts(NamedTuple):
    """The MODELs of a run: that of high and that of low noise levels, or one model twice."""

    high: Model
    low: Model

    @classmethod
    def of(cls, high: Model, low: Model | None = None) -> "Experts":
        """Both, where `low` None stands for a release with one model."""
        return cls(high, high if low is None else low)


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
    """A run of both experts, fixed from its start to its end: `schedule` are its sigmas on the CPU, `starts_high` says
    which expert it starts with, and `second` is the other one."""

    schedule: Tensor
    boundary: float
    starts_high: bool
    second: "SecondExpert"
    inputs: GuiderInputs

    def is_seconds(self, sigma: Tensor) -> bool:
        """Whether the second expert answers at this noise level."""
        return is_high(sigma, self.schedule, self.boundary) != self.starts_high


def is_high(sigma: Tensor, schedule: Tensor, boundary: float) -> bool:
    """Whether the high-noise expert answers at this noise level: the official rule on whole timesteps."""
    return is_high_noise(int(timestep_of(sigma.flatten()[:1].cpu(), schedule)), boundary)


class _Capture(comfy.samplers.Sampler):
    """Stands in for a sampler so that the host prepares conditioning and options, and keeps what it would pass."""

    def __init__(self) -> None:
        self.extra_args: dict[str, Any] = {}

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        self.extra_args = extra_args
        return noise


class SecondExpert(comfy.samplers.CFGGuider):
    """The expert that does not start the run. `sample` enters the host's set-up for it, and in there calls `first`,
    which runs the sampler with the first expert; the weights are loaded when a noise level is this expert's.

    All that changes while experts take turns is here: whether this one answers now, and what was loaded for it."""

    conds: dict[str, Any]
    inner_model: Any

    def __init__(
        self,
        model: Model,
        conds: dict[str, Any],
        cfg: float,
        first: Callable[["SecondExpert", GuiderInputs], Tensor],
    ) -> None:
        super().__init__(model)
        self.original_conds = conds
        self.set_cfg(cfg)
        self._first = first
        self.is_active = False
        self._loaded: list | None = None
        self._options: dict[str, Any] | None = None

    def outer_sample(self, *args: Any, **kwargs: Any) -> Tensor:
        # called by the host where it would load the model and sample
        bound = inspect.signature(super().outer_sample).bind(*args, **kwargs)
        bound.apply_defaults()
        inputs = GuiderInputs(**{field.name: bound.arguments[field.name] for field in fields(GuiderInputs)})
        try:
            return self._first(self, inputs)
        finally:
            if self._loaded is not None:
                self.model_patcher.cleanup()
                comfy.sampler_helpers.cleanup_models(self.conds, self._loaded)
                del self.inner_model

    def activate(self, inputs: GuiderInputs) -> None:
        """Loads the weights (or brings them back), and prepares conditioning and options the first time."""
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

    def deactivate(self) -> None:
        """Leaves the next noise levels to the first expert; what was prepared stays."""
        self.is_active = False

    def options_like(self, given: dict, base: dict) -> dict:
        """This expert's options, with what the sampler itself has added to the `base` expert's (CFG++ samplers)."""
        options = comfy.model_patcher.create_model_options_clone(self._options)
        hook = "sampler_post_cfg_function"
        added = [f for f in given.get(hook, []) if f not in base.get(hook, [])]
        if added:
            options[hook] = [*options.get(hook, []), *added]
        if given.get("disable_cfg1_optimization"):
            options["disable_cfg1_optimization"] = True
        return options


class ExpertsGuider(comfy.samplers.CFGGuider):
    """GUIDER over a high-noise and a low-noise MODEL.

    boundary: noise level in 0..1 from which the high-noise expert answers; the official rule on whole timesteps.
    scales: CFG scale of the high- and of the low-noise expert; 1 runs without the negative prompt.
    Raises ValueError on a boundary outside 0..1 and on two models that do not belong together."""

    conds: dict[str, Any]
    model_patcher: Any

    def __init__(self, experts: Experts, boundary: float, scales: tuple[float, float] = (1.0, 1.0)) -> None:
        check_boundary(boundary)
        check_pair(experts)
        super().__init__(experts.high)
        self._experts = {True: (experts.high, scales[0]), False: (experts.low, scales[1])}
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
        schedule = sigmas.cpu()
        starts_high, ends_high = (is_high(s, schedule, self._boundary) for s in (sigmas[:1], sigmas[-1:]))
        # the run is this guider's own, as the expert that it starts with
        self.model_patcher, self.cfg = self._experts[starts_high]
        self.model_options = self.model_patcher.model_options
        given = self.original_conds
        conds = {True: given, False: given | self._low_conds}

        def sample() -> Tensor:
            self.original_conds = conds[starts_high]
            try:
                return super(ExpertsGuider, self).sample(
                    noise, latent_image, sampler, sigmas, *args, **kwargs
                )
            finally:
                self.original_conds = given

        if starts_high == ends_high:  # all noise levels belong to one expert
            return sample()

        def first(second: SecondExpert, inputs: GuiderInputs) -> Tensor:
            self._run = ExpertRun(schedule, self._boundary, starts_high, second, inputs)
            try:
                return sample()
            finally:
                self._run = None

        model, cfg = self._experts[not starts_high]
        second = SecondExpert(model, conds[not starts_high], cfg, first)
        return second.sample(noise, latent_image, sampler, sigmas, *args, **kwargs)

    def outer_predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: Any = None
    ) -> Tensor:
        model_options = model_options or {}
        run = self._run
        if run is None:
            return super().outer_predict_noise(x, timestep, model_options, seed)
        is_seconds = run.is_seconds(timestep)
        if is_seconds != run.second.is_active:
            self._switch(run, is_seconds)
        if not is_seconds:
            return super().outer_predict_noise(x, timestep, model_options, seed)
        options = run.second.options_like(model_options, self.model_options)
        return run.second.outer_predict_noise(x, timestep, options, seed)

    def _switch(self, run: ExpertRun, to_second: bool) -> None:
        if to_second:
            run.second.activate(run.inputs)
            return
        run.second.deactivate()
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, run.inputs.noise.shape, self.conds, self.model_options
        )
        self.model_patcher.pre_run()


def _shape(model: Model) -> tuple[int, ...] | None:
    weight = getattr(getattr(model.model, "diffusion_model", None), "patch_embedding", None)
    return None if weight is None else tuple(weight.weight.shape)


def check_pair(experts: Experts) -> None:
    """Raises ValueError where two models cannot take turns on the same latents."""
    one, two = map(_shape, experts)
    if one is not None and two is not None and one != two:
        raise ValueError(
            f"the two models do not belong together: the high-noise one takes {one[1]} channels and is {one[0]} wide, "
            f"the low-noise one takes {two[1]} and is {two[0]} wide. Connect both experts of the same release"
        )
