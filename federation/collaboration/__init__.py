"""The collaboration file: one TOML document with the parties, contract and jobs.

`document` reads and checks it, `mistakes` says in plain words what is ill-formed, `contradictions`
what is well-formed and cannot be.
"""

from federation.collaboration.document import (
    UNSAFE_SEED_WARNING,
    AgreementSection,
    Collaboration,
    EvaluateSection,
    PartySection,
    build_agreement,
    drafted_agreement,
    load_collaboration,
    read_document,
)

__all__ = [
    "UNSAFE_SEED_WARNING",
    "AgreementSection",
    "Collaboration",
    "EvaluateSection",
    "PartySection",
    "build_agreement",
    "drafted_agreement",
    "load_collaboration",
    "read_document",
]
