"""What protects people in a collaboration, as facts of its agreement and figures of its logs.

Guarantees: nothing is called a protection that the agreement switches off; what it allows that
protects nobody is a warning, used or not.

Leaves to others: whether that is enough (whoever assesses the impact).
"""

from collections.abc import Iterator, Sequence

from compliance import records
from compliance.agreement import Agreement
from compliance.reporting.document import Cell, Fact, Table, Warn
from compliance.reporting.figures import Figure, PartyLog, entries_of
from compliance.terms import MatchProtocol, NoiseSource, Reveal

__all__ = ["evidence", "safeguards", "warnings"]

_REVEALS = {
    Reveal.PARTNER_LEARNS_MEMBERS: "the partner learns which of its own people the brand knows",
    Reveal.BRAND_LEARNS_MEMBERS: "the brand learns which of its own people a partner knows",
    Reveal.BOTH_LEARN_MEMBERS: "both sides learn which of their people the other knows",
    Reveal.SIZE_ONLY: "nobody learns who; both learn how many, with noise",
}

_PROTOCOLS = {
    MatchProtocol.ECDH: "Diffie-Hellman on Curve25519",
    MatchProtocol.RR22: "oblivious evaluation over a direct link (RR22)",
}


def safeguards(agreement: Agreement) -> Iterator[Fact]:
    """Yield the technical and organisational measures that the agreement and the software bring."""
    match, budget = agreement.match, agreement.budget
    protocols = " or ".join(_PROTOCOLS[protocol] for protocol in match.protocols)
    yield Fact(
        text="Tables stay with their owners. Whatever leaves a party passes one gate: agreement, "
        "policy, consent, minimum sizes, budget, log.",
    )
    yield Fact(text="Consent is read again before every use of people, as of that moment.")
    yield Fact(text=f"People are matched by {protocols}.", term="match.protocols")
    yield Fact(text=f"Of a match, {_REVEALS[match.reveal]}.", term="match.reveal")
    yield Fact(
        text=f"A match of fewer than {match.minimum_match:,} people is not used; no segment has "
        f"fewer than {agreement.expand.minimum_segment:,}.",
        term="match.minimum_match, expand.minimum_segment",
    )
    yield Fact(
        text="Between data parties, messages are encrypted to their recipient (ML-KEM-768 with "
        "X25519); the coordinator carries what it cannot read.",
        term="parties.encryption_key",
    )
    yield Fact(
        text=f"No person's privacy loss passes ε = {budget.epsilon:g} at δ = {budget.delta:g}, "
        "over everything that is charged while the agreement lasts.",
        term="budget",
    )
    if (period := budget.period) is not None:
        yield Fact(
            text=f"Within any {period.days:,} days it does not pass ε = {period.epsilon:g} at δ = "
            f"{period.delta:g} either.",
            term="budget.period",
        )
    if NoiseSource.LOCAL in agreement.train.noise:
        yield Fact(text="Training may add all noise at each partner.", term="train.noise")
    if NoiseSource.DISTRIBUTED in agreement.train.noise:
        yield Fact(
            text="Training may be by secure sums: the coordinator sees sums over partners alone, "
            f"which hold against {agreement.train.colluding_partners} colluding partners.",
            term="train.noise, train.colluding_partners",
        )
    if agreement.vertical is not None and agreement.vertical.label_epsilon is not None:
        yield Fact(
            text="In training over columns each label is turned round at random once, for at most "
            f"ε = {agreement.vertical.label_epsilon:g} of a label.",
            term="vertical.label_epsilon",
        )
    quorum = agreement.witness_quorum
    yield Fact(
        text="Every party keeps an append-only log, signed, which "
        f"{'all' if quorum is None else quorum} other parties with a cosigning key witness.",
        term="witness_quorum",
    )


def warnings(agreement: Agreement) -> Iterator[Warn]:
    """Yield what the agreement allows that protects nobody."""
    if NoiseSource.UNSAFE_NONE in agreement.train.noise:
        yield Warn(
            text="The agreement allows training without noise (train.noise: unsafe-none). Such a "
            "model may give away single people: no ε holds for it."
        )
    if agreement.vertical is not None and agreement.vertical.unsafe_labels:
        yield Warn(
            text="The agreement allows labels as they are (vertical.unsafe_labels). Every partner "
            "then reads every aligned person's label, exactly."
        )
    if agreement.match.alignment is not None:
        yield Warn(
            text="In an alignment all data parties learn which people all of them know, whatever "
            "match.reveal says of pairs (match.alignment)."
        )
    if agreement.match.reveal_keys:
        yield Warn(
            text="Whoever learns members also sees by which key each of them matched "
            "(match.reveal_keys)."
        )


def evidence(logs: Sequence[PartyLog]) -> Table:
    """Return what each log shows of these measures at work."""
    kinds = (
        ("consent read before a use", records.ConsentUsed),
        ("questions to policies", records.AccessDecided),
        ("refusals", records.Refusal),
        ("charges reserved", records.BudgetReserved),
        ("sets bound before a match", records.MatchBound),
    )
    rows: list[tuple[Cell, ...]] = []
    for log in logs:
        counts = [Figure.of(len, entries_of([log], kind)) for _, kind in kinds]
        rows.append((Fact(text=log.party), *counts))
    head = ("party", *(name for name, _ in kinds))
    return Table(caption="Measures at work, by party", head=head, rows=tuple(rows))
