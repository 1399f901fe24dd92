"""Sends spans to a collector of OpenTelemetry, by OTLP over HTTP, where a party named one.

Guarantees: nobody is called but the address that was given; a collector that is away costs spans
and nothing else. What is sent is what `spans` holds, the party's name, and "comity".

Leaves to others: which spans there are (`spans`); keeping the collector the party's own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final

from pydantic import Field

from federation.errors import WorkspaceError
from federation.observing.spans import Send, Span

__all__ = ["Collector", "traced"]

Collector = Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
"""URL of a collector for traces, without a password."""

_SECONDS: Final = 5


@contextmanager
def traced(address: str, party: str) -> Iterator[Send]:
    """Send spans for the length of the block; what is left is sent at its end.

    Args:
        address: URL of the collector for traces, such as http://127.0.0.1:4318/v1/traces.
        party: whose spans they are.

    Raises:
        WorkspaceError: the extra `observe` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
    except ImportError as error:
        raise WorkspaceError(
            "traces: expected the extra `observe`, which is not installed: "
            "pip install 'comity[observe]', or leave `traces` out"
        ) from error
    resource = Resource({"service.name": "comity", "service.instance.id": party})
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=_SECONDS))

    def context(trace: int, span: int, *, is_remote: bool = False) -> SpanContext:
        return SpanContext(trace, span, is_remote, TraceFlags(TraceFlags.SAMPLED))

    def send(spans: Sequence[Span]) -> None:
        for one in spans:
            processor.on_end(
                ReadableSpan(
                    name=one.name,
                    context=context(one.trace, one.span),
                    parent=None if one.parent is None else context(one.trace, one.parent),
                    resource=resource,
                    attributes=one.attributes,
                    kind=SpanKind.INTERNAL,
                    status=Status(StatusCode.ERROR if one.failed else StatusCode.UNSET),
                    start_time=one.begun,
                    end_time=one.ended,
                )
            )

    try:
        yield send
    finally:
        processor.shutdown()  # type: ignore[no-untyped-call]
