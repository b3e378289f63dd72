# SPDX-License-Identifier: Apache-2.0
"""Values that are written a second time where nothing encrypts them: in a comment or an annotation."""

import re
from collections.abc import Mapping

from strongroom.cli import terminal
from strongroom.cli.comments import Comments
from strongroom.cli.failure import Place
from strongroom.cli.secret import SecretManifest

_SHORTEST = 4
"""Bytes; shorter values occur in any text."""


def warn_of_leaks(manifest: SecretManifest, comments: Comments, place: Place) -> None:
    """Name each data key whose value also stands in a comment or an annotation, which stay readable."""
    readable = {"a comment": "\n".join(comments.texts()), "an annotation": "\n".join(manifest.annotations.values())}
    for key, value in _texts(manifest.values).items():
        for where, text in readable.items():
            if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text):
                terminal.warn(f"the value also stands in {where}, which stays readable: remove it ({place.at(key)})")


def _texts(values: Mapping[str, bytes]) -> dict[str, str]:
    decoded = {key: value.decode(errors="ignore").strip() for key, value in values.items()}
    return {key: text for key, text in decoded.items() if len(text) >= _SHORTEST}
