"""Two experts as one GUIDER: the noise level of each model call says which of them answers.

The sampler's loop and its solver state run through the switch. Each expert is a guider of the host's own class,
with its own options, wrappers (EasyCache ...), LoRAs and CFG scale; weights are loaded by the host's model
management when an expert is first asked, which makes room by unloading the other where it must.
"""

import inspect
from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...wan_models.sampling.guidance import check_boundary, is_high_noise
from ...wan_models.sampling.schedule import timestep_of


class _Capture(comfy.samplers.Sampler):
    """Stands in for a sampler so that the host prepares conditioning and options, and keeps what it would pass."""

    extra_args: dict

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        self.extra_args = extra_args
        return noise


class _Expert(comfy.samplers.CFGGuider):
    """The expert that does not start the run. The host's set-up for it is entered before the run and left after;
    its weights are loaded at its first call."""

    def around(self, run: Callable[[], Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Runs `run` inside this guider's own set-up; the arguments are those of `sample`."""
        self._run, self._extra_args = run, None
        try:
            return self.sample(*args, **kwargs)
        finally:
            self._run = None

    def outer_sample(self, *args: Any, **kwargs: Any) -> Tensor:
        # called by the host where it would load the model and sample
        bound = inspect.signature(super().outer_sample).bind(*args, **kwargs)
        bound.apply_defaults()
        self._arguments = bound.arguments
        self._loaded: list | None = None
        try:
            return self._run()
        finally:
            if self._loaded is not None:
                self.model_patcher.cleanup()
                comfy.sampler_helpers.cleanup_models(self.conds, self._loaded)
                del self.inner_model

    def activate(self) -> None:
        """Loads the weights (or brings them back), and prepares the conditioning the first time."""
        a = self._arguments
        self.inner_model, self.conds, self._loaded = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, a["noise"].shape, self.conds, self.model_options
        )
        self.model_patcher.pre_run()
        if self._extra_args is not None:
            return
        device = self.model_patcher.load_device
        comfy.samplers.cast_to_load_options(
            self.model_options, device=device, dtype=self.model_patcher.model_dtype()
        )
        mask = a["denoise_mask"]
        if mask is not None:
            mask = comfy.sampler_helpers.prepare_mask(mask, a["noise"].shape, device)
        capture = _Capture()
        noise, latent = (a[name].to(device, torch.float32) for name in ("noise", "latent_image"))
        self.inner_sample(
            noise,
            latent,
            device,
            capture,
            a["sigmas"].to(device),
            mask,
            None,
            True,
            a["seed"],
            latent_shapes=a["latent_shapes"],
        )
        self._extra_args = capture.extra_args

    def options_like(self, given: dict, base: dict) -> dict:
        """This expert's options, with what the sampler itself has added to the `base` expert's (CFG++ samplers)."""
        options = comfy.model_patcher.create_model_options_clone(self._extra_args["model_options"])
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
    Raises ValueError on a boundary outside 0..1 and on two models that do not belong together."""

    def __init__(self, high: Any, low: Any, boundary: float) -> None:
        check_boundary(boundary)
        check_pair(high, low)
        super().__init__(high)
        self.experts = {True: high, False: low}
        self.scales = {True: 1.0, False: 1.0}
        self.boundary = boundary

    def set_scales(self, high: float, low: float) -> None:
        """CFG scale of each expert; 1 runs without the negative prompt."""
        self.scales = {True: high, False: low}

    def is_high(self, sigma: Tensor) -> bool:
        return is_high_noise(int(timestep_of(sigma.flatten()[:1].cpu(), self._schedule)), self.boundary)

    def sample(
        self, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if sigmas.shape[-1] == 0:
            return latent_image
        self._schedule = sigmas.cpu()
        first = self._starts_high = self.is_high(sigmas[:1])
        # the run is this guider's own, as the expert that it starts with
        self.model_patcher = self.experts[first]
        self.model_options = self.model_patcher.model_options
        self.cfg = self.scales[first]
        run = super().sample
        if self.is_high(sigmas[-1:]) == first:  # all noise levels belong to one expert
            self._other = None
            return run(noise, latent_image, sampler, sigmas, *args, **kwargs)

        self._other = _Expert(self.experts[not first])
        self._other.original_conds = self.original_conds
        self._other.set_cfg(self.scales[not first])
        self._active_is_high = first
        try:
            return self._other.around(
                lambda: run(noise, latent_image, sampler, sigmas, *args, **kwargs),
                noise,
                latent_image,
                sampler,
                sigmas,
                *args,
                **kwargs,
            )
        finally:
            self._other = None

    def outer_predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: Any = None
    ) -> Tensor:
        model_options = model_options or {}
        if self._other is None:
            return super().outer_predict_noise(x, timestep, model_options, seed)
        high = self.is_high(timestep)
        mine = high == self._starts_high
        if high != self._active_is_high:
            self._switch(mine)
            self._active_is_high = high
        if mine:
            return super().outer_predict_noise(x, timestep, model_options, seed)
        options = self._other.options_like(model_options, self.model_options)
        return self._other.outer_predict_noise(x, timestep, options, seed)

    def _switch(self, to_mine: bool) -> None:
        if not to_mine:
            self._other.activate()
            return
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, self._other._arguments["noise"].shape, self.conds, self.model_options
        )
        self.model_patcher.pre_run()


def _shape(model: Any) -> tuple[int, ...] | None:
    weight = getattr(getattr(model.model, "diffusion_model", None), "patch_embedding", None)
    return None if weight is None else tuple(weight.weight.shape)


def check_pair(high: Any, low: Any) -> None:
    """ValueError where two models cannot take turns on the same latents."""
    one, two = _shape(high), _shape(low)
    if one is not None and two is not None and one != two:
        raise ValueError(
            f"the two models do not belong together: the high-noise one takes {one[1]} channels and is {one[0]} wide, "
            f"the low-noise one takes {two[1]} and is {two[0]} wide. Connect both experts of the same release"
        )
