"""Errors of a ComfyUI; each message is what a user would read."""


class HostError(RuntimeError):
    """A ComfyUI that does not start or does not do what was asked."""


class UnreachableError(HostError):
    """It is not there, is no ComfyUI, or went away."""


class RefusedError(HostError):
    """It will not take a workflow or a file: a node or a model is missing, an input is wrong, or its queue is full."""


class NodeError(HostError):
    """A node failed."""


class StoppedError(HostError):
    """A run that was interrupted or removed from the queue, or did not end in time."""
