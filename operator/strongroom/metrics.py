# SPDX-License-Identifier: Apache-2.0
"""Every metric the operator exports. One object, handed down by `app`, so that tests share no global state."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from strongroom import __version__
from strongroom.hsm.values import TokenStatistics

disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters and histograms with Prometheus' base units. Labels hold names of keys, tokens, reasons; never values."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        build = Gauge("strongroom_build_info", "Version of this process.", ["version"], registry=self.registry)
        build.labels(__version__).set(1)
        self.leader = Gauge("strongroom_leader", "Whether this replica reconciles.", registry=self.registry)
        self.reconciles = Counter(
            "strongroom_reconcile_total", "Objects looked at, by result.", ["kind", "result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "strongroom_reconcile_duration_seconds",
            "Time from taking an object off the queue to its end.",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "strongroom_queue_depth", "Objects waiting to be looked at.", ["kind"], registry=self.registry
        )
        self.operations = Counter(
            "strongroom_crypto_operations_total",
            "Operations asked of the crypto service, by result.",
            ["operation", "key", "result"],
            registry=self.registry,
        )
        self.hsm_up = Gauge("strongroom_hsm_up", "Whether the token answers.", ["token"], registry=self.registry)
        self.secret_writes = Counter(
            "strongroom_secret_writes_total", "Writes of Secrets, by kind.", ["write"], registry=self.registry
        )
        self.status_writes = Counter(
            "strongroom_status_writes_total", "Writes of status, by kind of object.", ["kind"], registry=self.registry
        )
        self.events = Counter("strongroom_events_total", "Events, by fate.", ["fate"], registry=self.registry)
        self.audit_records = Counter(
            "strongroom_audit_records_total", "Audit records, by outcome.", ["outcome"], registry=self.registry
        )
        self.watch_restarts = Counter(
            "strongroom_watch_restarts_total", "Times the watches had to be started anew.", registry=self.registry
        )
        self.api_requests = Counter(
            "strongroom_api_requests_total", "Crypto API requests.", ["verb", "code"], registry=self.registry
        )

    def watch_tokens(self, statistics: Callable[[], Mapping[str, TokenStatistics]]) -> None:
        """Export what the tokens count themselves; `statistics` is asked at each scrape."""
        self.registry.register(_TokenCollector(statistics))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class _TokenCollector(Collector):
    """The HSM layer's own counts, by token."""

    def __init__(self, statistics: Callable[[], Mapping[str, TokenStatistics]]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Called at each scrape."""
        operations = CounterMetricFamily(
            "strongroom_hsm_operations", "Requests a token answered well.", labels=["token", "operation"]
        )
        values = CounterMetricFamily(
            "strongroom_hsm_values", "Values a token encrypted or decrypted.", labels=["token", "operation"]
        )
        failures = CounterMetricFamily(
            "strongroom_hsm_failures", "Requests a token failed, by reason.", labels=["token", "reason"]
        )
        losses = CounterMetricFamily(
            "strongroom_hsm_worker_losses", "Worker processes that ended unasked.", labels=["token"]
        )
        sessions = GaugeMetricFamily(
            "strongroom_hsm_sessions", "Sessions of a token for encrypting and decrypting.", labels=["token"]
        )
        in_flight = GaugeMetricFamily("strongroom_hsm_in_flight", "Requests a token works on.", labels=["token"])
        waiting = GaugeMetricFamily(
            "strongroom_hsm_waiting",
            "Requests that wait for a session: to reconcile or for the API, or to manage keys.",
            labels=["token", "share"],
        )
        for token, counts in self._statistics().items():
            for family, by_label in (
                (operations, counts.operations),
                (values, counts.values),
                (failures, counts.failures),
                (waiting, counts.waiting),
            ):
                for label, count in by_label.items():
                    family.add_metric([token, label], count)
            losses.add_metric([token], counts.worker_losses)
            sessions.add_metric([token], counts.sessions)
            in_flight.add_metric([token], counts.in_flight)
        yield from (operations, values, failures, losses, sessions, in_flight, waiting)
