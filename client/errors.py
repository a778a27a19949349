"""Errors, as exit codes of the command line."""

from devhost.errors import HostError, NodeError, RefusedError, StoppedError

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
    """A problem of the command line, and the exit code that tells it to a script."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: ClientError | HostError) -> int:
    """The code of a problem of the command line, or of the server's."""
    if isinstance(error, ClientError):
        return error.code
    codes = {RefusedError: REFUSED, NodeError: FAILED, StoppedError: STOPPED}
    return codes.get(type(error), SERVER)


def in_one_line(error: Exception) -> str:
    """The message as it is shown."""
    return " ".join(str(error).split())
