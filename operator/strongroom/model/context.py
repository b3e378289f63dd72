# SPDX-License-Identifier: Apache-2.0
"""The encryption context: additional authenticated data that is not secret."""

from collections.abc import Mapping
from dataclasses import dataclass

from strongroom.errors import Reason, StrongroomError
from strongroom.model.limits import MAX_CONTEXT_BYTES, MAX_CONTEXT_PAIRS


@dataclass(frozen=True, slots=True)
class EncryptionContext:
    """At most 16 pairs and 1024 UTF-8 bytes in all, sorted by the keys' UTF-8 bytes. Bound by the tag, stored in clear.

    Build it with `parse`; the constructor takes pairs that are checked and sorted already.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, raw: Mapping[str, object] | None) -> "EncryptionContext":
        """Check and sort. Raises StrongroomError (InvalidEncryptionContext) that names the pair at fault."""
        pairs = list((raw or {}).items())
        if len(pairs) > MAX_CONTEXT_PAIRS:
            raise _invalid(f"has {len(pairs)} pairs, at most {MAX_CONTEXT_PAIRS} are allowed")
        checked: list[tuple[bytes, str, str]] = []
        for key, value in pairs:
            if not isinstance(key, str) or not key:
                raise _invalid("has an empty key")
            if not isinstance(value, str):
                raise _invalid(f"has a value that is not a string at key {key!r}")
            try:
                checked.append((key.encode(), key, value))
                value.encode()
            except UnicodeEncodeError:
                raise _invalid("has a pair that is not valid Unicode") from None
        size = sum(len(encoded) + len(value.encode()) for encoded, _, value in checked)
        if size > MAX_CONTEXT_BYTES:
            raise _invalid(f"is {size} bytes, at most {MAX_CONTEXT_BYTES} are allowed")
        return cls(tuple((key, value) for _, key, value in sorted(checked)))

    def as_dict(self) -> dict[str, str]:
        """The pairs as written, for audit records and manifests."""
        return dict(self.pairs)


def _invalid(what: str) -> StrongroomError:
    return StrongroomError(Reason.INVALID_ENCRYPTION_CONTEXT, f"the encryption context {what}")
