# SPDX-License-Identifier: Apache-2.0
"""The audit record: one JSON line for every operation, written before anything is released."""
