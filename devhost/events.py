"""The messages of a ComfyUI's websocket, over as many connections as it takes."""

import contextlib
import json
import time

import websocket

HANDSHAKE_SECONDS = 10.0
SILENCE_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5


class Events:
    """Messages for one client id. url: of the server, http or https. Connects when it is made where that works."""

    def __init__(self, url: str, client_id: str) -> None:
        self._url = f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        self._socket: websocket.WebSocket | None = None
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._connect()

    def _connect(self) -> websocket.WebSocket:
        if self._socket is None:
            # a busy server answers late, and sends no messages to a client that has given up
            self._socket = websocket.create_connection(self._url, timeout=HANDSHAKE_SECONDS)
            self._socket.settimeout(SILENCE_SECONDS)
        return self._socket

    def next(self) -> tuple[str, dict] | None:
        """The next message as (type, data); None where none came for a second. Connects anew where it must.

        A preview image is ("preview", {"bytes": ...})."""
        try:
            message = self._connect().recv()
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError):
            message = ""
        if not message:  # the connection was closed
            self.close()
            time.sleep(_RECONNECT_SECONDS)
            return None
        if isinstance(message, bytes):
            return "preview", {"bytes": message}
        event = json.loads(message)
        return event["type"], event.get("data") or {}

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
