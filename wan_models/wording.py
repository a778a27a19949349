"""Numbers in messages."""


def counted(number: int, noun: str) -> str:
    """A number and what it counts: "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def frames_between(first: int, last: int) -> str:
    """Frames from the first to the last one: "frame 0", "frames 1 to 4"."""
    return f"frame {first}" if first == last else f"frames {first} to {last}"
