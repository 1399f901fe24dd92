"""What is well-formed in an agreement and cannot be meant.

Guarantees: all contradictions are told at once, each by the term that has to change.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from compliance.agreement.contents import AgreementTerms, iso, names_of
from compliance.log.note import NoteKey
from compliance.terms import (
    DATA_ROLES,
    ColumnType,
    NoiseSource,
    Role,
    approver_mistakes,
    region_mistakes,
    repeated,
)

__all__ = ["ALIGNED_PARTIES", "CUT_SHARE", "contradictions"]

ALIGNED_PARTIES: Final = (3, 8)
"""Fewest and most data parties that can be aligned: two match by themselves, and what hides the
counts of groups doubles with every party."""

CUT_SHARE: Final = 0.1
"""Share of the budget's δ that cutting noise may take, over all matches that are allowed."""


def contradictions(agreement: AgreementTerms) -> Iterator[str]:
    """Yield what contradicts itself between terms that are well-formed one by one."""
    yield from _party_mistakes(agreement)
    yield from _dataset_mistakes(agreement)
    yield from _term_mistakes(agreement)
    yield from _quorum_mistakes(agreement)
    yield from region_mistakes(agreement.regions, agreement.parties)
    if agreement.approval is not None:
        yield from approver_mistakes(agreement.approval, agreement.parties)


def _quorum_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    if agreement.witness_quorum is None:
        return
    others = [len(agreement.witnesses_of(party.name)) for party in agreement.parties]
    least, most = max(others) // 2 + 1, min(others)
    if not least <= agreement.witness_quorum <= most:
        expected = f"expected {least} to {most}" if least <= most else "no number will do"
        yield (
            f"witness_quorum: got {agreement.witness_quorum}, {expected}: it must be more than "
            f"half of the {max(others)} other parties with a cosigning key that witness a log, "
            "lest two heads that contradict each other both be public: raise it, leave it out (all "
            "of them but auditors), or leave out auditors' cosigning keys"
        )


def _party_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    for name in repeated(party.name for party in agreement.parties):
        yield f"parties: two are called {name!r}"
    holders = [
        (key, party.name)
        for party in agreement.parties
        for key in (
            party.verifying_key,
            NoteKey.from_string(party.log_key).key,
            party.encryption_key,
            party.cosigner and party.cosigner.raw,
        )
        if key is not None
    ]
    for shared in repeated(key for key, _ in holders):
        among = ", ".join(name for key, name in holders if key == shared)
        yield f"parties: one key stands twice (at {among}): each needs keys of its own"
    for role, most in ((Role.BRAND, 1), (Role.COORDINATOR, 1), (Role.PARTNER, None)):
        found = agreement.by_role(role)
        if not found or (most and len(found) > most):
            expected = "exactly" if most else "at least"
            yield f"parties: expected {expected} one {role}, got {names_of(found) or 'none'}"


def _dataset_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    owners = {dataset.party: set(dataset.identifiers) for dataset in agreement.datasets}
    bringing = (*agreement.by_role(Role.BRAND), *agreement.by_role(Role.PARTNER))
    for name in repeated(dataset.party for dataset in agreement.datasets):
        yield f"datasets: {name!r} has two: merge them"
    for name in owners:
        if name not in {party.name for party in bringing}:
            yield f"datasets: {name!r}, which has one, is neither the brand nor a partner"
    for party in bringing:
        if party.name not in owners:
            yield f"datasets: {party.name!r} has none: declare one"
    for name, keys in owners.items():
        if strange := sorted(keys.difference(agreement.match.keys)):
            yield f"datasets: {name!r} brings {', '.join(strange)}, which match.keys lacks"
    yield from _unmatchable(agreement, owners)
    yield from _unalignable(agreement, owners)


def _unmatchable(agreement: AgreementTerms, owners: Mapping[str, set[str]]) -> Iterator[str]:
    for brand in agreement.by_role(Role.BRAND):
        for partner in agreement.by_role(Role.PARTNER):
            pair = owners.get(brand.name), owners.get(partner.name)
            if pair[0] and pair[1] and pair[0].isdisjoint(pair[1]):
                yield f"datasets: {brand.name!r} and {partner.name!r} share no key to match by"


def _unalignable(agreement: AgreementTerms, owners: Mapping[str, set[str]]) -> Iterator[str]:
    terms = agreement.match.alignment
    if terms is None:
        return
    fewest, most = ALIGNED_PARTIES
    if not fewest <= len(owners) <= most:
        yield (
            f"match.alignment: expected {fewest} to {most} parties with data sets, got "
            f"{len(owners)}"
        )
    for name, keys in owners.items():
        if terms.key not in keys:
            yield f"datasets: {name!r} lacks {terms.key}, the key of match.alignment"


def _term_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    for name in repeated(column.name for column in agreement.features):
        yield f"features: two are called {name!r}"
    yield from _group_mistakes(agreement)
    yield from _vertical_mistakes(agreement)
    used = (
        *(("match", agreement.match), ("train", agreement.train), ("expand", agreement.expand)),
        ("measure", agreement.measure),
    )
    for computation, terms in used:
        if terms is not None and terms.purpose not in agreement.purposes:
            yield f"{computation}.purpose: {terms.purpose!r} is not among the purposes"
    yield from _period_mistakes(agreement)
    yield from _measure_mistakes(agreement)
    yield from _retention_mistakes(agreement)
    if not agreement.valid_from < agreement.valid_until:
        yield f"valid_until: {iso(agreement.valid_until)} is not after {iso(agreement.valid_from)}"
    if agreement.cut_delta > CUT_SHARE * agreement.budget.delta:
        yield (
            f"match: cutting noise may add {agreement.cut_delta:.2g} to the δ of a person in the "
            f"{agreement.most_matches(agreement.valid_until)} matches of a party with another that "
            f"are allowed, more than {CUT_SHARE:.0%} of the budget's delta, "
            f"{agreement.budget.delta:g}: agree on a smaller size_delta or alignment.delta, or on "
            "fewer matches"
        )
    limits = (
        ("max_parties_per_person", "number of partners", len(agreement.by_role(Role.PARTNER))),
        ("epsilon", "budget's epsilon", agreement.budget.epsilon),
        ("delta", "budget's delta", agreement.budget.delta),
    )
    for field, limit, most in limits:
        if (asked := getattr(agreement.train, field)) > most:
            yield f"train.{field}: {asked} passes the {limit}, {most}"
    for noise in agreement.train.noise:
        if noise is not NoiseSource.LOCAL:
            yield from _sum_mistakes(agreement, noise)


def _period_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    period = agreement.budget.period
    if period is not None and agreement.cut_delta > CUT_SHARE * period.delta:
        yield (
            f"budget.period.delta: {period.delta:g} is less than {1 / CUT_SHARE:.0f} times "
            f"what cutting noise may add, {agreement.cut_delta:.2g}: agree on a larger one"
        )


def _measure_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    if (terms := agreement.measure) is None:
        return
    features = {column.name: column for column in agreement.features}
    for column in terms.columns:
        feature = features.get(column.name)
        if feature is None:
            yield f"measure.columns: {column.name!r} is none of the features"
        elif bool(column.edges) is bool(feature.categories):
            what = "no" if feature.categories else "some"
            yield f"measure.columns: {feature.type} {column.name!r} needs {what} edges"
    for field, most in (("epsilon", agreement.budget.epsilon), ("delta", agreement.budget.delta)):
        asked = getattr(terms, field)
        if asked is not None and asked > most:
            yield f"measure.{field}: {asked} passes the budget's {field}, {most}"


def _retention_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    for artefact, purpose in repeated((one.artefact, one.purpose) for one in agreement.retention):
        yield f"retention: {artefact.value!r} stands twice for {purpose or 'any purpose'}"
    for one in agreement.retention:
        if one.purpose is not None and one.purpose not in agreement.purposes:
            yield f"retention: {one.purpose!r} is not among the purposes"


def _group_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    grouped = {one.name for one in agreement.features if one.type is ColumnType.CATEGORICAL}
    for name in agreement.expand.fairness_groups:
        if name not in grouped:
            yield f"expand.fairness_groups: {name!r} is no categorical feature: describe it"


def _vertical_mistakes(agreement: AgreementTerms) -> Iterator[str]:
    terms = agreement.vertical
    if terms is None:
        if not agreement.features:
            yield "features: expected one or more, or terms of vertical training"
        return
    if terms.purpose not in agreement.purposes:
        yield f"vertical.purpose: {terms.purpose!r} is not among the purposes"
    if agreement.match.alignment is None:
        yield "vertical: needs match.alignment, by which rows are brought into one order"
    people = {party.name for role in DATA_ROLES for party in agreement.by_role(role)}
    holders = {column.party for column in terms.columns}
    for name in sorted(holders - people):
        yield f"vertical.columns: {name!r} is neither the brand nor a partner"
    for name in sorted(people - holders):
        yield f"vertical.columns: {name!r} brings none: it could add nothing"
    if (terms.label_epsilon or 0.0) > agreement.budget.epsilon:
        yield (
            f"vertical.label_epsilon: {terms.label_epsilon} passes the budget's epsilon, "
            f"{agreement.budget.epsilon}"
        )


def _sum_mistakes(agreement: AgreementTerms, noise: NoiseSource) -> Iterator[str]:
    """Say why no secure sum could be: see `privacy.secagg.Plan` for the limits."""
    partners = len(agreement.by_role(Role.PARTNER))
    colluding, absent = agreement.train.colluding_partners, agreement.train.absent_in_sums(noise)
    counted_on = partners - colluding - absent
    if partners < 2:
        yield (
            f"train.noise: {noise.value!r} needs 2 partners or more for its secure sums, got "
            f"{partners}: add a partner, or agree on {NoiseSource.LOCAL.value!r} alone"
        )
    elif counted_on < 1:
        yield (
            f"train.colluding_partners and absent_partners: {colluding} and {absent} of "
            f"{partners} partners leave nobody to count on: agree on at most {partners - 1} in "
            "all"
        )
    elif noise is NoiseSource.UNSAFE_NONE and counted_on < 2:
        yield (
            f"train.colluding_partners: {colluding} of {partners} partners leave one, whose "
            "part of an exact sum they could read: without noise, agree on at most "
            f"{partners - 2}"
        )
    elif 2 * absent + agreement.train.colluding_in_sums(partners, noise) >= partners:
        yield (
            f"train.absent_partners: of {partners} partners, {colluding} of them colluding, "
            f"{absent} may not be missing: a coordinator that lies could have two sums of one "
            "round"
        )
