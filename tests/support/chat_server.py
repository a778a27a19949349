"""An OpenAI-compatible server on this machine that answers as it is told: well, badly, or not at all."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from wan_models.prompt.chat_endpoint import Endpoint, answer
from wan_models.prompt.extension import question

KEY = "sk-do-not-tell-0123456789"
JSON = {"Content-Type": "application/json"}
SOON = {"retry-after-ms": "5"}  # so that the client's retries take no time


def completion(text, finish="stop", **message):
    """A good answer."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}, {}


def refusal(status, message="no", headers=SOON):
    return status, {"error": {"message": message, "type": "error", "code": "error"}}, headers


class ChatServer:
    """Use as a context manager. `replies` are given one after the other, the last one for ever: (status, JSON or bytes,
    headers), "close" for a connection that ends without a word, "hang" for one that stays silent, or a callable of
    the request's body that gives one of these. `asked` holds (path, headers, body) of every request."""

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []
        self._over = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.asked.append((self.path, self.headers, body))
                reply = owner.replies.pop(0) if len(owner.replies) > 1 else owner.replies[0]
                reply = reply(body) if callable(reply) else reply
                if reply == "hang":
                    owner._over.wait(60)
                if reply in ("hang", "close"):
                    self.close_connection = True
                    return
                status, content, headers = reply
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                kind = {} if isinstance(content, bytes) else {"Content-Type": "application/json"}
                for name, value in {**kind, **headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RawServer:
    """Use as a context manager. Reads each question and writes `pieces` of bytes until the client has gone, with a
    pause of some seconds after each. `sent` counts bytes."""

    def __init__(self, pieces, pause=0.0):
        self.sent = 0
        self._pieces, self._pause, self._over = pieces, pause, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self):
        while not self._over.is_set():
            with contextlib.suppress(OSError), self._server.accept()[0] as connection:
                connection.recv(1 << 16)
                for piece in self._pieces:
                    connection.sendall(piece)
                    self.sent += len(piece)
                    if self._over.wait(self._pause):
                        break

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


def ask(server, key=KEY, image=None, **options):
    """What such a server answers to a question of ours."""
    asked = question("TI2V", "a cat", "en", image)
    return answer(Endpoint(server.url, "model-1", key), asked, 2**40 + 7, **options)
