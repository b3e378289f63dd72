# SPDX-License-Identifier: Apache-2.0
"""Who asks: a user of the crypto API, or the ServiceAccount an EncryptedSecret acts as."""

from dataclasses import dataclass, field
from enum import Enum, unique


@dataclass(frozen=True, slots=True)
class Principal:
    """A Kubernetes identity as the API server knows it. Hashable, so that verdicts can be cached by it."""

    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())

    @classmethod
    def service_account(cls, namespace: str, name: str) -> "Principal":
        """The identity of a ServiceAccount with the groups that the API server would give it; without them a grant to
        a group would be denied."""
        return cls(
            username=f"system:serviceaccount:{namespace}:{name}",
            groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
        )


@unique
class Permission(Enum):
    """What RBAC must allow on `keys` of group crypto.strongroom.dev: (verb, subresource)."""

    USE = ("use", "")
    """A namespace's EncryptedSecrets are decrypted with the key."""
    ENCRYPT = ("create", "encrypt")
    DECRYPT = ("create", "decrypt")

    @property
    def verb(self) -> str:
        """The RBAC verb."""
        return self.value[0]

    @property
    def subresource(self) -> str:
        """The RBAC subresource; empty for the resource itself."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object an operation is for, as audit records and Events name it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int = 0
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request came from, as claimed: for the audit record, never for a decision."""

    via: str
    """`API` or `Controller`."""
    address: str = ""
    user_agent: str = ""
    audit_id: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for an operation, by which permission, and where it must hold."""

    principal: Principal
    permission: Permission
    namespace: str
    """Namespace the values belong to. A value of scope Cluster needs the permission in all namespaces."""
    source: Source
    on_behalf_of: ObjectReference | None = None
