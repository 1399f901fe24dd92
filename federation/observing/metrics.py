"""Figures in the text format of Prometheus.

Guarantees: labels are kinds of messages, outcomes, terms, states of runs and names of parties;
nothing here is named after a person, and nothing counts people.

Leaves to others: where figures come from (`figures`, `tally`), who may read them (`listener`,
`federation.apps.control_listener`).

Source: Prometheus exposition formats, text format 0.0.4.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from compliance.records import RefusedFor
from federation.observing.figures import Figures, Obstacle
from federation.observing.log_counts import LogCounts
from federation.observing.tally import SECONDS, Count
from federation.operations.journal import Run, RunState

__all__ = ["TEXT", "coordinator_metrics", "exposition", "node_metrics"]

TEXT: Final = CONTENT_TYPE_LATEST
"""Content type of an exposition."""


def exposition(metrics: Iterable[Metric]) -> bytes:
    """Return metrics as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(tuple(metrics)))
    return generate_latest(registry)


class _Collected:
    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def node_metrics(
    figures: Figures, count: Count, obstacles: frozenset[Obstacle]
) -> Iterator[Metric]:
    """Yield what a node tells of itself and its party."""
    ready = GaugeMetricFamily(
        "comity_ready", "Whether the node would answer now, by obstacle.", labels=["without"]
    )
    for one in Obstacle:
        ready.add_metric([one], one not in obstacles)
    yield ready
    yield _gauge("comity_figures_readable", "Whether all could be read.", figures.is_readable)
    if figures.valid_until is not None:
        yield _gauge(
            "comity_agreement_valid_until_timestamp_seconds",
            "When the agreement ends.",
            figures.valid_until,
        )
    if (budget := figures.budget) is not None:
        yield _gauge("comity_epsilon_cap", "What one person may lose in all.", budget.cap)
        yield _gauge("comity_epsilon_spent", "What is committed or reserved.", budget.spent)
        yield _gauge("comity_epsilon_left", "What is left.", budget.left)
    yield from _log_metrics(figures.log)
    public = figures.witnessed.leaves
    yield _gauge("comity_log_public_leaves", "Leaves of the last head that is public.", public)
    cosigned = GaugeMetricFamily(
        "comity_witness_cosigned_timestamp_seconds",
        "When a witness cosigned last.",
        labels=["witness"],
    )
    for name, when in figures.witnessed.cosigned.items():
        cosigned.add_metric([name], when)
    yield cosigned
    yield from _tally_metrics(count)


def _tally_metrics(count: Count) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "comity_messages", "Messages, by kind and what became of them.", labels=["kind", "outcome"]
    )
    for (kind, outcome), number in count.messages.items():
        messages.add_metric([kind, outcome], number)
    yield messages
    seconds = HistogramMetricFamily(
        "comity_message_seconds", "From a message to its answer.", labels=["kind"]
    )
    bounds = [*map(str, SECONDS), "+Inf"]
    for kind, one in count.durations.items():
        buckets = list(zip(bounds, accumulate(one.classes), strict=True))
        seconds.add_metric([kind], buckets, one.total)
    yield seconds
    carried = CounterMetricFamily(
        "comity_bytes", "Bytes of messages as they travelled.", labels=["direction"]
    )
    carried.add_metric(["in"], count.bytes_in)
    carried.add_metric(["out"], count.bytes_out)
    yield carried
    yield CounterMetricFamily(
        "comity_workers_ended",
        "Workers that ended before they had answered.",
        value=count.workers_ended,
    )


def _log_metrics(log: LogCounts) -> Iterator[Metric]:
    yield _gauge("comity_log_leaves", "Leaves in the party's own log.", log.leaves)
    refusals = CounterMetricFamily("comity_refusals", "Refusals, by term.", labels=["term"])
    for term, number in log.refusals.items():
        refusals.add_metric([term], number)
    yield refusals
    releases = CounterMetricFamily("comity_releases", "What left, by kind.", labels=["kind"])
    released = CounterMetricFamily("comity_released_bytes", "Its bytes.", labels=["kind"])
    for kind, number in log.releases.items():
        releases.add_metric([kind], number)
        released.add_metric([kind], log.bytes_released[kind])
    yield releases
    yield released


def coordinator_metrics(
    runs: Iterable[Run],
    log: LogCounts,
    contacts: Mapping[str, datetime],
    refused: Mapping[RefusedFor, int],
) -> Iterator[Metric]:
    """Yield what a coordinator tells of itself.

    Args:
        runs: all of them.
        log: counts of its log as a party.
        contacts: when each party's node was heard last, by the name of its key.
        refused: how many calls were, by the reason.
    """
    states = [run.state for run in runs]
    family = GaugeMetricFamily("comity_runs", "Runs, by where they stand.", labels=["state"])
    for state in RunState:
        family.add_metric([state], states.count(state))
    yield family
    yield CounterMetricFamily(
        "comity_training_rounds", "Rounds of models that were finished.", value=log.rounds
    )
    yield from _log_metrics(log)
    calls = CounterMetricFamily(
        "comity_calls_refused", "Calls that were refused, by the reason.", labels=["reason"]
    )
    for reason in RefusedFor:
        calls.add_metric([reason], refused.get(reason, 0))
    yield calls
    contact = GaugeMetricFamily(
        "comity_party_contact_timestamp_seconds",
        "When a party's node was heard last.",
        labels=["party"],
    )
    for name, when in contacts.items():
        contact.add_metric([name], when.timestamp())
    yield contact


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value=value)
