# SPDX-License-Identifier: Apache-2.0
"""Reading Prometheus metrics."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape: (sample name, labels) → value."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def parse(cls, text: str) -> "Metrics":
        """Read Prometheus' text format."""
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def value(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name (with its `_total`) that have these labels, whatever others; or 0."""
        wanted = labels.items()
        return sum(value for (sample, has), value in self.samples.items() if sample == name and wanted <= has)
