"""Ends the processes of a group when their owner is gone, however it went: `python guard.py`, a child of the owner.

Reads one line with process ids from its standard input; when the input ends, the owner has closed it or has died, and
what is left of those processes is killed. Ray ends most of them by itself, some of its helpers only after a minute.
"""

import sys


def main() -> None:
    import psutil

    known = []
    for word in sys.stdin.readline().split():
        try:
            known.append(
                psutil.Process(int(word))
            )  # remembers when it was started, so a reused id is not meant
        except psutil.NoSuchProcess:
            continue
    sys.stdin.read()
    for process in known:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    main()
