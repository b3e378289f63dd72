# SPDX-License-Identifier: Apache-2.0
"""Who asks: a user of the crypto API, or the ServiceAccount an EncryptedSecret acts as."""

from dataclasses import dataclass, field


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
