"""The sampler settings of the nodes that make a whole video, clip after clip."""

from comfy_api.latest import io

from ..comfy_bridge.sampling import run


def preset_input(release: str) -> io.Combo.Input:
    """The official settings of a release, or the node's own."""
    return io.Combo.Input(
        "preset",
        options=[release, run.CUSTOM],
        default=release,
        tooltip="The official steps, shift, CFG, solver and schedule; custom: the settings below.",
    )


def seed_input(tooltip: str) -> io.Int.Input:
    """The seed, with the page's control over it."""
    return io.Int.Input("seed", default=0, min=0, max=2**63, control_after_generate=True, tooltip=tooltip)


def setting_inputs(official: run.Settings) -> list:
    """What the preset "custom" takes: steps, shift, cfg, sampler and scheduler; then the source of noise, and the
    folder of finished clips."""
    custom = " Used when preset is custom."
    return [
        io.Int.Input(
            "steps", default=official.steps, min=1, max=1000, optional=True, tooltip="Per clip." + custom
        ),
        io.Float.Input(
            "shift",
            default=official.shift,
            min=0.01,
            max=100.0,
            step=0.5,
            optional=True,
            tooltip=f"{official.shift:g} is official." + custom,
        ),
        io.Float.Input(
            "cfg",
            default=official.cfg_high,
            min=0.0,
            max=100.0,
            step=0.1,
            optional=True,
            tooltip=f"{official.cfg_high:g} is official." + custom,
        ),
        io.Combo.Input(
            "sampler",
            options=run.sampling.samplers(),
            default=official.sampler,
            optional=True,
            tooltip="The official solvers, then the host's samplers." + custom,
        ),
        io.Combo.Input(
            "scheduler",
            options=run.sampling.schedulers(),
            default=official.scheduler,
            optional=True,
            tooltip="The official schedule, then the host's." + custom,
        ),
        io.Combo.Input(
            "noise_source",
            options=run.sampling.NOISE_SOURCES,
            default="cpu",
            optional=True,
            tooltip="cpu: the host's noise for this seed. gpu: drawn on the GPU, as the official code does.",
        ),
        io.String.Input(
            "checkpoint_folder",
            default="",
            optional=True,
            tooltip="A folder in the output folder that keeps finished clips: a run that was cancelled or "
            "crashed goes on from there. Empty: none.",
        ),
    ]
