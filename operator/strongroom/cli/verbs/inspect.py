# SPDX-License-Identifier: Apache-2.0
"""`strongroom inspect`: what encrypted values say about themselves, offline."""

import json
from dataclasses import dataclass
from typing import Any

import click

from strongroom.cli import documents, encryptedsecret, output, sources, table, terminal
from strongroom.cli.failure import Place, located
from strongroom.cli.options import format_option, input_option
from strongroom.cli.sources import Source
from strongroom.envelope import format as blob_format
from strongroom.envelope.format import Blob


@click.command()
@input_option
@format_option("table", "json")
def inspect(filenames: tuple[str, ...], output_format: str) -> None:
    """Show key id, key version, algorithm and plaintext size of encrypted values. Where the padding hides the size,
    it is the largest possible one.

    Reads EncryptedSecret manifests, or a single value (U1Ix…). Works offline, from the values alone: nothing is
    authenticated, so a forged value can claim anything.

    \b
    Examples:
      strongroom inspect -f encrypted.yaml
      kubectl get encryptedsecrets -A -o yaml | strongroom inspect -o json
    """
    findings = [finding for source in sources.read(filenames) for finding in _inspect(source)]
    if output_format == "json":
        output.write(json.dumps([finding.as_json() for finding in findings], indent=2) + "\n")
    else:
        header = ("OBJECT", "DATA KEY", "KEY ID", "VERSION", "ALGORITHM", "SIZE")
        output.write(table.render(header, [finding.as_row() for finding in findings]))
    terminal.note("read from the values alone; nothing is authenticated")


@dataclass(frozen=True, slots=True)
class _Finding:
    """One value; subject and data key are empty for a single value."""

    subject: str
    data_key: str
    blob: Blob

    def as_row(self) -> tuple[str, ...]:
        algorithm = self.blob.algorithm.name
        key = self.blob.key
        sizes = self.blob.plaintext_sizes
        size = str(sizes[0]) if len(sizes) == 1 else f"up to {sizes[-1]}"
        return (self.subject or "-", self.data_key or "-", str(key.key_id), str(key.version), algorithm, size)

    def as_json(self) -> dict[str, Any]:
        return {
            "object": self.subject,
            "dataKey": self.data_key,
            "keyId": str(self.blob.key.key_id),
            "keyVersion": self.blob.key.version,
            "algorithm": self.blob.algorithm.name,
            "plaintextBytes": self.blob.plaintext_sizes[-1],
            "plaintextBytesExact": len(self.blob.plaintext_sizes) == 1,
            "authenticated": False,
        }


def _inspect(source: Source) -> list[_Finding]:
    text = source.text.strip()
    if text.startswith("U1Ix") and not any(char.isspace() for char in text):
        with located(Place(source.name)):
            return [_Finding("", "", blob_format.parse(text, where="the value"))]
    parsed = documents.parse(source, kind=encryptedsecret.KIND)
    return [
        _Finding(documents.subject(found.node).removeprefix(f"{encryptedsecret.KIND} "), key, blob)
        for found in documents.objects(parsed)
        if found.is_a(encryptedsecret.API_VERSION, encryptedsecret.KIND)
        for key, blob in encryptedsecret.blobs(found).items()
    ]
