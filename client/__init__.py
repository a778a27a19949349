"""The official command line against a ComfyUI server: arguments -> API workflow -> a video file.

Runs in any Python with requests, websocket-client and tqdm: of the pack's own code it takes only the figures in
wan_models/families.py. Starting a server of its own needs ComfyUI's Python.
"""
