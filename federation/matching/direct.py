"""A party's part of a match over a direct link.

Guarantees: the link is opened after this party's gate has let `match.open` out for that bucket and
attempt, and the other's has arrived; a bucket that was found is never matched again, also after a
crash; what an opened link has cost is on disk before it is opened; nothing of a match that passes
the agreed number, size or change leaves.

Leaves to others: the steps (`jobs.match.direct`), what is kept between them (`direct_pairs`), the
link (`rr22.link`), what may leave (`gate`).
"""

import hashlib
from collections.abc import Callable, Mapping

from compliance import records
from compliance.terms import MatchProtocol
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.match import size_mechanism
from federation.jobs.match.direct import DirectPlan
from federation.matching.bringing import check_side
from federation.matching.direct_pairs import DirectPair, DirectPairs
from federation.matching.sides import Sides, bound
from federation.messages import (
    LinkSide,
    MatchAccept,
    MatchClose,
    MatchDone,
    MatchLink,
    MatchLinked,
    MatchOffer,
    MatchOpen,
    MatchOutcome,
    MatchReady,
    MatchRequest,
    MatchSide,
    Message,
)
from federation.rr22.configuration import Rr22Config
from federation.rr22.link import DirectLink
from federation.rr22.program import MAKE_ENVIRONMENT
from federation.stored_arrays import write_array
from privacy.certificates import OwnCertificate, check_certificate
from privacy.mechanisms import noised_count
from privacy.psi.rr22 import found_tokens, padded_tags
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = ["DirectMatching"]


class DirectMatching:
    """What a party does with the messages of a match over a direct link."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._sides = Sides(desk)
        self._pairs = DirectPairs(desk, self._sides)
        self._terms = desk.agreement.match
        self._name = desk.folder.name

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {
            MatchRequest: self._offer,
            MatchOffer: self._accept,
            MatchAccept: self._begin,
            MatchLink: self._permit,
            MatchOpen: self._match,
            MatchClose: self._close,
            MatchOutcome: self._keep,
        }

    def _offer(self, message: Message) -> Released:  # 2
        body = expect(message, MatchRequest)
        self._check_sides(self._name, body.peer)
        self._config()  # or refuse, before anything is read
        pair = self._pairs.open(body.spec, body.peer, label=message.sealed.digest)
        offer = MatchOffer(spec=body.spec, side=pair.state.own, link=self._end_of(pair))
        return self._desk.release(message, offer, recipient=body.peer, people=pair.people.used)

    def _accept(self, message: Message) -> Released:  # 2
        body, sender = expect(message, MatchOffer), message.header.sender
        self._check_sides(sender, self._name)
        link = self._check_end(body.side, body.link, sender)
        self._config()  # or refuse, before anything is read
        label = f"{sender}/{body.side.commitment}"
        pair = self._pairs.open(body.spec, sender, label=label)
        pair = self._pairs.save(pair, pair.state.meet(body.side, link))
        accept = MatchAccept(spec=body.spec, side=pair.state.own, link=self._end_of(pair))
        return self._desk.release(
            message,
            accept,
            people=pair.people.used,
            results=(bound(pair.peer, pair.state),),
        )

    def _begin(self, message: Message) -> Released:  # 3
        body, sender = expect(message, MatchAccept), message.header.sender
        self._check_sides(self._name, sender)
        if not self._desk.gate.outbox.has_sent(message.header.answers):
            raise MessageError(f"match.accept for job {body.spec.name!r} answers nothing sent")
        link = self._check_end(body.side, body.link, sender)
        pair = self._pairs.load(body.spec, sender)
        pair = self._pairs.save(pair, pair.state.meet(body.side, link))
        return self._desk.release(
            message,
            MatchReady(buckets=self._plan(pair).buckets.count),
            recipient=self._desk.coordinator,
            people=pair.people.used,
            results=(bound(pair.peer, pair.state),),
        )

    def _permit(self, message: Message) -> Released:  # 5
        body = expect(message, MatchLink)
        pair = self._pairs.load(body.spec, body.peer)
        self._within(body.bucket, self._plan(pair))
        needed = not (self._learns(pair) and pair.found(body.bucket).exists())
        leaves = (self._opened(pair, body.bucket),) if needed and pair.secret else ()
        self._pairs.save(pair, pair.state.permit(body.attempt, body.bucket))
        return self._desk.release(
            message,
            MatchOpen(spec=body.spec, bucket=body.bucket, attempt=body.attempt, needed=needed),
            recipient=body.peer,
            people=pair.people.used,
            results=leaves,
        )

    def _match(self, message: Message) -> Released:  # 7
        body = expect(message, MatchOpen)
        pair = self._pairs.load(body.spec, message.header.sender)
        pair.state.check(body.attempt, body.bucket)
        if not pair.found(body.bucket).exists() if self._learns(pair) else body.needed:
            opened = self._pairs.save(pair, pair.state.open(body.bucket))
            self._desk.folder.synchronise()  # or a lost machine would let it be opened twice
            self._link(opened, body.bucket, body.attempt)
        return self._desk.release(
            message,
            MatchLinked(bucket=body.bucket),
            recipient=self._desk.coordinator,
            people=pair.people.used,
        )

    def _link(self, pair: DirectPair, bucket: int, attempt: str) -> None:
        """Match a bucket over the link; what the learner finds is on disk before it parts."""
        plan, learns, secret = self._plan(pair), self._learns(pair), pair.open_secret
        batch = pair.own.bucket(bucket, plan.buckets.count)
        own, other = self._share(secret), Secret(bytes.fromhex(self._link_of(pair).share))
        key = plan.key(frozenset({own, other}), bucket, attempt)
        fresh = self._desk.folder.fresh_secret(f"link/{pair.peer}/{bucket}/{attempt}")
        capacity = plan.capacity(learns=learns)
        tags, owners = padded_tags(batch.tokens, key, fresh, capacity=capacity)
        stage = f"matches its people with {pair.peer} over a direct link"
        self._desk.tell_done(pair.spec.name, stage, bucket, plan.buckets.count)
        found = self._direct_link(pair, plan.binding(bucket, attempt)).match(tags)
        if learns:
            rows = batch.rows[found_tokens(found.tags, tags, owners)]
            write_array(pair.found(bucket), rows)

    def _close(self, message: Message) -> Released:  # 9
        body = expect(message, MatchClose)
        pair = self._pairs.load(body.spec, body.peer)
        if not self._learns(pair):
            if size_mechanism(self._terms) is not None:
                raise MessageError(f"job {body.spec.name!r} ends here with its outcome")
            released = self._done(message, pair)
        else:
            released = self._finish(message, pair)
        pair.end()
        return released

    def _finish(self, message: Message, pair: DirectPair) -> Released:
        """Put the buckets together and say what the peer may know of it."""
        members = pair.people.of_rows(pair.rows(self._plan(pair).buckets.count))
        size, mechanism = len(members), size_mechanism(self._terms)
        minimum = self._sides.minimum(size)
        if minimum.found < minimum.required:  # the gate refuses; who they are is not kept
            pair = self._pairs.save(pair, pair.state.model_copy(update={"below_minimum": True}))
            pair.clear()
        self._desk.tell(pair.spec.name, "knows which of its people are members", rows=size)
        with self._desk.result(
            self._sides.members_file(pair.spec.name, pair.peer), message, members.to_bytes()
        ):
            if mechanism is None:
                return self._done(message, pair, minimum)
            stream = SecretStream(pair.open_secret, "match size")
            told = noised_count(size, mechanism, stream)
            return self._desk.release(
                message,
                MatchOutcome(spec=pair.spec, size=told),
                recipient=pair.peer,
                people=members.used,
                minimums=(minimum,),
                charge=mechanism,
            )

    def _keep(self, message: Message) -> Released:  # 10
        body = expect(message, MatchOutcome)
        pair = self._pairs.load(body.spec, message.header.sender)
        if self._learns(pair) or body.size is None or message.payload:
            raise MessageError(f"{pair.peer} told another outcome than was agreed")
        if set(pair.state.links) != set(range(self._plan(pair).buckets.count)):
            raise MessageError(f"outcome of job {body.spec.name!r} before its last bucket")
        with self._desk.result(pair.size, message, str(body.size).encode()):
            released = self._done(message, pair)
        self._desk.tell_size(pair.spec.name, pair.peer, body.size)
        pair.end()
        return released

    def _done(self, message: Message, pair: DirectPair, *minimums: Minimum) -> Released:
        return self._desk.release(
            message,
            MatchDone(),
            recipient=self._desk.coordinator,
            people=pair.people.used,
            minimums=minimums,
        )

    def _config(self) -> Rr22Config:
        """Return where this party's environment is.

        Raises:
            RefusedError: it has none.
        """
        config = self._desk.folder.config.rr22
        if config is None:
            raise self._desk.refusal(
                "match.protocols",
                f"{self._name} has no environment for matches over a direct link: "
                f"{MAKE_ENVIRONMENT} as rr22.python",
            )
        return config

    def _check_sides(self, learner: str, peer: str) -> None:
        if not self._sides.are_agreed(learner, peer):
            raise self._desk.refusal(
                "match.reveal", f"nothing of a match between {learner} and {peer} is agreed"
            )

    def _check_end(self, side: MatchSide, link: LinkSide | None, party: str) -> LinkSide:
        """Hold what the other side says of itself and its end, before anything is opened."""
        check_side(self._desk, side, party)
        if link is None:
            raise MessageError(f"{party} tells nothing of its end of the direct link")
        check_certificate(link.certificate)
        if link.address is None and self._config().reached_at is None:
            raise self._desk.refusal(
                "match.protocols",
                f"neither {self._name} nor {party} says where it can be reached: one must name "
                "rr22.listen in its party.json",
            )
        return link

    def _end_of(self, pair: DirectPair) -> LinkSide:
        secret = pair.open_secret
        return LinkSide(
            certificate=self._certificate(secret).pem,
            share=self._share(secret).hex(),
            address=self._config().reached_at,
        )

    def _direct_link(self, pair: DirectPair, binding: bytes) -> DirectLink:
        """Return this side's end: the peer waits if it can be reached, otherwise the learner."""
        config, other = self._config(), self._link_of(pair)
        peer_waits = (other.address if self._learns(pair) else config.reached_at) is not None
        folder = hashlib.sha256(str(self._desk.folder.path).encode()).hexdigest()[:16]
        return DirectLink(
            config=config,
            peer=pair.peer,
            own=self._certificate(pair.open_secret),
            peer_certificate=other.certificate,
            dial=other.address if peer_waits is self._learns(pair) else None,
            binding=binding,
            learns=self._learns(pair),
            scratch=DirectLink.scratch_of(config, f"{self._name[:16]}-{folder}"),
        )

    def _opened(
        self, pair: DirectPair, bucket: int
    ) -> tuple[type[records.LinkOpened], Mapping[str, object]]:
        own, other = self._certificate(pair.open_secret).pem, self._link_of(pair).certificate
        told = {
            "peer": pair.peer,
            "protocol": MatchProtocol.RR22.value,
            "bucket": bucket,
            "own_certificate": hashlib.sha256(own.encode()).hexdigest(),
            "peer_certificate": hashlib.sha256(other.encode()).hexdigest(),
        }
        return records.LinkOpened, told

    def _plan(self, pair: DirectPair) -> DirectPlan:
        own, other = pair.state.own, pair.state.other
        if other is None:
            raise MessageError(f"{pair.peer} has not said yet what it brings")
        learner, peer, sides = own, other, (self._name, pair.peer)
        if not self._learns(pair):
            learner, peer, sides = other, own, (pair.peer, self._name)
        return DirectPlan.of(self._desk.agreement, pair.spec, sides, learner=learner, peer=peer)

    def _link_of(self, pair: DirectPair) -> LinkSide:
        if pair.state.link is None:
            raise MessageError(f"{pair.peer} has not told its end of the link yet")
        return pair.state.link

    def _learns(self, pair: DirectPair) -> bool:
        return self._sides.learns(pair.peer)

    def _within(self, bucket: int, plan: DirectPlan) -> None:
        if bucket >= plan.buckets.count:
            raise MessageError(f"bucket {bucket} of {plan.buckets.count}")

    @staticmethod
    def _certificate(secret: Secret) -> OwnCertificate:
        return OwnCertificate.from_secret(derive_secret(secret, "direct link certificate"))

    @staticmethod
    def _share(secret: Secret) -> Secret:
        return derive_secret(secret, "direct link share of the key of tags")
