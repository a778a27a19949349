"""The report of a load: JSON for programs, a table for people, and a plot of what the server held."""

import json
from dataclasses import asdict
from pathlib import Path

from .readings import LIMITS, WARM_UP, grown
from .watched import Result


def write(result: Result, folder: Path, about: dict[str, object]) -> str:
    """Writes report.json, report.txt and plot.png into a folder; returns the table."""
    found = grown(result.readings)
    data = {
        **about, "prompts": result.prompts, "made": result.made, "repeated": result.repeated,
        "seconds": round(result.seconds),
        "done": dict(sorted(result.done.items())), "failures": result.failures,
        "rose": {name: {"by": rose, "at most": allowed} for name, (rose, allowed) in found.items()},
        "readings": [asdict(reading) for reading in result.readings],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(data, indent=1))
    text = table(result)
    (folder / "report.txt").write_text(text)
    _plot(result, folder / "plot.png")
    return text


def table(result: Result) -> str:
    lines = [f"{name:48} {count:6}" for name, count in sorted(result.done.items())]
    lines.append(
        f"{result.prompts} prompts in {result.seconds / 60:.1f} minutes; pictures of {result.made} looked at, of which "
        f"{result.repeated} had been made before"
    )
    found = grown(result.readings)
    for name in LIMITS:
        values = [getattr(reading, name) for reading in result.readings]
        scale, unit = (2**20, " MiB") if name == "memory" else (1, "")
        first, last = values[0] / scale, values[-1] / scale
        line = f"{name:20} {first:8.0f}{unit} first {last:8.0f}{unit} last"
        if name in found:
            rose, allowed = (number / scale for number in found[name])
            line += f"   rose by {rose:.1f}{unit} after the warm-up, at most {allowed:.0f}"
        lines.append(line)
    lines += [f"FAILED {failure}" for failure in result.failures]
    lines.append(f"{len(result.failures)} failures")
    return "\n".join(lines) + "\n"


def _plot(result: Result, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = ("memory", "descriptors", "threads", "mapped_files", "temporary_files")
    figure, axes = plt.subplots(len(shown), 1, figsize=(9, 10), sharex=True)
    prompts = [reading.prompts for reading in result.readings]
    for name, axis in zip(shown, axes, strict=True):
        scale = 2**20 if name == "memory" else 1
        axis.plot(prompts, [getattr(reading, name) / scale for reading in result.readings], marker=".")
        axis.axvspan(0, prompts[round(len(prompts) * WARM_UP) - 1], color="0.93")
        axis.set_ylabel("memory, MiB" if name == "memory" else name.replace("_", " "))
        axis.set_ylim(bottom=0)
    axes[0].set_title(f"{result.prompts} prompts; grey: warm-up")
    axes[-1].set_xlabel("prompts")
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    plt.close(figure)
