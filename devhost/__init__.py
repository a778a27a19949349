"""A ComfyUI to start and to talk to, for the command line, the demo, the benchmarks and the tests.

`server`, `progress` and `errors` need requests, websocket-client and tqdm; `host`, which starts a ComfyUI, needs the
Python that ComfyUI runs in. Nothing here knows of the rooms that use it.
"""
