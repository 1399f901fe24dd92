"""The vocabulary of a contract: its roles, enumerations, and the terms of each computation.

Guarantees: a term that exists is well-formed and does not contradict itself; its text holds no
control, invisible or reordering characters that would show a reader something else.

Leaves to others: what terms mean together (`compliance.agreement`), and obeying them.
"""

from compliance.terms.access import (
    COUNTRIES,
    RELEASES_ROWS,
    ApprovalTerms,
    ApproverTerm,
    Computation,
    RegionTerm,
    approver_mistakes,
    region_mistakes,
)
from compliance.terms.amendment import AmendmentTerms, EarlierParty
from compliance.terms.budget import BudgetTerms, PeriodTerms
from compliance.terms.consent import (
    Activity,
    ConsentTerms,
    LawfulBasis,
    SeparateConsent,
    SeparateTerm,
)
from compliance.terms.dataset import (
    Classification,
    ColumnTerm,
    ColumnType,
    DatasetTerm,
    HeldColumnTerm,
    Scale,
)
from compliance.terms.erasure import ErasureTerms
from compliance.terms.expand import ExpandTerms
from compliance.terms.match import (
    AlignmentTerms,
    CompositeTerm,
    EmailRule,
    FieldRule,
    FieldTerm,
    IdentifierKind,
    Linkage,
    MatchProtocol,
    MatchTerms,
    Reveal,
)
from compliance.terms.measure import CountNoise, MeasuredColumn, MeasureTerms
from compliance.terms.party import DATA_ROLES, PartyTerm, Role
from compliance.terms.retention import Artefact, RetentionTerm
from compliance.terms.termination import TerminationTerms
from compliance.terms.train import Labels, ModelFamily, NoiseSource, TrainTerms, VerticalTerms
from compliance.terms.vocabulary import (
    Count,
    Digest,
    KeyName,
    Line,
    Moment,
    Name,
    Purpose,
    Terms,
    Text,
    repeated,
    unique,
)
from compliance.terms.witnesses import MOST_WITNESSES, drawn_witnesses

__all__ = [
    "COUNTRIES",
    "DATA_ROLES",
    "MOST_WITNESSES",
    "RELEASES_ROWS",
    "Activity",
    "AlignmentTerms",
    "AmendmentTerms",
    "ApprovalTerms",
    "ApproverTerm",
    "Artefact",
    "BudgetTerms",
    "Classification",
    "ColumnTerm",
    "ColumnType",
    "CompositeTerm",
    "Computation",
    "ConsentTerms",
    "Count",
    "CountNoise",
    "DatasetTerm",
    "Digest",
    "EarlierParty",
    "EmailRule",
    "ErasureTerms",
    "ExpandTerms",
    "FieldRule",
    "FieldTerm",
    "HeldColumnTerm",
    "IdentifierKind",
    "KeyName",
    "Labels",
    "LawfulBasis",
    "Line",
    "Linkage",
    "MatchProtocol",
    "MatchTerms",
    "MeasureTerms",
    "MeasuredColumn",
    "ModelFamily",
    "Moment",
    "Name",
    "NoiseSource",
    "PartyTerm",
    "PeriodTerms",
    "Purpose",
    "RegionTerm",
    "RetentionTerm",
    "Reveal",
    "Role",
    "Scale",
    "SeparateConsent",
    "SeparateTerm",
    "TerminationTerms",
    "Terms",
    "Text",
    "TrainTerms",
    "VerticalTerms",
    "approver_mistakes",
    "drawn_witnesses",
    "region_mistakes",
    "repeated",
    "unique",
]
