"""What speaks against a job: it is held against the signed agreement, term by term.

Guarantees: the same job and agreement give the same objections everywhere, before anything is
computed; each names the term and the smallest change that passes.

Leaves to others: what a job is asked to do (`specification`), and what only shows while it runs
(`gate`).
"""

import math

from compliance.agreement import Agreement
from compliance.terms import Linkage, NoiseSource, Reveal, Role
from federation.specification import (
    AlignSpec,
    ExpandSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
)

__all__ = ["policy_objections"]

_PARTNER_LEARNS = frozenset({Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BOTH_LEARN_MEMBERS})
_ONE_LEARNS = frozenset({Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS})
_MOST_CELLS = 4_096  # of a measurement: more would hold nobody


def policy_objections(spec: JobSpec, agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """Hold a job against the agreement.

    Returns:
        Every (term, remedy) that speaks against the job; empty where it may run.
    """
    match spec:
        case MatchSpec():
            found = _match_objections(spec, agreement)
        case AlignSpec():
            found = _align_objections(spec, agreement)
        case TrainSpec():
            found = _train_objections(spec, agreement)
        case ExpandSpec():
            found = _expand_objections(spec, agreement)
        case MeasureSpec():
            found = _measure_objections(spec, agreement)
        case VerticalTrainSpec() | VerticalScoreSpec():
            found = _vertical_objections(spec, agreement)
    return (*found, *_quorum_objections(spec, agreement))


def _quorum_objections(spec: JobSpec, agreement: Agreement) -> list[tuple[str, str]]:
    partners = len(agreement.by_role(Role.PARTNER))
    if isinstance(spec, AlignSpec | VerticalTrainSpec | VerticalScoreSpec):
        return []
    if spec.absent_partners < partners:
        return []
    remedy = f"job {spec.name!r} goes on without {spec.absent_partners} of {partners} partners"
    return [("absent_partners", f"{remedy}: ask for at most {partners - 1}")]


def _align_objections(spec: AlignSpec, agreement: Agreement) -> list[tuple[str, str]]:
    if agreement.match.alignment is not None:
        return []
    remedy = f"job {spec.name!r}: no alignment of all parties is agreed: agree on one"
    return [("match.alignment", remedy)]


def _train_objections(spec: TrainSpec, agreement: Agreement) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    terms, local = agreement.train, spec.noise is NoiseSource.LOCAL
    if spec.model not in terms.models:
        allowed = " or ".join(repr(model.value) for model in terms.models)
        remedy = f"job {spec.name!r} asks for {spec.model.value!r}: ask for {allowed}"
        found.append(("train.models", f"{remedy}, or agree on it"))
    if spec.noise not in terms.noise:
        allowed = " or ".join(repr(noise.value) for noise in terms.noise)
        remedy = f"job {spec.name!r} asks for {spec.noise.value!r}: ask for {allowed}"
        found.append(("train.noise", f"{remedy}, or agree on it"))
    limits: tuple[tuple[str, float | None, float], ...] = (
        ("epsilon", spec.epsilon, terms.epsilon),
        ("delta", spec.delta, terms.delta),
        ("max_steps", spec.steps if local else None, terms.max_steps),
        ("max_rounds", spec.rounds, terms.max_rounds),
    )
    found += [
        (f"train.{term}", f"job {spec.name!r} asks for {asked:g}: ask for at most {most:g}")
        for term, asked, most in limits
        if asked is not None and asked > most
    ]
    if local and spec.steps % spec.rounds:
        remedy = f"job {spec.name!r}: {spec.steps} steps cannot be divided into {spec.rounds}"
        found.append(("train.max_rounds", f"{remedy} equal rounds: choose a multiple"))
    if not agreement.features:
        found.append(("train.features", f"job {spec.name!r}: no features are agreed: agree on"))
    if agreement.match.reveal not in _PARTNER_LEARNS:
        remedy = f"job {spec.name!r} needs partners that know their members: agree on "
        found.append(("match.reveal", remedy + " or ".join(sorted(_PARTNER_LEARNS))))
    return found


def _measure_objections(spec: MeasureSpec, agreement: Agreement) -> list[tuple[str, str]]:
    terms, asked = agreement.measure, f"job {spec.name!r} asks for"
    if terms is None:
        remedy = f"job {spec.name!r}: nothing may be counted: agree on terms of measuring"
        return [("measure.columns", remedy)]
    found: list[tuple[str, str]] = []
    words = {feature.name: len(feature.categories) for feature in agreement.features}
    sizes = {
        one.name: len(one.edges) + 2 if one.edges else words[one.name] + 1 for one in terms.columns
    }
    if unknown := [name for name in spec.columns if name not in sizes]:
        allowed = " or ".join(map(repr, sizes))
        remedy = f"{asked} {', '.join(map(repr, unknown))}: ask for {allowed}, or agree on it"
        found.append(("measure.columns", remedy))
    elif (cells := math.prod(sizes[name] for name in spec.columns)) > _MOST_CELLS:
        remedy = f"{asked} {cells:,} cells: ask for fewer columns, at most {_MOST_CELLS:,} cells"
        found.append(("measure.columns", remedy))
    if spec.noise not in terms.noise:
        allowed = " or ".join(repr(noise.value) for noise in terms.noise)
        remedy = f"{asked} {spec.noise.value!r}: ask for {allowed}, or agree on it"
        found.append(("measure.noise", remedy))
    for term, given, most in (
        ("epsilon", spec.epsilon, terms.epsilon),
        ("delta", spec.delta, terms.delta),
    ):
        if given is not None and most is not None and given > most:
            found.append((f"measure.{term}", f"{asked} {given:g}: ask for at most {most:g}"))
    if agreement.match.reveal not in _PARTNER_LEARNS:
        remedy = f"job {spec.name!r} needs partners that know their members: agree on "
        found.append(("match.reveal", remedy + " or ".join(sorted(_PARTNER_LEARNS))))
    return found


def _expand_objections(spec: ExpandSpec, agreement: Agreement) -> list[tuple[str, str]]:
    """A size is held against what is public, so that trying sizes counts nobody."""
    terms, name = agreement.expand, spec.name
    if spec.share is not None and spec.share > terms.maximum_share:
        remedy = f"job {name!r} asks for a share of {spec.share:g}"
        return [("expand.maximum_share", f"{remedy}: ask for at most {terms.maximum_share:g}")]
    if spec.size is None:
        return []
    partners = agreement.by_role(Role.PARTNER)
    rows = max(agreement.dataset(party.name).declared_rows for party in partners)
    most = math.ceil(terms.maximum_share * rows)
    asked = f"job {name!r} asks for a size of {spec.size}"
    if spec.size > most:
        remedy = f"{asked}, and no partner declares the rows for it: ask for at most {most}"
        return [("expand.maximum_share", remedy)]
    if spec.size < terms.minimum_segment:
        remedy = f"{asked}: ask for at least {terms.minimum_segment}"
        return [("expand.minimum_segment", remedy)]
    return []


def _vertical_objections(
    spec: VerticalTrainSpec | VerticalScoreSpec, agreement: Agreement
) -> list[tuple[str, str]]:
    terms, asks = agreement.vertical, f"job {spec.name!r} asks for"
    if terms is None:
        return [
            ("vertical.columns", f"job {spec.name!r}: no terms of vertical training are agreed")
        ]
    if isinstance(spec, VerticalScoreSpec):
        if spec.absent_partners <= terms.absent_partners:
            return []
        remedy = f"{asks} {spec.absent_partners}: ask for at most {terms.absent_partners}"
        return [("vertical.absent_partners", remedy)]
    found: list[tuple[str, str]] = []
    if spec.rounds > terms.max_rounds:
        remedy = f"{asks} {spec.rounds}: ask for at most {terms.max_rounds}"
        found.append(("vertical.max_rounds", remedy))
    if spec.unsafe_labels and not terms.unsafe_labels:
        found.append(("vertical.unsafe_labels", f"{asks} labels as they are: ask for noised ones"))
    if spec.label_epsilon is not None and spec.label_epsilon > (terms.label_epsilon or 0.0):
        most = f"at most {terms.label_epsilon:g}" if terms.label_epsilon else "unsafe_labels"
        found.append(("vertical.label_epsilon", f"{asks} {spec.label_epsilon:g}: ask for {most}"))
    return found


def _match_objections(spec: MatchSpec, agreement: Agreement) -> list[tuple[str, str]]:
    terms, asked = agreement.match, f"job {spec.name!r} matches by {spec.protocol.value!r}"
    found: list[tuple[str, str]] = []
    if spec.protocol not in terms.protocols:
        allowed = " or ".join(repr(one.value) for one in terms.protocols)
        found.append(("match.protocols", f"{asked}: match by {allowed}, or agree on it"))
    if not spec.is_direct:
        return found
    if terms.reveal not in _ONE_LEARNS:
        remedy = f"{asked}, by which one side alone learns: agree on "
        found.append(("match.reveal", remedy + " or ".join(sorted(_ONE_LEARNS)) + ", or use ecdh"))
    if len(terms.keys) != 1:
        remedy = f"{asked}, which tells by which key people matched: agree on one key, or use ecdh"
        found.append(("match.keys", remedy))
    several = any(one.identifiers_per_person > 1 for one in agreement.datasets)
    if several and not terms.reveal_keys:
        remedy = f"{asked}, which tells by which identifier people matched: agree on reveal_keys"
        found.append(("match.reveal_keys", f"{remedy}, or use ecdh"))
    if terms.linkage is Linkage.ONE_TO_ONE and several:
        remedy = f"{asked}, which cannot link people who bear several identifiers: agree on "
        found.append(("match.linkage", f"{remedy}{Linkage.ANY_KEY.value}, or use ecdh"))
    return found
