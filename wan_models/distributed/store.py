"""The store through which the processes of a group find each other."""

import socket

import torch.distributed as dist


def listening_store(host: str) -> dist.TCPStore:
    """A store that listens at one address of this machine, on a free port. torch's own socket would listen on all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    return dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
