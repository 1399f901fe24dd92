"""Verifiers that others wrote accept our logs: Go's sumdb packages and PyPI's `tlog-scales`."""

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

from compliance.log.cosignature import CosigningKey
from compliance.log.files import LocalFiles
from compliance.log.note import NoteKey
from compliance.log.proving import TiledTree
from compliance.log.verifier import read_checkpoint
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey, encode_base64

KEY = SigningKey.from_seed(b"k" * 32)
ORIGIN = "comity/example"
SECOND = CosigningKey.from_seed(ORIGIN, b"s" * 32)
VKEY = NoteKey(ORIGIN, KEY.public).to_string()
SIZES = (1, 2, 255, 256, 257, 65_535, 65_536, 65_537)
GO_PATH = Path("/usr/share/gocode")
"""Where Debian's golang-golang-x-mod-dev puts its source."""


class FastFiles(LocalFiles):
    def sync(self, paths: Collection[Path]) -> None:
        assert all(path.exists() for path in paths)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One log, copied each time that it has one of the sizes."""
    base = tmp_path_factory.mktemp("foreign")
    found = {}
    with LogWriter.open(
        base / "log", origin=ORIGIN, key=KEY, second_key=SECOND, files=FastFiles()
    ) as log:
        for size in SIZES:
            log.append([b'{"entry":%d}' % index for index in range(log.tree_size, size)])
            found[size] = base / str(size)
            shutil.copytree(base / "log", found[size], copy_function=os.link)
            (found[size] / "checkpoint").unlink()
            shutil.copy(base / "log" / "checkpoint", found[size])
    return found


@pytest.fixture(scope="module")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: apt-get install golang-go")
    if not (GO_PATH / "src/golang.org/x/mod/sumdb").is_dir():
        pytest.skip("golang.org/x/mod is not: apt-get install golang-golang-x-mod-dev")
    work = tmp_path_factory.mktemp("go")
    source = Path(__file__).parent / "foreign" / "verify.go"
    environment = os.environ | {
        "GOPATH": str(GO_PATH),
        "GO111MODULE": "off",
        "GOCACHE": str(work / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    command = [go, "build", "-o", str(work / "verify"), str(source)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return work / "verify"


def test_go_accepts_our_logs_of_every_size(logs: dict[int, Path], go_verifier: Path) -> None:
    command = [str(go_verifier), VKEY, *(str(logs[size]) for size in SIZES)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert [(origin, int(size)) for origin, size, _ in lines] == [(ORIGIN, size) for size in SIZES]
    for size, (_, _, root) in zip(SIZES, lines, strict=True):
        assert root == read_checkpoint(logs[size]).decode().split("\n")[2]


def test_go_refuses_a_changed_log(logs: dict[int, Path], go_verifier: Path, tmp_path: Path) -> None:
    for name in ("checkpoint", "tile/0/000.p/2", "tile/entries/000.p/2"):
        copy = shutil.copytree(logs[2], tmp_path / name.replace("/", "-"))
        data = bytearray((copy / name).read_bytes())
        data[10] ^= 1
        (copy / name).unlink()
        (copy / name).write_bytes(data)
        run = subprocess.run([str(go_verifier), VKEY, str(copy)], check=False, capture_output=True)
        assert run.returncode == 1, name


@pytest.mark.parametrize("size", SIZES)
def test_tlog_scales_accepts_our_logs(logs: dict[int, Path], size: int) -> None:
    reason = "tlog-scales is not installed"
    signing = pytest.importorskip("tlog_scales.signing", reason=reason)
    reader_module = pytest.importorskip("tlog_scales.reader", reason=reason)
    backend = pytest.importorskip("tlog_scales.backend", reason=reason)
    reader = reader_module.TilesReader(backend.LocalBackend(logs[size]))
    head = reader.get_checkpoint()
    assert (head.origin, head.size) == (ORIGIN, size)
    assert reader.calculate_root_hash() == head.root_hash
    for vkey in (VKEY, SECOND.public.to_string()):
        key = signing.Vkey.from_string(vkey)
        (line,) = [one for one in head.signatures if key.match(one)]
        key.get_verifier().verify_note(line, head)
    with LogWriter.open(
        logs[size], origin=ORIGIN, key=KEY, second_key=SECOND, files=FastFiles()
    ) as log:
        tree = TiledTree(logs[size], log.checkpoint)
    for index in {0, size // 2, size - 1}:
        assert reader.get_entry(index) == b'{"entry":%d}' % index == tree.entry(index)
        theirs = reader.get_inclusion_proof(index, size)
        assert list(tree.inclusion_proof(index)) == theirs.node_hashes
        grown = reader.get_consistency_proof(index + 1, size)
        assert list(tree.unverified_consistency_proof(index + 1)) == grown.node_hashes
    assert encode_base64(head.root_hash).encode() in read_checkpoint(logs[size])
