# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes control plane, software tokens and the operator, on this machine alone: no Docker, no cluster.

    building        programs that are built once, and kept outside the tree
    binaries        builds etcd, kube-apiserver, kube-controller-manager, kubectl and helm
    controlplane    starts and stops them, RBAC on; the API server may go away in the middle and come back
    users           kubeconfigs for users (client certificate) and ServiceAccounts (TokenRequest)
    kubectl         runs kubectl as one of them
    faultproxy      stands between a client and the API server, and makes it slow, broken or rude
    pkcs11token     what tokens have in common; another PIN for one
    softhsm         a token of SoftHSM
    kryoptic        a token of kryoptic, which is built from Rust
    nss             a token of NSS
    shim            a PKCS#11 module in front of another one: slow, faulty, or like another vendor's
    shimmedtoken    a token with the shim in front
    hsmkeys         keys in a token, used as the operator uses them
    installation    the chart, rendered and applied, with the operator outside the cluster
    operator        the operator as a process, with the permissions of the chart's ServiceAccount
    operatorslot    which operator runs: the session's, or a test's own
    waiting         waits for a condition, and says what it waited for

Every server listens on loopback, and every process dies with the process that started it.
"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
"""Root of the source tree."""


class TestBedError(Exception):
    """The test bed itself does not work: the message says which part, and holds the end of its log."""

    __test__ = False
