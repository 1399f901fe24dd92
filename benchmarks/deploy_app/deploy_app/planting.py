"""Blobs that go from one party to another and back, as messages that both have answered before.

A node repeats what it has answered. So an exchange of blobs is planted in the outboxes of two
parties: what is measured is all that a node does with a message but computing and encrypting.

```
 1 coordinator ── question ──► asker     ── blob there ──► coordinator
 2 coordinator ── blob there ► replier   ── blob back ───► coordinator
 3 coordinator ── blob back ─► asker     ── an end ──────► coordinator
```
"""

import os
from dataclasses import dataclass

import rfc8785

from compliance.signing import Envelope
from federation.messages import (
    EVERYONE,
    HEADER_TYPE,
    Encrypted,
    Header,
    Identify,
    Present,
    SealedMessage,
    content_digest,
)
from federation.party import PartyFolder

__all__ = ["identify", "plant"]

_SAID = Encrypted(encrypts="match.blinded")
_REPLIED = Encrypted(encrypts="match.reply")


@dataclass(frozen=True)
class _Writer:
    folder: PartyFolder
    job: str

    def seal(
        self,
        body: Identify | Present | Encrypted,
        recipient: str,
        *,
        answers: SealedMessage | None = None,
        payload: bytes = b"",
    ) -> SealedMessage:
        folder = self.folder
        header = Header(
            agreement=folder.agreement().digest,
            job=self.job,
            sender=folder.name,
            recipient=recipient,
            answers=None if answers is None else answers.digest,
            body=body,
            payload_digest=content_digest(payload),
            payload_bytes=len(payload),
        )
        content = rfc8785.dumps(header.model_dump(mode="json"))
        envelope = Envelope.sign(HEADER_TYPE, content, {folder.name: folder.identity_key()})
        return SealedMessage(envelope.to_json(), payload)

    def keep(self, question: SealedMessage, answer: SealedMessage) -> None:
        path = self.folder.outbox / f"{question.digest}.{content_digest(b'planted')}.json"
        path.with_suffix(".bin").write_bytes(answer.payload)
        path.write_bytes(answer.envelope)


def identify(coordinator: PartyFolder, job: str) -> SealedMessage:
    """Return the coordinator's question which party a node is, which none has answered before."""
    return _Writer(coordinator, job).seal(Identify(), EVERYONE)


def plant(
    coordinator: PartyFolder, asker: PartyFolder, replier: PartyFolder, *, job: str, size: int
) -> None:
    """Plant one exchange of two blobs.

    Args:
        coordinator: its folder; the question is `identify(coordinator, job)`.
        asker: whose blob goes first.
        replier: who answers with another.
        job: a name that no other exchange has.
        size: bytes of each blob.
    """
    question = identify(coordinator, job)
    asking, replying = _Writer(asker, job), _Writer(replier, job)
    there = asking.seal(_SAID, replier.name, answers=question, payload=os.urandom(size))  # 1
    asking.keep(question, there)
    back = replying.seal(_REPLIED, asker.name, answers=there, payload=os.urandom(size))  # 2
    replying.keep(there, back)
    asking.keep(back, asking.seal(Present(), coordinator.name, answers=back))  # 3
