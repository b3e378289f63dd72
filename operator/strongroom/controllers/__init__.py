# SPDX-License-Identifier: Apache-2.0
"""The reconcilers: Kopf's watches feed a keyed queue; each object is gathered, decided about and acted on."""
