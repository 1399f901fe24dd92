"""Reports for people who answer for data, made from verified logs and their agreement.

Guarantees: a report is a function of agreement, leaves and a moment, and of nothing else; each
figure cites the leaves from which it can be computed again.

Leaves to others: verifying logs, reading folders, printing.
"""

from compliance.reporting.access import access_report
from compliance.reporting.budget import budget_report
from compliance.reporting.document import Report, ReportKind, figures_of
from compliance.reporting.erasure import erasure_report
from compliance.reporting.figures import Citation, Entry, Figure, PartyLog
from compliance.reporting.impact import impact_report
from compliance.reporting.page import page
from compliance.reporting.processing import processing_report

__all__ = [
    "Citation",
    "Entry",
    "Figure",
    "PartyLog",
    "Report",
    "ReportKind",
    "access_report",
    "budget_report",
    "erasure_report",
    "figures_of",
    "impact_report",
    "page",
    "processing_report",
]
