"""The program that matches over a direct link: runs in an environment of its own, with `spu`.

Usage: worker.py, in an empty directory that it may write to; one line of JSON on standard input:

    {"learns": true, "input": "own.csv", "output": "found.csv",
     "own": "unix:/…/own.sock", "peer": "unix:/…/peer.sock", "seconds": 600}

It says {"ready": true} on standard output once it has loaded everything, and waits for a second
line, "go": the two programs must begin at the same time. It ends with {"done": 123}, how many were
found (0 at the side that does not learn), or {"failed": "environment" | "link" | "match"}. When
standard input ends before that, whoever started it is gone: it removes its directory and itself.

Guarantees: fast mode only (the other one of spu 0.9.5 loses matches silently); the result goes to
the learner alone; what spu logs stays in this directory, and the trace that it leaves outside is
removed. Only the standard library and spu's two compiled modules are used.

Leaves to others: who may reach the sockets, and what the tags in the file stand for.
"""

import importlib.util
import json
import os
import re
import resource
import shutil
import sys
import threading
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SPU = "0.9.5"
LOG = Path("log")
TRACE = re.compile(rb"written to (/tmp/psi_[A-Za-z0-9_-]+\.trace)")
MOST_FILE_BYTES = 1 << 32


def main() -> None:
    """Answer one question."""
    answer = os.fdopen(os.dup(1), "w")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE_BYTES, MOST_FILE_BYTES))
    os.umask(0o077)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if not (question := sys.stdin.readline()):
        end_with_parent()  # which is gone already
    asked = json.loads(question)
    try:
        loaded = load_spu()
    except Exception:  # noqa: BLE001 -- whatever the absence of spu, or of a library, may raise
        print(json.dumps({"failed": "environment"}), file=answer, flush=True)
        return
    print(json.dumps({"ready": True}), file=answer, flush=True)
    sys.stdin.readline()
    threading.Thread(target=end_with_parent, daemon=True).start()
    print(json.dumps(run(asked, *loaded)), file=answer, flush=True)
    os._exit(0)  # spu's own threads need not be waited for


def end_with_parent() -> None:
    """Leave nothing behind when whoever started this program is gone."""
    sys.stdin.read()
    remove_traces()
    shutil.rmtree(Path.cwd(), ignore_errors=True)
    os._exit(1)


def run(asked: dict[str, Any], psi: Any, link: Any) -> dict[str, object]:
    """Match; every failure is one word, for what spu says of it may quote its input."""
    failed = "link"
    try:
        context = link.create_brpc(description(link, asked), 0 if asked["learns"] else 1)
        failed = "match"
        report = psi.psi_execute(configuration(psi, asked), context)
        context.stop_link()
    except Exception:  # noqa: BLE001 -- a word for whatever spu, or its absence, may raise
        return {"failed": failed}
    finally:
        remove_traces()
    return {"done": report.intersection_count if asked["learns"] else 0}


def remove_traces() -> None:
    """Remove what spu has left outside this directory, as its log tells."""
    for trace in TRACE.findall(LOG.read_bytes()):
        Path(os.fsdecode(trace)).unlink(missing_ok=True)


def load_spu() -> tuple[Any, Any]:
    """Import spu's two compiled modules, and not the package, which would load all of JAX."""
    if version("spu") != SPU:
        raise PackageNotFoundError(f"spu {SPU}")
    found = importlib.util.find_spec("spu")
    if found is None:
        raise PackageNotFoundError("spu")
    package = types.ModuleType("spu")
    package.__path__ = list(found.submodule_search_locations or ())
    sys.modules["spu"] = package
    from spu import libpsi
    from spu.libspu import link

    return libpsi, link


def description(link: Any, asked: dict[str, Any]) -> Any:
    """Describe the link: the learner is the first of the two."""
    described = link.Desc()
    described.id = "comity"
    described.recv_timeout_ms = described.http_timeout_ms = 1000 * asked["seconds"]
    described.connect_retry_times = 10 * asked["seconds"]
    described.connect_retry_interval_ms = 100
    places = [asked["own"], asked["peer"]]
    for name, place in zip(
        ("learner", "peer"), places if asked["learns"] else places[::-1], strict=True
    ):
        described.add_party(name, place)
    return described


def configuration(psi: Any, asked: dict[str, Any]) -> Any:
    """Say what is matched, and that the learner alone learns it."""
    return psi.PsiExecuteConfig(
        psi.PsiProtocolConfig(
            psi.PsiProtocol.PROTOCOL_RR22,
            receiver_rank=0,
            broadcast_result=False,
            rr22_params=psi.Rr22Rarams(low_comm_mode=False),
        ),
        psi.InputParams(
            path=str(Path(asked["input"]).absolute()), selected_keys=["id"], keys_unique=True
        ),
        psi.OutputParams(path=str(Path(asked["output"]).absolute()), disable_alignment=True),
    )


if __name__ == "__main__":
    main()
