"""Settings of a sampling run, by the names of the nodes' inputs, and the steps that they give."""

import math
from dataclasses import dataclass, fields

from torch import Tensor

from ...wan_models.families import DISTILLED, DISTILLED_MODELS, RELEASES
from ...wan_models.sampling.guidance import check_base_steps
from ...wan_models.sampling.schedule import timestep_of
from ...wan_models.sampling.solvers import SOLVERS
from . import samplers

CUSTOM = "custom"
PRESETS = {**RELEASES, **DISTILLED, **DISTILLED_MODELS}
MAX_STEPS = 1000


@dataclass(frozen=True)
class Settings:
    """Steps, CFG scale of each expert, schedule and solver. boundary: noise level in 0..1 from which the high-noise
    expert works."""

    steps: int
    shift: float
    cfg_high: float
    cfg_low: float
    boundary: float
    sampler: str
    scheduler: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number, not {value}")

    @classmethod
    def of_release(cls, name: str) -> "Settings":
        """The official settings of one of PRESETS."""
        release = PRESETS[name]
        low, high = release.guidance
        # a release with one expert runs it from the first step to the last
        boundary = 0.0 if release.boundary is None else release.boundary
        if release.solver in SOLVERS:
            sampler, scheduler = samplers.OFFICIAL + release.solver, samplers.SCHEDULE_NAME
        else:
            sampler, scheduler = release.solver, "simple"
        return cls(release.steps, release.shift, high, low, boundary, sampler, scheduler)

    @classmethod
    def of_preset(cls, preset: str, custom: "Settings") -> "Settings":
        """The official settings of a preset, or `custom` where it is "custom". ValueError on other names."""
        if preset == CUSTOM:
            return custom
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; choose one of {', '.join([*PRESETS, CUSTOM])}")
        return cls.of_release(preset)


@dataclass(frozen=True)
class Noise:
    """The noise that a video is made of. noise_source: one of `samplers.NOISE_SOURCES`. add_noise: False for a latent
    that has noise left."""

    seed: int
    noise_source: str = samplers.NOISE_SOURCES[0]
    add_noise: bool = True


@dataclass(frozen=True)
class StepRange:
    """The part of a schedule that is run: from start_step up to, and without, end_step."""

    start_step: int = 0
    end_step: int = MAX_STEPS


ALL_STEPS = StepRange()


@dataclass(frozen=True)
class Steps:
    """Steps of a run: those from `first` up to `last` of a whole schedule.

    whole: its sigmas, float32 [n + 1]. high: bool [n], the steps at high noise. base: how many of these, from the
    first of the schedule on, a base model takes; the others are the high-noise expert's."""

    whole: Tensor
    high: Tensor
    first: int
    last: int
    base: int = 0

    @property
    def sigmas(self) -> Tensor:
        return self.whole[self.first : self.last + 1]

    @property
    def at_base(self) -> int:
        """Number of steps of the base model in this run."""
        return max(0, min(self.base, self.last) - self.first)

    @property
    def at_high(self) -> int:
        """Number of steps of the high-noise expert in this run."""
        return int(self.high[self.first : self.last].sum()) - self.at_base


def steps_of(settings: Settings, part: StepRange = ALL_STEPS, base_steps: int = 0) -> Steps:
    """The steps of these settings. ValueError where they give no schedule, no step is left in `part`, or base_steps go
    past the boundary."""
    whole = samplers.sigmas_named(settings.scheduler, settings.steps, settings.shift, settings.sampler)
    count = len(samplers.sub_range(whole, part.start_step, part.end_step)) - 1
    high = timestep_of(whole[:-1], whole) >= settings.boundary * 1000
    check_base_steps(base_steps, int(high.sum()))
    return Steps(whole, high, part.start_step, part.start_step + count, base_steps)
