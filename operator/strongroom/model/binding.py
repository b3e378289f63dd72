# SPDX-License-Identifier: Apache-2.0
"""What a blob is bound to: purpose, scope, place and encryption context."""

from dataclasses import dataclass
from enum import StrEnum, unique

from strongroom.model.context import EncryptionContext


@unique
class Scope(StrEnum):
    """How far a blob may travel."""

    STRICT = "Strict"
    """This namespace and this name."""
    NAMESPACE = "Namespace"
    """Any name in this namespace."""
    CLUSTER = "Cluster"
    """Anywhere in the cluster."""


@unique
class Purpose(StrEnum):
    """What the plaintext is for; a blob made for one purpose does not decrypt for another."""

    SECRET = "secret"  # noqa: S105 - the word in the format, not a credential
    DATA_KEY = "datakey"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Binding:
    """The place and purpose that the tag of one blob covers. `namespace` and `name` are where it is used; `place`
    says which of them count under the scope."""

    purpose: Purpose
    scope: Scope
    namespace: str
    name: str
    data_key: str
    context: EncryptionContext

    @property
    def place(self) -> tuple[str, str]:
        """(namespace, name) as bound: the name is empty under Namespace, both are under Cluster."""
        match self.scope:
            case Scope.STRICT:
                return self.namespace, self.name
            case Scope.NAMESPACE:
                return self.namespace, ""
            case Scope.CLUSTER:
                return "", ""
