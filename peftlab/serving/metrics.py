"""What Prometheus is told: counts and times, never a text. One registry a server, so that importing counts nothing."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The server's counters. Label values are fixed words, routes, statuses and names of models that are served."""

    def __init__(self, waiting: Callable[[], int], models: Callable[[], int]) -> None:
        """`waiting()` and `models()` give the numbers of texts that wait and of models that are served."""
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._registry = registry
        self.requests = Counter(
            "peftlab_requests", "Requests answered, by route and status.", ("route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "peftlab_request_seconds",
            "Seconds from a request's head to its answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.texts = Counter("peftlab_texts", "Texts answered, by model.", ("model",), registry=registry)
        self.batches = Histogram("peftlab_batch_texts", "Texts in a batch.", buckets=_TEXTS, registry=registry)
        self.passes = Histogram(
            "peftlab_batch_seconds", "Seconds that a batch took.", buckets=_SECONDS, registry=registry
        )
        self.failures = Counter("peftlab_batch_failures", "Batches on which a model broke.", registry=registry)
        Gauge("peftlab_waiting_texts", "Texts that wait for a batch.", registry=registry).set_function(waiting)
        Gauge("peftlab_models", "Models that are served.", registry=registry).set_function(models)

    def page(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
