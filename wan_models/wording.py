"""Numbers in messages."""


def counted(number: int, noun: str) -> str:
    """A number and what it counts: "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
