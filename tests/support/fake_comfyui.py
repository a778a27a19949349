"""A ComfyUI that is none, for what a real one cannot be made to do: a loopback server with ways to misbehave."""

import asyncio
import threading

from aiohttp import web


class FakeComfyUI:
    """Answers the paths that a client needs, on a free port; a prompt that it takes never ends.

    lacks: what the names of nodes that it does not know begin with. answer: status and body of /prompt. before:
    prompts of other people that run or wait, one less at each look. vanish: it ends when a prompt was queued. name:
    what it says it is."""

    def __init__(self, lacks=(), answer=(200, {}), before=(), vanish=False, name="comfyui_version"):
        self.lacks, self.answer, self.queue, self.vanish, self.name = lacks, answer, [*before], vanish, name
        self.asked = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    async def _open(self):
        app = web.Application()
        app.add_routes(
            [
                web.get("/system_stats", self._stats),
                web.get("/object_info/{name}", self._info),
                web.get("/queue", self._look),
                web.get("/history/{name}", self._history),
                web.get("/ws", self._websocket),
                web.post("/prompt", self._prompt),
                web.post("/queue", self._note),
                web.post("/interrupt", self._note),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stats(self, request):
        return web.json_response({"system": {self.name: "0.3.75"}, "devices": []})

    async def _info(self, request):
        name = request.match_info["name"]
        return web.json_response({} if name.startswith(tuple(self.lacks)) else {name: {"input": {}}})

    async def _look(self, request):
        running, *waiting = list(enumerate(self.queue))
        if waiting:
            self.queue.pop(0)
        return web.json_response({"queue_running": [running], "queue_pending": waiting[::-1]})

    async def _history(self, request):
        return web.json_response({})

    async def _prompt(self, request):
        status, body = self.answer
        if status == 200:
            self.queue.append((await request.json())["prompt_id"])
        if self.vanish:
            self._loop.call_later(0.3, lambda: self._loop.create_task(self._runner.cleanup()))
        return web.json_response(body, status=status)

    async def _note(self, request):
        self.asked.append((request.path, await request.json()))
        return web.Response()

    async def _websocket(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    def close(self):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
