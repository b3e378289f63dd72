# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API: one HTTP session, typed errors, and the few calls the operator makes."""
