# SPDX-License-Identifier: Apache-2.0
"""Strongroom: Kubernetes secrets encrypted in Git, decrypted by a key that never leaves the HSM."""

__version__ = "0.1.0"
