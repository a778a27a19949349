"""One bar over a whole run with the time left, and lines above it."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

# what a node counts for beside another one; a node that shows several bars has a number for each
WEIGHTS: dict[str, tuple[int, ...]] = {
    "WanMoESampler": (80,),
    "WanPoseAnimate": (90,),
    "WanAnimate2": (90,),
    "WanSpeechToVideo": (3, 90),  # it listens, then makes the video
    "WanVAEDecode": (10,),
}


def note(text: str) -> None:
    """A line on stderr, above the bar where there is one."""
    tqdm.write(text, file=sys.stderr)


class Progress:
    """Fed with the server's messages. The bar appears when the run begins.

    file: stderr where not given. with_steps: the steps of the node at work are told, too, each of them."""

    def __init__(
        self, graph: dict[str, dict[str, Any]], file: TextIO | None = None, with_steps: bool = False
    ) -> None:
        self._file, self._with_steps = file or sys.stderr, with_steps
        self._names = {node: content["class_type"] for node, content in graph.items()}
        self._parts = {node: WEIGHTS.get(name, (1,)) for node, name in self._names.items()}
        self._done = dict.fromkeys(graph, 0.0)
        self._running = self._steps = ""
        self._bar_of: dict[str, tuple[int, int]] = {}  # node -> which of its bars, and that one's length
        self._bar: tqdm | None = None
        self._waiting: int | None = None

    def position(self, before: int) -> None:
        """Says how many runs are before this one, when that changes."""
        if before and before != self._waiting and self._bar is None:
            note(f"waiting in the queue, {before} before this one")
        self._waiting = before

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        node = data.get("node")
        if event == "execution_cached":
            for cached in data.get("nodes", []):
                self._set(cached, 1.0)
        elif event == "executing" and node in self._names:
            self._set(self._running, 1.0)
            self._running, self._steps = node, ""
            self._show()
        elif event == "progress" and node in self._names:
            self._set(node, self._share(node, data["value"], data["max"]))
            self._steps = f" {data['value']}/{data['max']}" if self._with_steps else ""
            self._show()

    def _share(self, node: str, value: int, total: int) -> float:
        """Share of a node's work done when its bar of this length is at `value`."""
        parts = self._parts[node]
        which, length = self._bar_of.get(node, (-1, 0))
        if total != length:
            which = min(which + 1, len(parts) - 1)
            self._bar_of[node] = which, total
        return (sum(parts[:which]) + parts[which] * value / max(total, 1)) / sum(parts)

    def _set(self, node: str, share: float) -> None:
        if node in self._done:
            self._done[node] = max(share, self._done[node])

    def _show(self) -> None:
        if self._bar is None:
            form = "{desc:<20} {percentage:3.0f}% {bar:30} {elapsed}, {remaining} left"
            total = sum(sum(parts) for parts in self._parts.values())
            # a log file gets a line of it now and then
            every = 0.2 if self._file.isatty() else 10.0
            self._bar = tqdm(
                total=total,
                bar_format=form,
                file=self._file,
                mininterval=every,
                maxinterval=every,
                miniters=0,
            )
        self._bar.set_description_str(self._names.get(self._running, "") + self._steps, refresh=False)
        done = sum(share * sum(self._parts[node]) for node, share in self._done.items())
        self._bar.update(done - self._bar.n)
        if self._with_steps:
            self._bar.refresh()

    def finish(self) -> None:
        """Fills the bar: the run is done, whatever was heard of it."""
        self._done = dict.fromkeys(self._done, 1.0)
        self._show()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
