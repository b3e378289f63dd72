# SPDX-License-Identifier: Apache-2.0
"""The blob: bytes to `Blob` and back, and what its authentication tag binds. Knows no keys. Specified in docs/format.md."""
