"""The walk-through of docs/deploy.md, followed to the letter, each host in a network of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT

from federation.audit import verify_party
from federation.party import PartyFolder

FENCE = re.compile(r"^```(\w+) host=(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOSTS = {"coordinator": "10.77.0.1", "brand": "10.77.0.2", "retailer": "10.77.0.3"}
BIN = Path(sys.executable).parent
START_SECONDS = 60
STEP_SECONDS = 240
SCP = """#!{python}
import pathlib, shutil, sys
file, place = sys.argv[1:]
hosts = {hosts!r}
shutil.copy(file, pathlib.Path(hosts[place.removesuffix(":")]) / pathlib.Path(file).name)
"""


@dataclass(frozen=True)
class Block:
    """What is done on a host."""

    language: str
    host: str
    flags: str
    text: str


def blocks() -> list[Block]:
    page = (ROOT / "docs" / "deploy.md").read_text()
    return [Block(*found) for found in FENCE.findall(page)]


def networks_can_be_made() -> bool:
    tools = all(map(shutil.which, ("unshare", "nsenter", "ip")))
    return (
        tools
        and subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode
        == 0
    )


@contextmanager
def networks() -> Iterator[Mapping[str, int]]:
    """A network namespace for each host, joined by a switch; yields a process in each.

    They go when these processes do: nothing of the machine's own network is touched.
    """
    with ExitStack() as stack:

        def held() -> int:
            process = stack.enter_context(subprocess.Popen(["unshare", "-n", "sleep", "600"]))
            stack.callback(process.kill)
            own = Path("/proc/self/ns/net").readlink()
            end = time.monotonic() + 10
            while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
                assert time.monotonic() < end
                time.sleep(0.01)
            return process.pid

        def ip(pid: int, *arguments: str) -> None:
            subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *arguments], check=True)

        switch = held()
        ip(switch, "link", "add", "br0", "type", "bridge")
        ip(switch, "link", "set", "br0", "up")
        found = {}
        for name, address in HOSTS.items():
            host = found[name] = held()
            peer = ("type", "veth", "peer", "name", "eth0", "netns", str(host))
            ip(switch, "link", "add", name, *peer)
            ip(switch, "link", "set", name, "master", "br0", "up")
            ip(host, "addr", "add", f"{address}/24", "dev", "eth0")
            ip(host, "link", "set", "eth0", "up")
            ip(host, "link", "set", "lo", "up")
        yield found


@dataclass
class Hosts:
    """Three hosts: a folder each, and a network where networks can be made."""

    path: Path
    processes: Mapping[str, int]
    staying: list[tuple[Block, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def command(self, block: Block) -> list[str]:
        shell = ["bash", "-euc", block.text]
        if block.host not in self.processes:
            return shell
        return ["nsenter", "-t", str(self.processes[block.host]), "-n", *shell]

    def environment(self, host: str) -> dict[str, str]:
        clean = {name: one for name, one in os.environ.items() if not name.startswith("FLWR_")}
        return clean | {
            "PATH": f"{self.path}/bin:{BIN}:{os.environ['PATH']}",
            "HOME": str(self.path / host),
        }

    def follow(self, block: Block) -> str:
        """Do what a block says, and say yes to whatever is asked."""
        place = self.path / block.host
        if file := re.search(r"file=(\S+)", block.flags):
            (place / file[1]).write_text(block.text)
            return ""
        if "stays" in block.flags.split():
            return self.start(block)
        done = subprocess.run(
            self.command(block),
            cwd=place,
            env=self.environment(block.host),
            input="yes\n",
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block.host}: {block.text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, block: Block) -> str:
        told = self.path / f"{block.host}-{len(self.staying)}.output"
        with told.open("wb") as output:
            process = subprocess.Popen(
                self.command(Block(block.language, block.host, "", f"exec {block.text}")),
                cwd=self.path / block.host,
                env=self.environment(block.host),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.staying.append((block, process, told))
        end = time.monotonic() + START_SECONDS
        while not told.read_text():
            assert process.poll() is None, f"{block.host} ended: {block.text}"
            assert time.monotonic() < end, f"{block.host} says nothing: {block.text}"
            time.sleep(0.05)
        return ""

    def end(self) -> dict[str, int]:
        """End what stays, nodes first; returns how each ended."""
        codes = {}
        for block, process, _ in reversed(self.staying):
            process.send_signal(signal.SIGTERM)
            codes[f"{block.host}: {block.text.split()[1]}"] = process.wait(timeout=START_SECONDS)
        return codes


@pytest.mark.deployment
def test_following_the_walk_through_ends_with_a_model(small_data: Path, tmp_path: Path) -> None:
    addresses = {address: str(tmp_path / name) for name, address in HOSTS.items()}
    tables = {"brand": "brand_seeds", "retailer": "retailer"}
    for name in HOSTS:
        (tmp_path / name).mkdir()
    for name, table in tables.items():
        shutil.copy(small_data / f"{table}.csv.gz", tmp_path / name / "people.csv.gz")
        consents = small_data / f"{name}_consents.csv.gz"
        shutil.copy(consents, tmp_path / name / "consents.csv.gz")
    scp = tmp_path / "bin" / "scp"
    scp.parent.mkdir()
    scp.write_text(SCP.format(python=sys.executable, hosts=addresses))
    scp.chmod(0o755)
    with ExitStack() as stack:
        if not networks_can_be_made():
            pytest.skip("follows the addresses of the page, in networks that only root can make")
        hosts = Hosts(tmp_path, stack.enter_context(networks()))
        begun = time.monotonic()
        try:
            for block in blocks():
                hosts.follow(block)
            seconds = time.monotonic() - begun
        except BaseException as error:
            for block, _, told in hosts.staying:
                error.add_note(f"--- {block.host}: {block.text}{told.read_text()[-3000:]}")
            raise
        finally:
            codes = hosts.end()
    assert seconds < 600
    assert set(codes.values()) == {0}, codes
    folders = {name: PartyFolder(tmp_path / name / name) for name in tables}
    folders["coordinator"] = PartyFolder(tmp_path / "coordinator" / "coordinator" / "party")
    agreements = {folder.agreement().digest for folder in folders.values()}
    assert len(agreements) == 1
    models = {folders[name].model("lookalike-model").read_bytes() for name in tables}
    assert len(models) == 1
    for folder in folders.values():
        assert verify_party(folder.path).leaves


def test_no_secret_of_one_host_is_on_another() -> None:
    """What the page has people carry are invitations, and nothing else."""
    carried = [line for block in blocks() for line in block.text.splitlines() if "scp " in line]
    assert [line.split()[1] for line in carried] == ["brand.invitation", "retailer.invitation"]
