"""A direct link to another party: a tunnel between two programs, each in its own environment.

```
 program (spu) ──own.sock── this module ══ TLS 1.3, both sides pinned ══ the other party's ── …
      └────────peer.sock────┘
```

The program speaks over two sockets in a directory that its party alone may enter, and to no
network: of itself, spu would take plain connections beside those with TLS. This module joins the
sockets to two TLS connections, one for each side's calls. All that a program leaves lies in that
directory, which is removed at the end; what a crash left is removed at the next link, and the
program removes itself and the directory when its party's process is gone.

Guarantees: both sides prove that they hold the key of the very certificate that the other was told
before, and that they are at the same bucket of the same attempt, before a byte of a program's is
carried; nothing else is answered. Time and what is buffered are bounded. Every failure is one of
ours, and nothing that a program says of one is quoted.

Leaves to others: whether the link may be opened at all (`gate`), what is matched
(`privacy.psi.rr22`).
"""

import asyncio
import shutil
import ssl
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import PartyUnreachableError, WorkspaceError
from federation.party import write_atomically
from federation.rr22.configuration import Rr22Config
from federation.rr22.program import Program, write_tags
from privacy.certificates import OwnCertificate
from privacy.errors import WorkerError
from privacy.randomness import new_secret

__all__ = ["DirectLink", "Found"]

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- the directory in it is this user's alone
_CHUNK_BYTES: Final = 1 << 18
_BINDING_BYTES: Final = 32
_RETRY_SECONDS: Final = 0.1
_MEETING_SECONDS: Final = 120.0
_FINDING_SECONDS: Final = 90.0
_MATCHING_SECONDS: Final = 300.0  # a coordinator waits ten minutes for an answer, by default
_PARTING_SECONDS: Final = 10.0
_HANDSHAKE_SECONDS: Final = 10.0
_STREAMS: Final = 2
_READY: Final = b"\n"
_GREETING_BYTES: Final = 4_096
_TRIES: Final = 2
_STALLED: Final = 0.9
_LONGEST_PLACE: Final = 107  # bytes in the name of a socket

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Found:
    """What a link ended with.

    Attributes:
        tags: those that both sides have, shape (m, 16); none at the side that does not learn.
        received_bytes: what came from the other party, inside TLS.
        sent_bytes: what went there.
    """

    tags: NDArray[np.uint8]
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class DirectLink:
    """One side of a link, for one bucket.

    Attributes:
        config: the party's.
        peer: the other party's name, for messages.
        own: this side's certificate.
        peer_certificate: the other's, in PEM, as it was told.
        dial: where the other waits; None where this side waits.
        binding: names bucket and attempt, the same 32 bytes at both sides.
        learns: whether this side learns the result.
        scratch: directory that is made for the program, and removed.
    """

    config: Rr22Config
    peer: str
    own: OwnCertificate
    peer_certificate: str
    dial: str | None
    binding: bytes
    learns: bool
    scratch: Path

    @staticmethod
    def scratch_of(config: Rr22Config, name: str) -> Path:
        """Return the directory for the program's files: in memory where that can be."""
        import tempfile

        above = config.scratch or (_IN_MEMORY if _IN_MEMORY.is_dir() else tempfile.gettempdir())
        return Path(above) / f"comity-{name}"

    def match(self, tags: NDArray[np.uint8]) -> Found:
        """Match tags, shape (n, 16), with the other side's.

        1. Write them where only this user reads.
        2. Wait for the other side, or go to it; prove each to each who and where it is.
        3. Start the program; once both sides' are ready, let it go, carry what it says to and
           fro, and wait for its one answer.
        4. Read what it found; remove everything.

        Raises:
            WorkspaceError: the environment, the address or the directory is not what it must be.
            PartyUnreachableError: the other side did not come in time, proved to be somebody
                else, was at another bucket, or went away.
            WorkerError: the program failed, was killed, took too long, or told what cannot be.
        """
        if len(str(self.scratch / "peer.sock").encode()) > _LONGEST_PLACE:
            raise WorkspaceError(
                f"{self.scratch} is too long for a socket in it: name another rr22.scratch"
            )
        with _private(self.scratch):
            write_tags(self.scratch, tags)  # 1
            return asyncio.run(self._match(len(tags)))

    async def _match(self, count: int) -> Found:
        for _ in range(_TRIES):
            with suppress(_StalledError):
                return await self._try(count)
        raise WorkerError(
            f"the programs at both ends of the direct link to {self.peer} did not find each other: "
            "see that both machines are not overloaded, then run again"
        )

    async def _try(self, count: int) -> Found:
        tunnel = _Tunnel(self)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(tunnel.close)
            try:
                async with asyncio.timeout(_MEETING_SECONDS):
                    await tunnel.meet()  # 2
            except TimeoutError as error:
                raise PartyUnreachableError(
                    f"{self.peer} did not come to the direct link {self._place} within "
                    f"{_MEETING_SECONDS:g} s: see that it can be reached there, then run again"
                ) from error
            program = await self._start()
            stack.push_async_callback(program.end)
            try:
                async with asyncio.timeout(_MATCHING_SECONDS):
                    told = await self._answer(program, tunnel)  # 3
            except TimeoutError as error:
                raise WorkerError(
                    f"a bucket took more than {_MATCHING_SECONDS:g} s over the direct link to "
                    f"{self.peer}: it was given up; see that both machines are not overloaded"
                ) from error
        tags = program.found(told, most=count)  # 4
        return Found(tags, tunnel.received_bytes, tunnel.sent_bytes)

    @property
    def _place(self) -> str:
        return f"at {self.dial}" if self.dial else f"at {self.config.listen}, where we wait"

    async def _start(self) -> Program:
        return await Program.start(
            self.config.python,
            self.scratch,
            peer=self.peer,
            learns=self.learns,
            seconds=_MATCHING_SECONDS,
        )

    async def _answer(self, program: Program, tunnel: "_Tunnel") -> object:
        """Bring both programs together, and wait for ours to answer while the tunnel is there."""
        await program.ready()
        try:
            await tunnel.agree()
        except (OSError, EOFError) as error:
            raise self._broken() from error
        program.go()
        answer = asyncio.create_task(program.answer())
        carrying = asyncio.create_task(tunnel.carry())
        both = {answer, carrying}
        begun = asyncio.get_running_loop().time()
        try:
            await asyncio.wait(both, timeout=_FINDING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            waited = asyncio.get_running_loop().time() - begun
            if not answer.done() and tunnel.is_idle and waited > _STALLED * _FINDING_SECONDS:
                raise _StalledError  # the other side says so at about the same time
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():  # the other side may part first; then this one ends soon
                await asyncio.wait({answer}, timeout=_PARTING_SECONDS)
            if not answer.done():
                raise self._broken()
            told = await answer
            await asyncio.wait({carrying}, timeout=_PARTING_SECONDS)  # the other hears the end
            return told
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    def _broken(self) -> PartyUnreachableError:
        return PartyUnreachableError(
            f"the direct link to {self.peer} broke while a bucket was matched: run again; finished "
            "buckets are kept"
        )


class _StalledError(Exception):
    """The two programs wait for each other, as spu's do when one was late."""


class _Tunnel:
    """Two TLS connections to the other party, each joined to one socket of the program's.

    Connection 0 carries what the program of the side that dials asks, connection 1 what the other
    program asks. Both are made by the side that dials.
    """

    def __init__(self, link: DirectLink) -> None:
        self._link = link
        self._streams: dict[int, _Streams] = {}
        self._complete = asyncio.Event()
        self._called: asyncio.Future[_Streams] = asyncio.get_running_loop().create_future()
        self._servers: list[asyncio.Server] = []
        self.received_bytes = self.sent_bytes = 0

    async def meet(self) -> None:
        """Make, or wait for, both connections; listen for the program."""
        link = self._link
        context = self._context()
        place = link.scratch / "peer.sock"
        self._servers.append(await asyncio.start_unix_server(self._call, place))
        if link.dial is not None:
            for label in range(_STREAMS):
                self._streams[label] = await self._dial(label, context)
            return
        host, port = _split(link.config.listen or "")
        try:
            server = await asyncio.start_server(
                self._greet, host, port, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
        except OSError as error:
            raise WorkspaceError(
                f"rr22.listen {link.config.listen} cannot be listened at: {error.strerror}"
            ) from error
        self._servers.append(server)
        await self._complete.wait()
        server.close()  # nobody else is waited for

    async def agree(self) -> None:
        """Tell the other side that our program is ready, and wait until its is.

        Raises:
            OSError, EOFError: the other side has gone.
        """
        reader, writer = self._streams[0]
        writer.write(_READY)
        await reader.readexactly(len(_READY))

    async def carry(self) -> None:
        """Carry what the programs say until they part."""
        mine = 0 if self._link.dial is not None else 1
        await asyncio.gather(
            self._join(self._streams[mine], self._called),
            self._join(self._streams[1 - mine], self._reach()),
        )

    @property
    def is_idle(self) -> bool:
        """Whether the programs have hardly said more than who they are."""
        return self.received_bytes + self.sent_bytes < _GREETING_BYTES

    async def close(self) -> None:
        """Give up everything that is open."""
        for server in self._servers:
            server.close()
        for _, writer in self._streams.values():
            writer.close()
        for _, writer in self._streams.values():
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _RETRY_SECONDS)

    def _context(self) -> ssl.SSLContext:
        """Trust the one certificate that was told, and show our own."""
        link = self._link
        role = ssl.PROTOCOL_TLS_SERVER if link.dial is None else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(role)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the certificate itself is known, not a name in it
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=link.peer_certificate)
        file = link.scratch / "certificate.pem"
        password = new_secret().hex()  # a file that is removed may stay on a disk
        content = (link.own.key_pem_under(password) + link.own.pem).encode()
        write_atomically(file, content, mode=0o600)
        context.load_cert_chain(file, password=password)
        file.unlink()
        return context

    def _is_told(self, writer: asyncio.StreamWriter) -> bool:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return bool(shown == ssl.PEM_cert_to_DER_cert(self._link.peer_certificate))

    async def _dial(self, label: int, context: ssl.SSLContext) -> _Streams:
        link = self._link
        host, port = _split(link.dial or "")
        while True:
            try:
                streams = await asyncio.open_connection(
                    host, port, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS
                )
                break
            except ssl.SSLError as error:
                raise self._somebody_else() from error
            except (OSError, EOFError):  # not there yet
                await asyncio.sleep(_RETRY_SECONDS)
        reader, writer = streams
        said = link.binding + bytes([label])
        try:
            if not self._is_told(writer):
                raise self._somebody_else()
            writer.write(said)
            if await reader.readexactly(len(said)) != said:
                raise self._somebody_else()
        except (ssl.SSLError, OSError, EOFError) as error:
            raise self._somebody_else() from error
        return streams

    def _somebody_else(self) -> PartyUnreachableError:
        link = self._link
        return PartyUnreachableError(
            f"who answers at {link.dial} is not {link.peer} at this bucket, or does not take us "
            "for who we are: see that the address is right, then run the job again"
        )

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection of the other party's; part from any other."""
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                said = await reader.readexactly(_BINDING_BYTES + 1)
                label = said[-1]
                fits = said[:-1] == self._link.binding and label < _STREAMS
                if not self._is_told(writer) or not fits or label in self._streams:
                    writer.close()
                    return
                self._streams[label] = reader, writer
                writer.write(said)
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            writer.close()
            return
        if len(self._streams) == _STREAMS:
            self._complete.set()

    def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the one call of our program."""
        if self._called.done():
            writer.close()
        else:
            self._called.set_result((reader, writer))

    async def _reach(self) -> _Streams:
        """Connect to our program, once it listens."""
        place = self._link.scratch / "own.sock"
        while True:
            try:
                return await asyncio.open_unix_connection(place)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS / 10)

    async def _join(self, outside: _Streams, inside: Awaitable[_Streams]) -> None:
        local = await inside
        await asyncio.gather(
            self._pump(outside[0], local[1], inwards=True),
            self._pump(local[0], outside[1], inwards=False),
        )

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, inwards: bool
    ) -> None:
        """Carry one way until the source ends; the sink takes no more than it can hold."""
        with suppress(OSError):
            while chunk := await source.read(_CHUNK_BYTES):
                if inwards:
                    self.received_bytes += len(chunk)
                else:
                    self.sent_bytes += len(chunk)
                sink.write(chunk)
                await sink.drain()
        sink.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@contextmanager
def _private(directory: Path) -> Iterator[None]:
    """Make a directory that only this user may enter, and remove it; what a crash left, first."""
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise WorkspaceError(
            f"{directory} cannot be made for a direct match: {error.strerror}: remove what is "
            "there, or name another rr22.scratch"
        ) from error
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)
