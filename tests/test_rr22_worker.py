"""The program's script, run as a program, with a stand-in for `spu`'s two compiled modules."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from federation.rr22 import program as module

LIBPSI = """
import json, os, time
from pathlib import Path

class PsiProtocol:
    PROTOCOL_RR22 = "RR22"

def told(name):
    return lambda *positional, **named: {"is": name, "of": positional, **named}

PsiExecuteConfig, PsiProtocolConfig, Rr22Rarams, InputParams, OutputParams = map(
    told, ("config", "protocol", "rr22", "input", "output")
)

class Report:
    intersection_count = 7

def psi_execute(config, context):
    print("a line of the log that names ann@gmx.net", flush=True)
    trace = Path(f"/tmp/psi_standin{os.getpid()}.trace")
    trace.write_text("")
    os.system(f"echo Trace has been written to {trace}.")
    Path("asked.json").write_text(json.dumps([config, context.told]))
    if "fails" in config["of"][1]["path"]:
        raise RuntimeError("could not read ann@gmx.net")
    if "sleeps" in config["of"][1]["path"]:
        time.sleep(60)
    return Report()
"""
LINK = """
class Desc:
    def __init__(self): self.parties = []
    def add_party(self, name, place): self.parties.append((name, place))

class Context:
    def stop_link(self): pass

def create_brpc(described, rank):
    context = Context()
    context.told = {"rank": rank, **vars(described)}
    return context
"""
RUN = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"


@pytest.fixture
def spu(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for file, content in {
        "spu/__init__.py": "raise ImportError('this would load JAX')",
        "spu/libpsi.py": LIBPSI,
        "spu/libspu/__init__.py": "",
        "spu/libspu/link.py": LINK,
        "spu-0.9.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: spu\nVersion: 0.9.5\n",
    }.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(content)
    return site


def start(spu: Path, directory: Path) -> subprocess.Popen[str]:
    directory.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", RUN, spu, module._WORKER],
        cwd=directory,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def question(learns: bool, file: str = "own.csv") -> str:
    asked = {
        "learns": learns,
        "input": file,
        "output": "found.csv",
        "own": "unix:/x/own.sock",
        "peer": "unix:/x/peer.sock",
        "seconds": 300,
    }
    return json.dumps(asked) + "\n"


@pytest.mark.parametrize("learns", [True, False])
def test_it_matches_in_fast_mode_and_for_the_learner_alone(
    spu: Path, tmp_path: Path, learns: bool
) -> None:
    directory = tmp_path / "run"
    with start(spu, directory) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(question(learns))
        program.stdin.flush()
        assert json.loads(program.stdout.readline()) == {"ready": True}
        assert not (directory / "asked.json").exists()
        program.stdin.write("go\n")
        program.stdin.flush()
        assert json.loads(program.stdout.readline()) == {"done": 7 if learns else 0}
        assert program.wait(20) == 0  # before standard input is closed, which would sweep up
    config, told = json.loads((directory / "asked.json").read_text())
    protocol, own, found = config["of"]
    assert protocol["of"] == ["RR22"]
    assert protocol["rr22_params"]["low_comm_mode"] is False
    assert (protocol["receiver_rank"], protocol["broadcast_result"]) == (0, False)
    assert own["path"] == str(directory / "own.csv")
    assert found["path"] == str(directory / "found.csv")
    assert told["rank"] == (0 if learns else 1)
    places = [["learner", "unix:/x/own.sock"], ["peer", "unix:/x/peer.sock"]]
    if not learns:
        places = [["learner", "unix:/x/peer.sock"], ["peer", "unix:/x/own.sock"]]
    assert told["parties"] == places
    assert "psi_standin" in (directory / "log").read_text()  # whatever TMPDIR says
    assert not Path(f"/tmp/psi_standin{program.pid}.trace").exists()  # noqa: S108
    assert (directory / "log").stat().st_mode & 0o777 == 0o600


def test_a_failure_is_one_word(spu: Path, tmp_path: Path) -> None:
    with start(spu, tmp_path / "run") as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(question(True, "fails.csv") + "go\n")
        program.stdin.flush()
        said = program.stdout.read()
    assert list(map(json.loads, said.splitlines())) == [{"ready": True}, {"failed": "match"}]


def test_another_release_of_spu_is_not_used(spu: Path, tmp_path: Path) -> None:
    metadata = spu / "spu-0.9.5.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("0.9.5", "0.9.6"))
    with start(spu, tmp_path / "run") as program:
        said, _ = program.communicate(question(True), timeout=60)
    assert json.loads(said) == {"failed": "environment"}


def test_when_its_party_is_gone_it_leaves_nothing(spu: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with start(spu, directory) as program:
        assert program.stdin is not None
        program.stdin.write(question(True, "sleeps.csv") + "go\n")
        program.stdin.flush()
        for _ in range(300):
            if (directory / "asked.json").exists():
                break
            time.sleep(0.1)
        program.stdin.close()
        assert program.wait(20) == 1
    assert not directory.exists()
    assert not Path(f"/tmp/psi_standin{program.pid}.trace").exists()  # noqa: S108
