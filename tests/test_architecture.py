"""Who may import whom, where entropy comes from, and that there is one door out."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT, over

PACKAGES = ("privacy", "connectors", "compliance", "federation")
MODULES = tuple(sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")))
FLOWER = ("federation/apps/", "federation/channel.py", "federation/embedded.py")
ENTROPY = "privacy/randomness.py"
GATE = "federation/gate/door.py"
NETWORK = frozenset(
    [
        "_socket",
        "_ssl",
        "aiohttp",
        "anyio",
        "asyncio",
        "boto3",
        "fastapi",
        "ftplib",
        "fsspec",
        "grpc",
        "http",
        "httpx",
        "imaplib",
        "nntplib",
        "paramiko",
        "poplib",
        "pyarrow.flight",
        "pyarrow.fs",
        "ray",
        "requests",
        "s3fs",
        "select",
        "selectors",
        "smtplib",
        "socket",
        "socketserver",
        "spu",
        "ssl",
        "starlette",
        "telnetlib",
        "urllib",
        "urllib3",
        "uvicorn",
        "webbrowser",
        "websocket",
        "websockets",
        "xmlrpc",
        "zmq",
    ]
)
PROCESSES = frozenset(
    [
        "_ctypes",
        "_posixsubprocess",
        "cffi",
        "commands",
        "concurrent.futures.ProcessPoolExecutor",
        "concurrent.futures.process",
        "ctypes",
        "multiprocessing",
        "mmap",
        "posix",
        "pty",
        "sh",
        "subprocess",
    ]
)
CODE = frozenset(
    [
        "_pickle",
        "cloudpickle",
        "code",
        "codeop",
        "dill",
        "imp",
        "joblib",
        "marshal",
        "pickle",
        "runpy",
        "shelve",
        "importlib.import_module",
    ]
)
STARTS = re.compile(r"os\.(system|popen|exec|spawn|posix_spawn|fork|startfile|sendfile|mkfifo)")
RUNS = frozenset({"eval", "exec", "compile", "__import__", "breakpoint", "globals", "vars"})
GUESSABLE = frozenset({"random", "secrets", "uuid"})


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Keep no tree of any module for the tests that come after these."""
    yield
    for one in (parsed, imports, mentions, calls, aliases):
        one.cache_clear()


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the full name of everything that a module imports, wherever in it."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}: imports are written in full"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


@cache
def mentions(path: Path) -> frozenset[str]:
    """Return every dotted name that a module mentions, such as `np.random.default_rng`."""
    nodes = ast.walk(parsed(path))
    return frozenset(ast.unparse(one) for one in nodes if isinstance(one, ast.Attribute | ast.Name))


@cache
def calls(tree: Path | ast.AST) -> tuple[tuple[str, ast.Call], ...]:
    """Return every call with the name of what is called."""
    nodes = ast.walk(parsed(tree) if isinstance(tree, Path) else tree)
    return tuple((ast.unparse(one.func), one) for one in nodes if isinstance(one, ast.Call))


def callers(*wanted: str) -> set[str]:
    """Return the files in which one of the wanted names is called."""
    return {
        named(path)
        for path in MODULES
        for name, _ in calls(path)
        if name.split(".")[-1] in wanted or name in wanted
    }


def function(path: Path, name: str) -> ast.FunctionDef:
    (found,) = (
        node
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return found


def python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


@over(MODULES, ids=named)
def test_the_lower_packages_know_nothing_of_each_other_or_of_federation(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
    assert ours <= (set(PACKAGES) if package == "federation" else {package})


@over(MODULES, ids=named)
def test_flower_is_known_only_where_messages_travel(path: Path) -> None:
    if any(name.split(".")[0] == "flwr" for name in imports(path)):
        assert named(path).startswith(FLOWER)


def ways_out(path: Path) -> set[str]:
    """Return what in a module could speak to others, start a program, or run code as data."""
    closed = NETWORK | PROCESSES | CODE
    full = {*imports(path), *(written_out(name, path) for name in mentions(path))}
    used = {name for name in full if STARTS.match(name) or closed & set(prefixes(name))}
    used |= RUNS & mentions(path)
    return used | {name for name in mentions(path) if name.endswith(("_pickle", ".__reduce__"))}


def prefixes(name: str) -> Iterator[str]:
    """Yield a dotted name and every package that it lies in."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def written_out(name: str, path: Path) -> str:
    """Return a mentioned attribute under the name that its module has in full: `pa.fs`."""
    first, dot, rest = name.partition(".")
    return f"{aliases(path).get(first, '')}{dot}{rest}" if dot else ""


@cache
def aliases(path: Path) -> dict[str, str]:
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    }


LINK = frozenset(
    {
        "asyncio",
        "asyncio.Event",
        "asyncio.FIRST_COMPLETED",
        "asyncio.Future",
        "asyncio.Server",
        "asyncio.StreamReader",
        "asyncio.StreamWriter",
        "asyncio.create_task",
        "asyncio.gather",
        "asyncio.get_running_loop",
        "asyncio.get_running_loop().create_future",
        "asyncio.get_running_loop().time",
        "asyncio.open_connection",
        "asyncio.open_unix_connection",
        "asyncio.run",
        "asyncio.sleep",
        "asyncio.start_server",
        "asyncio.start_unix_server",
        "asyncio.timeout",
        "asyncio.wait",
        "asyncio.wait_for",
        "ssl",
        "ssl.CERT_REQUIRED",
        "ssl.PEM_cert_to_DER_cert",
        "ssl.PROTOCOL_TLS_CLIENT",
        "ssl.PROTOCOL_TLS_SERVER",
        "ssl.SSLContext",
        "ssl.SSLError",
        "ssl.TLSVersion",
        "ssl.TLSVersion.TLSv1_3",
    }
)
WORKER = "federation/rr22/worker.py"
ASGI = tuple(f"starlette.types.{name}" for name in ("ASGIApp", "Receive", "Scope", "Send"))
STARLETTE = frozenset(
    {
        *("starlette.applications.Starlette", "starlette.concurrency.run_in_threadpool"),
        *("starlette.requests.Request", "starlette.responses.Response", "starlette.routing.Route"),
    }
)
ALLOWED = {
    # machine code that was generated in this process has no other caller than ctypes: by address
    "privacy/psi/vector/program.py": frozenset(
        {"ctypes", "ctypes.CFUNCTYPE", "ctypes.c_uint64", "ctypes.c_void_p"}
    ),
    # how the C library hands out memory has no name in Python
    "federation/apps/operating/allocator.py": frozenset({"ctypes", "ctypes.CDLL"}),
    # a party's own worker processes, which it asks for in its configuration
    "federation/workers.py": frozenset(
        {"concurrent.futures.ProcessPoolExecutor", "multiprocessing.get_context"}
    ),
    # an auditor's own processes, one for each large log
    "federation/audit_processes.py": frozenset(
        {"multiprocessing.Pipe", "multiprocessing.Process"}
        | {"multiprocessing.connection.Connection", "multiprocessing.connection.wait"}
    ),
    # a node's own worker for each message, over sockets without a name
    "federation/apps/zygote.py": frozenset(
        {
            *("os.fork", "select.select"),
            *("socket.recv_fds", "socket.send_fds", "socket.socket", "socket.socketpair"),
        }
    ),
    # what Flower's own client returns and raises, and how much of it is read
    "federation/apps/bounded.py": frozenset(
        {"httpx.Client", "httpx.Response", "httpx.SyncByteStream"}
    ),
    "federation/apps/grid.py": frozenset({"http.HTTPStatus", "httpx.HTTPStatusError"}),
    "federation/apps/credential.py": frozenset({"http.HTTPStatus", "httpx.Response"}),
    "federation/apps/superlink.py": frozenset({"httpx.HTTPStatusError", "httpx.TransportError"}),
    # a coordinator's two listeners, and Flower's executor beside them, on its own machine
    "federation/apps/control_listener.py": frozenset(
        {
            *("fastapi.security.utils.get_authorization_scheme_param", "http.HTTPStatus"),
            *("starlette.concurrency.run_in_threadpool", "starlette.datastructures.Headers"),
            *("starlette.routing.Mount", "starlette.routing.Router", *ASGI),
        }
    ),
    "federation/apps/public_listener.py": frozenset(
        {
            *("http.HTTPStatus", "starlette.requests.Request", *ASGI),
            *(f"starlette.responses.{kind}Response" for kind in ("", "PlainText")),
            *(f"starlette.routing.{name}" for name in ("BaseRoute", "Mount", "Route", "Router")),
        }
    ),
    "federation/apps/refusals.py": frozenset(
        {
            *("http.HTTPStatus", "starlette.datastructures.Headers", "starlette.types.Message"),
            *ASGI,
        }
    ),
    "federation/apps/operating/flower.py": frozenset({"fastapi.FastAPI"}),
    # between listeners and SuperLink: calls that wait, and how Flower's layers hand them on
    "federation/apps/operating/alarm.py": frozenset(
        {"asyncio", "asyncio.create_task", "asyncio.sleep"}
    ),
    "federation/apps/operating/systemd.py": frozenset(  # on the same machine
        {"socket", "socket.socket", "socket.AF_UNIX", "socket.SOCK_DGRAM"}
    ),
    "federation/apps/operating/promptness.py": frozenset(
        {
            *("asyncio", "asyncio.CancelledError", "asyncio.Event", "asyncio.Future"),
            *("asyncio.FIRST_COMPLETED", "asyncio.ensure_future", "asyncio.get_running_loop"),
            *("asyncio.wait", *ASGI),
        }
    ),
    "federation/apps/operating/calls.py": frozenset(
        {
            *("asyncio", "asyncio.Event", "asyncio.Event().wait", "http.HTTPStatus"),
            *("starlette.types.Message", *ASGI),
        }
    ),
    "federation/apps/operating/pushes.py": frozenset({"http.HTTPStatus", *ASGI}),
    "federation/apps/operating/returning.py": frozenset(  # looks at a call's head
        {"starlette.datastructures.Headers", "starlette.types.Scope"}
    ),
    "federation/apps/operating/riding.py": frozenset(
        {"starlette.concurrency.run_in_threadpool", *ASGI}
    ),
    "federation/apps/operating/unary.py": frozenset(
        {
            *("fastapi.FastAPI", "starlette.middleware.Middleware"),
            *("starlette.middleware.base.BaseHTTPMiddleware", "starlette.requests.Request"),
            "starlette.responses.Response",
            *(f"starlette.types.{name}" for name in ("ASGIApp", "Message", "Receive", "Scope")),
            "starlette.types.Send",
        }
    ),
    "federation/operations/control_api.py": STARLETTE,
    "federation/apps/operating/server.py": frozenset(
        {
            *("asyncio", "asyncio.Transport", "uvicorn", "uvicorn.Config", "uvicorn.Server"),
            "uvicorn._types.ASGI3Application",
            "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
            "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
            *("ssl", "ssl.SSLError", "ssl.SSLObject"),  # a handshake that fails is counted
            *("ssl.SSLWantReadError", "ssl.SSLWantWriteError"),
        }
    ),
    "federation/apps/operating/service.py": frozenset(
        {
            *(f"asyncio.{name}" for name in ("Event", "create_task", "gather", "get_running_loop")),
            *(f"asyncio.{name}" for name in ("run", "sleep", "to_thread", "wait_for")),
            *("asyncio", "subprocess", "subprocess.PIPE", "subprocess.Popen"),
            *("subprocess.STDOUT", "subprocess.TimeoutExpired", "starlette.types.ASGIApp"),
            *("uvicorn", "uvicorn.Config", "uvicorn.config.LOGGING_CONFIG"),
        }
    ),
    # an operator elsewhere, who calls the coordinator that a file of his names
    "federation/operations/remote.py": frozenset(
        {
            *("httpx", "httpx.Client", "httpx.HTTPError"),
            *("ssl", "ssl.SSLError", "ssl.create_default_context"),
        }
    ),
    # a coordinator whose operators' accounts are an identity provider's: its public keys
    "federation/operations/provider_keys.py": frozenset(
        {
            *("http.HTTPStatus", "http.client.HTTPException", "http.client.HTTPSConnection"),
            *("ssl", "ssl.TLSVersion", "ssl.TLSVersion.TLSv1_2", "ssl.create_default_context"),
            "urllib.parse.urlsplit",
        }
    ),
    # the one link between two parties that the coordinator does not carry: only after both gates
    # have let out that it may be opened, and to a certificate told beforehand
    "federation/rr22/link.py": LINK,
    # what speaks through it, which opens no connection itself
    "federation/rr22/program.py": frozenset(
        {
            *("asyncio", "asyncio.create_subprocess_exec", "asyncio.wait_for"),
            *(f"asyncio.subprocess.{name}" for name in ("DEVNULL", "PIPE", "Process")),
        }
    ),
    # what a coordinator's control listener shows of it
    "federation/observing/coordinator_view.py": frozenset(
        {
            *("starlette.requests.Request", "starlette.responses.Response"),
            *(f"starlette.routing.{name}" for name in ("Route", "Router")),
            "starlette.types.ASGIApp",
        }
    ),
    # a node's own listener, where its party asks for one: it answers, and calls nobody
    "federation/observing/listener.py": frozenset(
        {
            *("http.HTTPStatus", "http.server.BaseHTTPRequestHandler", "http.server.HTTPServer"),
            *("socket.AF_INET6", "socket.socket", "socketserver.TCPServer"),
        }
    ),
    # a party's own log, and the heads it cosigned of others', to whom its operator lets at it
    "federation/log_server.py": frozenset(
        {
            "http.HTTPStatus",
            "http.server.BaseHTTPRequestHandler",
            "http.server.ThreadingHTTPServer",
        }
    ),
    # a party's API, which answers its own systems: it listens, and calls nobody
    "federation/api/application.py": frozenset(
        {
            *(f"fastapi.{name}" for name in ("APIRouter", "Depends", "FastAPI", "Query")),
            *("fastapi.Request", "fastapi.exceptions.RequestValidationError", "http.HTTPStatus"),
            *(f"fastapi.responses.{kind}Response" for kind in ("", "JSON", "PlainText")),
            *("starlette.exceptions.HTTPException", "starlette.routing.Route"),
        }
    ),
    "federation/api/calls.py": frozenset(
        {
            *("fastapi.Header", "fastapi.Request", "fastapi.params.Security"),
            *("fastapi.responses.Response", "fastapi.security.HTTPBearer"),
            "fastapi.security.HTTPAuthorizationCredentials",
            "fastapi.security.utils.get_authorization_scheme_param",
        }
    ),
    "federation/api/passage.py": frozenset(
        {
            *("anyio", "anyio.move_on_after", "anyio.to_thread", "anyio.to_thread.run_sync"),
            "starlette.datastructures.Headers",
            *(f"starlette.types.{name}" for name in ("ASGIApp", "Message", "Receive", "Scope")),
            "starlette.types.Send",
        }
    ),
    "federation/api/problems.py": frozenset({"http.HTTPStatus"}),
    "federation/api/server.py": frozenset({"uvicorn", "uvicorn.Config", "uvicorn.Server"}),
    # logs that are served, for whoever audits them
    "federation/log_fetching.py": frozenset(
        {
            "urllib.error.HTTPError",
            "urllib.parse.urlsplit",
            "urllib.request",
            *(f"http.client.HTTP{name}" for name in ("Connection", "Exception", "Response")),
            "http.client.HTTPSConnection",
        }
    ),
    # a party that joins: public halves of its keys and signatures, to who invited it
    "federation/enrolment/exchange.py": frozenset(
        {
            *("http.HTTPStatus", "http.client.HTTPException", "http.client.HTTPSConnection"),
            *("ssl", "ssl.SSLCertVerificationError", "ssl.TLSVersion", "ssl.TLSVersion.TLSv1_3"),
            "ssl.create_default_context",
        }
    ),
    # the coordinator's door for parties that join, mounted in its public listener
    "federation/enrolment/app.py": frozenset(
        {
            *("anyio.CapacityLimiter", "anyio.to_thread"),
            *("asyncio", "asyncio.Semaphore", "http.HTTPStatus"),
            *(STARLETTE - {"starlette.concurrency.run_in_threadpool"}),
        }
    ),
    # that program: it runs beside our processes, never in one
    WORKER: frozenset({"spu.libpsi", "spu.libspu.link"}),
    # a party's own machines, likewise
    "federation/ray_executor.py": frozenset(
        {"ray", "ray.exceptions.RayError", "ray.exceptions.RayTaskError"}
    ),
}


@over(MODULES, ids=named)
def test_nothing_but_flower_speaks_to_a_network_or_starts_a_program(path: Path) -> None:
    assert ways_out(path) == ALLOWED.get(named(path), frozenset())


def test_the_program_of_the_direct_link_shares_nothing_with_us() -> None:
    module = WORKER.removesuffix(".py").replace("/", ".")
    assert not [named(path) for path in MODULES if module in {*imports(path), *mentions(path)}]
    imported = {name.split(".")[0] for name in imports(ROOT / WORKER)}
    assert imported - {"spu"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import urllib.request",
        "from urllib import request",
        "from concurrent.futures import process",
        "from concurrent.futures import ProcessPoolExecutor",
        "import ray",
        "from concurrent.futures.process import ProcessPoolExecutor",
        "from pyarrow import fs",
        "import pyarrow.fs as files",
        "import pyarrow as pa\npa.fs.S3FileSystem()",
        "def late():\n    import _socket",
        "import subprocess as innocent",
        "import ctypes.util",
        "import os\nos.system('ls')",
        "import os\nos.execvp('ls', [])",
        "import os as o\no.popen('ls')",
        "from os import posix_spawn",
        "from os import spawnl as x",
        "import importlib\nimportlib.import_module('socket')",
        "from importlib import import_module",
        "__import__('socket')",
        "import pandas as pd\npd.read_pickle('x')",
    ],
)
def test_a_way_out_would_be_seen(source: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert ways_out(path)


def tampering(path: Path) -> list[str]:
    """Return the lines of a module that could change, copy or forge what passed the gate."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if node.attr == "message":
                found.append(node)
        elif isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), [ast.unparse(one) for one in node.args]
            last = called.split(".")[-1]
            replaces = called in {"replace", "dataclasses.replace", "copy.replace"}
            own = given[:1] == ["self"]  # a class may make its like; Released is the gate's
            if (
                (replaces and not own)
                or last == "__replace__"
                or (last in {"setattr", "__setattr__", "__delattr__"} and "'message'" in given)
                or (last in {"setattr", "__setattr__"} and not is_text(node.args[1:2]))
                or (last == "__new__" and "Released" in ast.unparse(node))
            ):
                found.append(node)
        elif isinstance(node, ast.ClassDef) and "Released" in map(last_name, node.bases):
            found.append(node)
    return [ast.unparse(node) for node in found]


def last_name(node: ast.expr) -> str:
    return ast.unparse(node).split(".")[-1]


def is_text(arguments: list[ast.expr]) -> bool:
    return all(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in arguments)


@over([one for one in MODULES if named(one) != GATE], ids=named)
def test_what_was_released_stays_what_it_is(path: Path) -> None:
    assert not tampering(path)
    assert " replace as " not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        "released.message = other",
        "a, released.message = 1, other",
        "released.message += other",
        "released.message: object = other",
        "del released.message",
        "for released.message in others: pass",
        "replace(released, message=other)",
        "dataclasses.replace(released, message=other)",
        "setattr(released, 'message', other)",
        "setattr(released, name, other)",
        "object.__setattr__(released, 'message', other)",
        "object.__new__(Released)",
        "Released.__new__(Released)",
        "class Mine(gate.Released): pass",
    ],
)
def test_tampering_would_be_seen(source: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert tampering(path)


@over(MODULES, ids=named)
def test_entropy_has_one_source(path: Path) -> None:
    drawn = {name for name in mentions(path) if name.endswith("urandom") or ".random" in name}
    drawn |= {
        name
        for name in imports(path)
        if name.split(".")[0] in GUESSABLE or name in {"os.urandom", "os.getrandom"}
    }
    drawn |= {name for name in imports(path) if name.startswith(("numpy.random", "torch.random"))}
    if named(path) == ENTROPY:
        assert drawn == {"os.urandom"}
    elif named(path) == "federation/embedded.py":
        assert drawn <= {"uuid"}  # names of messages within one process
    else:
        assert not drawn


def test_messages_are_sealed_and_released_by_the_gate_alone() -> None:
    contracts = "compliance/agreement/signed.py"  # drafts one, without signatures
    notices = "compliance/notice.py"  # the end of one, in its author's words
    approvals = "compliance/approval.py"  # a person's, with a key that is no party's
    completions = "compliance/erasure/completion.py"  # which the gate has signed, with its key
    invitations = "federation/enrolment/invitation.py"  # before there is a contract
    assert callers("Envelope.sign") == {
        *(GATE, contracts, notices, approvals, completions, invitations)
    }
    arrived = {"federation/channel.py", "federation/exchanges.py"}
    assert callers("SealedMessage") == {GATE, *arrived}
    assert callers("Released") == {GATE}
    doors = {
        node.name
        for node in ast.walk(parsed(ROOT / GATE))
        if isinstance(node, ast.FunctionDef) and any(name == "Released" for name, _ in calls(node))
    }
    assert doors == {"release", "refuse", "recall"}
    assert [named(path) for path in MODULES if "_KEY" in mentions(path)] == [GATE]


def test_only_the_gate_encrypts_and_only_a_node_decrypts() -> None:
    shares = "privacy/secagg/keys.py"  # inside a secure aggregation: the library's, like the next
    bodies = "compliance/sealing.py"  # kept at home, under a person's own key, or an unsealing key
    assert callers("encrypt") == {GATE, "privacy/encryption.py", shares, bodies}
    assert callers("decrypt") == {"federation/node.py", "privacy/encryption.py", shares, bodies}
    challenges = "federation/enrolment/register.py"  # random bytes, to prove a key
    assert callers("EncryptionKey.from_base64") == {"federation/enclosure.py", challenges}
    proves = "federation/enrolment/joining.py"  # opens those, in a context of their own
    assert callers("decryption_key") == {"federation/node.py", "federation/party/folder.py", proves}


def test_only_the_gate_the_contract_and_the_keys_own_folder_touch_the_identity_key() -> None:
    assert callers("identity_key") == {
        GATE,
        "federation/party/folder.py",
        "federation/trial/workspace.py",
        "federation/adoption.py",  # signs agreements and notices
        "federation/enrolment/joining.py",  # proves that it is the party's
        "federation/enrolment/store.py",  # signs invitations
        "federation/training/summing.py",  # signs keys of secure sums, which leave by the gate
        "federation/spreading.py",  # signs tokens of erasures, which leave by the gate
    }


def test_a_node_answers_with_what_was_released_and_nothing_else() -> None:
    app = ROOT / "federation" / "apps" / "client_app.py"
    ((_, message),) = [call for call in calls(app) if call[0] == "Message"]
    assert ast.unparse(message.args[0]) == "_record(released)"
    assert ast.unparse(function(app, "_record").args) == "released: Released"
    records = [ast.unparse(call) for name, call in calls(app) if name.endswith("to_record")]
    assert records == ["to_record(released.message)"]
    assert not [name for name, _ in calls(app) if name.endswith("Record")]


def test_a_node_itself_says_nothing_but_why_there_is_no_answer() -> None:
    carriage = ROOT / "federation" / "apps" / "carriage.py"
    ((_, message),) = [call for call in calls(carriage) if call[0] == "Message"]
    assert ast.unparse(message.args[0]) == "Error(failure, reason)"
    launchers = ROOT / "federation" / "apps" / "launchers.py"
    reasons = [call.args[1] for name, call in calls(launchers) if name.endswith(".failed")]
    assert (
        {ast.unparse(one) for one in reasons if not isinstance(one, ast.Constant)}
        == {
            "type(error).__name__",
            "f'{self._party} runs {installed()}'",  # its name in the agreement, and this project's version
        }
    )


def test_flower_messages_are_made_in_five_places() -> None:
    assert callers("Message", "FlowerMessage") == {
        "federation/apps/carriage.py",  # names of errors, see above
        "federation/apps/client_app.py",
        "federation/channel.py",  # the coordinator's parcels, see below
        "federation/embedded.py",  # between the two, and the names of errors
        "federation/messages/sealed.py",  # ours, which is no message of Flower's
    }
    assert callers("to_record") == {"federation/apps/client_app.py", "federation/channel.py"}


def test_the_coordinator_sends_what_its_gate_released_or_what_a_party_sealed() -> None:
    path = ROOT / "federation" / "coordinator" / "conversation.py"
    assert callers("Parcel") == {named(path)}
    sent = {ast.unparse(call.args[1]) for name, call in calls(path) if name == "Parcel"}
    assert sent == {"question", "message"}
    source = ast.unparse(parsed(path))
    assert "question = self.gate.release(" in source
    assert "sealed = [self._seal(item) for item in outgoing]" in source
    assert "for name, message in sealed" in source
    seal = function(path, "_seal")
    returned = [ast.unparse(node.value) for node in ast.walk(seal) if isinstance(node, ast.Return)]
    assert {text.rsplit(", ", 1)[1] for text in returned} == {
        "item.message.sealed)",
        "self.gate.release(departure).message)",
    }


def test_an_auditor_loads_no_framework() -> None:
    modules = "compliance, compliance.agreement, compliance.log.verifier"
    assert python(LOADED, f"import {modules}") == "[]\n"


def test_the_command_line_loads_no_framework_to_explain_itself() -> None:
    program = "from federation.cli import app\napp(['--help'], standalone_mode=False)"
    assert python(LOADED, program).splitlines()[-1] == "[]"


def test_joining_and_signing_load_no_framework() -> None:
    modules = "federation.party, federation.operations.folder, federation.enrolment.joining"
    assert python(LOADED, f"import {modules}, federation.enrolment.store") == "[]\n"


def test_what_has_read_no_table_yet_loads_no_framework() -> None:
    modules = "federation.collaboration, federation.population, federation.messages"
    assert python(LOADED, f"import {modules}") == "[]\n"


def test_the_command_begins_with_a_single_thread() -> None:
    """A node sets the environment that keeps libraries from starting threads before they load."""
    program = "import os\nimport federation.cli\nprint(len(os.listdir('/proc/self/task')))\n"
    told = python(program + "import sys\nprint(sorted({'pyarrow', 'numpy'} & set(sys.modules)))")
    assert told == "1\n[]\n"


def test_the_check_for_frameworks_would_see_one() -> None:
    assert python(LOADED, "import flwr") == "['flwr']\n"


LOADED = """
import sys
exec(sys.argv[1])
print(sorted({name.split(".")[0] for name in sys.modules} & {"flwr", "torch", "opacus", "pandas"}))
"""
