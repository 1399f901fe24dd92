"""Stands in for `federation/rr22/worker.py`: the same questions, answers and sockets, no privacy.

The peer's program sends its tags to the learner's, in the clear, and waits to be thanked. Usage:
stand_in.py MISBEHAVIOUR, the word for what it does otherwise, or "none".
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

THANKS = b"thanks"


def main() -> None:
    misbehaviour = sys.argv[1]
    asked = json.loads(sys.stdin.readline())
    if misbehaviour == "environment":
        answer({"failed": misbehaviour})
    say({"ready": True})
    sys.stdin.readline()
    threading.Thread(target=end_with_parent, daemon=True).start()
    if misbehaviour == "match":
        answer({"failed": misbehaviour})
    if misbehaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if misbehaviour == "babbles":
        answer("hello")
    if misbehaviour == "hangs":
        time.sleep(600)
    own, peer = (asked[side].removeprefix("unix:") for side in ("own", "peer"))
    lines = Path(asked["input"]).read_bytes().split()[1:]
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as calling:
        server.bind(own)
        server.listen()
        calling.connect(peer)
        if asked["learns"]:
            called, _ = server.accept()
            theirs = set(called.makefile("rb").read(int(called.recv(8))).split())
            calling.sendall(THANKS)
            found = [line for line in lines if line in theirs]
            told = len(found)
            if misbehaviour == "miscounts":
                told -= 1
            if misbehaviour == "invents":
                found[0] = b"0" * len(found[0])
            Path(asked["output"]).write_bytes(b"\n".join([b"id", *found, b""]))
            answer({"done": told})
        content = b"\n".join(lines)
        calling.sendall(b"%8d" % len(content) + content)
        called, _ = server.accept()
        answer({"done": 0} if called.recv(len(THANKS)) else {"failed": "match"})


def say(told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def answer(told: object) -> None:
    say(told)
    os._exit(0)


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
