"""The official Wan2.2 command line on a ComfyUI server: `python generate.py --help`, docs/command-line.md."""

import sys

try:
    from client.command import main
except ModuleNotFoundError as error:
    if error.name not in ("requests", "tqdm", "websocket"):
        raise
    sys.exit(f"generate.py: {error.name} is missing: pip install requests websocket-client tqdm")

if __name__ == "__main__":
    sys.exit(main())
