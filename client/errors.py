"""What can go wrong, as exit codes of the command line."""

ARGUMENTS = 2
"""An argument, or a file it names, is wrong."""
SERVER = 3
"""The server is not reached, is no ComfyUI, could not be started, or went away."""
REFUSED = 4
"""The server will not run the workflow: the pack, a node or a model is missing, or its queue is full."""
FAILED = 5
"""A node failed."""
STOPPED = 6
"""Interrupted here or on the server, or not done in time."""


class ClientError(Exception):
    """A problem in one line for the user, and the exit code that tells it to a script."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code
