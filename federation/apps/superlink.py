"""A node's end of the line to a SuperLink: Flower's Fleet interface, and nothing beside it.

Guarantees: the line is TLS, and the SuperLink knows the node by its key; a SuperLink that is away
is called again until it is back, and one that began anew is told who this is; whatever else it says
becomes an error of ours. No port is opened
here. How long an answer took is not told.

Leaves to others: what is done with a message (`launchers`), who may ask (`compliance`). It leans on
names of Flower that are not public; `tests/test_node_process.py` fails when they move.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from httpx import HTTPStatusError, TransportError

from federation.apps.bounded import bound_answers
from federation.apps.carriage import CarriedMessage
from federation.apps.credential import MOST_APART, Credential, apart
from federation.apps.piggyback import RIDING_BYTES, riders, with_riders, with_wish
from federation.apps.roots import warn_of_end
from federation.clock import Clock, utc_now
from federation.errors import SuperLinkError, WorkspaceError
from federation.messages import MAX_PAYLOAD_BYTES
from federation.observing.events import Event, Notice

__all__ = ["MessageTooLargeError", "RunOverError", "SuperLink"]

_HEARTBEAT_SECONDS: Final = 0.6 * HEARTBEAT_DEFAULT_INTERVAL
_FAILED: Final = 500
"""How Flower answers where it cannot write its state, and of a run that it does not know."""
_AWAY: Final = frozenset({_FAILED, 502, 503, 504})
_OVER: Final = 403
"""How Flower answers what belongs to a run that has ended, or a question for one it knows not."""
_STRANGE: Final = 401
"""How Flower answers whoever it does not know by this number."""
_TAKEN: Final = ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
"""How Flower answers a node that begins where it takes that node for connected, or has no key."""
_TAKEN_SECONDS: Final = (HEARTBEAT_PATIENCE + 1) * HEARTBEAT_DEFAULT_INTERVAL
"""After so long it takes nobody for connected of whom it has not heard."""
_MOST_AT_ONCE: Final = 2 * RIDING_BYTES
"""Bytes of an answer: of what rides, or of an object, which Flower cuts at 5 MiB."""
_MOST_IN_ALL: Final = MAX_PAYLOAD_BYTES + (1 << 20)
"""Bytes of a message: of a payload, its envelope, and what Flower writes around them."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_OBJECT_PAUSE: Final = 0.02
_OBJECT_PATIENCE: Final = 60.0

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


class RunOverError(SuperLinkError):
    """The run that a message belongs to has ended."""


class MessageTooLargeError(SuperLinkError):
    """A message has more bytes than any may have; the rest of it was not read."""


class SuperLink:
    """The SuperLink that a node is connected to; `connected` makes one.

    Attributes:
        node_id: the number that the SuperLink knows this node by.
    """

    def __init__(
        self,
        client: FleetHttpClient,
        address: str,
        key: ec.EllipticCurvePublicKey,
        tell: Callable[[str], None],
        heard: Callable[[], None],
        clock: Clock = utc_now,
    ) -> None:
        bound_answers(client._client, address, most=_MOST_AT_ONCE)  # noqa: SLF001 -- before it is called
        self._client = client
        self._address = address
        self._tell = tell
        self._heard = heard
        self._clock = clock
        self._returning = threading.Lock()
        self._introduction = ActivateNodeRequest(
            public_key=public_key_to_bytes(key), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        self.node_id = 0
        self.node_id = self._call(client.ActivateNode, self._introduction).node_id

    @property
    def _node(self) -> Node:
        return Node(node_id=self.node_id)

    @classmethod
    @contextmanager
    def connected(
        cls,
        address: str,
        *,
        root_certificates: Path | None,
        key: ec.EllipticCurvePrivateKey,
        tell: Callable[[str], None],
        heard: Callable[[], None] = lambda: None,
        clock: Clock = utc_now,
    ) -> Iterator[Self]:
        """Connect for the length of the block, and say good-bye after it.

        Args:
            address: host:port.
            root_certificates: file of them, PEM; those that httpx trusts where left out.
            key: the node's.
            tell: told in one line that the SuperLink is away, or back.
            heard: called whenever it has answered, by two threads.
            clock: this machine's.

        Raises:
            WorkspaceError: the file holds no certificates.
            SuperLinkError: it does not take this node, its certificate is another's, or clocks are
                too far apart.
        """
        public = key.public_key()
        roots = None if root_certificates is None else root_certificates.read_bytes()
        version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        try:
            client = FleetHttpClient.from_server_address(
                address,
                insecure=False,
                root_certificates=roots,
                interceptors=[version, Credential(key, tell=tell, clock=clock)],
            )
            if roots is not None and root_certificates is not None:
                warn_of_end(roots, root_certificates, tell, clock())
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise WorkspaceError(f"{root_certificates} holds no certificates in PEM") from error
        with client:
            link = cls(client, address, public, tell, heard, clock)
            ended = threading.Event()
            heart = threading.Thread(target=link._beat, args=(ended,), daemon=True)
            heart.start()
            try:
                yield link
            finally:
                ended.set()
                with suppress(HTTPStatusError, TransportError, SuperLinkError):
                    client.DeactivateNode(DeactivateNodeRequest(node_id=link.node_id))

    def pull(self) -> CarriedMessage | None:
        """Return the next message for this node, whole, if there is one.

        Raises:
            RunOverError: the SuperLink began anew, or has not all of the message.
            MessageTooLargeError: it has more bytes than any may have.
        """
        request = with_wish(PullMessagesRequest(node=self._node))
        answer = self._call(self._client.PullMessages, request)
        if not answer.messages_list:
            return None
        head, tree = answer.messages_list[0], answer.message_object_trees[0]
        run, root = head.metadata.run_id, head.metadata.message_id
        names = dict.fromkeys(one.object_id for one in iterate_object_tree(tree))
        objects = riders(answer.SerializeToString())
        if names.keys() <= objects.keys():  # nothing more is kept for this node
            return CarriedMessage(head, tree, objects)
        objects, size = {}, 0
        for name in names:
            objects[name] = self._pull_object(run, name)
            size += len(objects[name])
            if size > _MOST_IN_ALL:
                raise MessageTooLargeError(
                    f"a message has more than {_MOST_IN_ALL} bytes: not read"
                )
        self._call(
            self._client.ConfirmMessageReceived,
            ConfirmMessageReceivedRequest(node=self._node, run_id=run, message_object_id=root),
            run=run,
        )
        return CarriedMessage(head, tree, objects)

    def push(self, answer: CarriedMessage) -> None:
        """Hand an answer in.

        Raises:
            RunOverError: nobody waits for it any more.
        """
        run = answer.head.metadata.run_id
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[answer.head],
            message_object_trees=[answer.tree],
        )
        if answer.size <= RIDING_BYTES:
            with_riders(request, answer.objects.values())
        taken = self._call(self._client.PushMessages, request, run=run)
        for name in taken.objects_to_push:
            self._call(
                self._client.PushObject,
                PushObjectRequest(
                    node=self._node,
                    run_id=run,
                    object_id=name,
                    object_content=answer.objects[name],
                    session_id=taken.session_id,
                ),
                run=run,
            )

    def bundle_of(self, run: int) -> bytes:
        """Return the app bundle that a run was started with.

        Raises:
            RunOverError: it has ended.
        """
        found = self._call(self._client.GetRun, GetRunRequest(node=self._node, run_id=run)).run
        wanted = GetFabRequest(node=self._node, hash_str=found.fab_hash, run_id=run)
        return bytes(self._call(self._client.GetFab, wanted).fab.content)

    def _pull_object(self, run: int, name: str) -> bytes:
        """Return an object, which may come a little later than the message that it is part of."""
        request = PullObjectRequest(node=self._node, run_id=run, object_id=name)
        end = time.monotonic() + _OBJECT_PATIENCE
        while True:
            answer = self._call(self._client.PullObject, request, run=run)
            if answer.object_available:
                return bytes(answer.object_content)
            if not answer.object_found or time.monotonic() > end:
                raise RunOverError(f"the SuperLink at {self._address} has not all of a message")
            time.sleep(_OBJECT_PAUSE)

    def _beat(self, ended: threading.Event) -> None:
        """Tell the SuperLink again and again that this node is there."""
        while not ended.is_set():
            taken, number = False, self.node_id
            request = SendNodeHeartbeatRequest(
                node=Node(node_id=number), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
            )
            try:
                taken = self._client.SendNodeHeartbeat(request).success
                self._heard()
            except HTTPStatusError as error:
                taken = error.response.status_code == _STRANGE and self._returns(number)
            except (TransportError, ValueError, SuperLinkError):
                pass  # whoever waits for messages meets it too, and says so
            ended.wait(_HEARTBEAT_SECONDS if taken else 1.0)

    def _call(
        self,
        method: Callable[[_Request], _Answer],
        request: _Request,
        *,
        run: int | None = None,
    ) -> _Answer:
        """Call the SuperLink until it answers, or knows no longer which run is spoken of."""
        pause, away, lost = _FIRST_PAUSE, False, -math.inf
        number = getattr(getattr(request, "node", None), "node_id", 0)
        while True:
            try:
                answer = method(request)
            except (TransportError, ValueError) as error:
                told, lost = self._unheard(error), time.monotonic()
            except HTTPStatusError as error:
                told = self._refused(error, run, number, time.monotonic() - lost)
                lost = time.monotonic() if error.response.status_code in _AWAY else lost
            else:
                self._heard()
                if away:
                    words = f"the SuperLink at {self._address} is back"
                    self._tell(Notice(Event.SUPERLINK_BACK, words))
                return answer
            if not away:
                words = f"{told}: calling again until it answers"
                self._tell(Notice(Event.SUPERLINK_AWAY, words))
            away = True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _unheard(self, error: TransportError | ValueError) -> str:
        """Return why there is no answer, where it may come if one calls again."""
        if isinstance(error, ValueError):  # no message of Flower's
            raise SuperLinkError(
                f"what answers at {self._address} is no SuperLink: name the right address"
            ) from error
        if re.search("certificate[ _]verify[ _]failed", str(error), re.IGNORECASE):
            raise SuperLinkError(
                f"{self._address} is not the SuperLink whose root certificate was given "
                f"({error}): name the right address or certificate"
            ) from error
        return f"no SuperLink at {self._address} ({str(error) or type(error).__name__})"

    def _refused(self, error: HTTPStatusError, run: int | None, number: int, ago: float) -> str:
        """Return what a refusal was, where it may pass if one calls again.

        Args:
            error: the refusal.
            run: to which the call belongs, if any.
            number: that the node called by, which is 0 at first.
            ago: seconds since an answer may have been lost; infinite where none was.
        """
        code = error.response.status_code
        may_let_go = ago < _TAKEN_SECONDS and _is_taken(error)
        if code not in _AWAY and not may_let_go:
            raise self._refusal(error, number) from error
        if code == _FAILED and run is not None and not self._knows(run):
            raise RunOverError(f"the SuperLink at {self._address} knows no run {run}") from error
        return f"no SuperLink at {self._address} (HTTP {code})"

    def _knows(self, run: int) -> bool:
        """Whether the SuperLink may know a run: it does not where it says so."""
        try:
            self._client.GetRun(GetRunRequest(node=self._node, run_id=run))
        except HTTPStatusError as error:
            return error.response.status_code != _OVER
        except TransportError:
            return True
        return True

    def _refusal(self, error: HTTPStatusError, number: int) -> SuperLinkError:
        """Return what a refusal means to a node that called by a number, which is 0 at first."""
        code = error.response.status_code
        told = f"the SuperLink at {self._address} does not take this node's call (HTTP {code})"
        if code == _OVER or (code == _STRANGE and number and self._returns(number)):
            return RunOverError(f"{told}: the run has ended")
        ahead = apart(error.response, self._clock())
        if ahead is not None and abs(ahead) > MOST_APART:
            minutes = abs(round(ahead.total_seconds() / 60))
            return SuperLinkError(
                f"{told}: this machine's clock and its own are {minutes} minutes apart, and "
                f"{MOST_APART.seconds // 60} are taken: set the wrong one right, and start the node"
            )
        return SuperLinkError(
            f"{told}: its operator registers the node's public key, or reads why in its log, such "
            "as that another node is connected by that key, as one that was killed is for another "
            f"{_TAKEN_SECONDS:.0f} seconds; then start the node again"
        )

    def _returns(self, number: int) -> bool:
        """Whether a SuperLink that does not know a number knows this node by another.

        One that began anew, which has none of its runs any more, gives out new ones.
        """
        with self._returning:
            if self.node_id == number:
                with suppress(SuperLinkError):
                    self.node_id = self._call(self._client.ActivateNode, self._introduction).node_id
            return self.node_id != number


def _is_taken(error: HTTPStatusError) -> bool:
    told = FlowerError.from_json(error.response.text)
    return told is not None and told.code == _TAKEN
