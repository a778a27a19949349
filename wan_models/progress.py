"""The callback that long work reports its progress to."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""on_progress(done, total): called again and again as the work goes on; an error raised in it ends the work."""
