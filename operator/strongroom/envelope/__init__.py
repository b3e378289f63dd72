# SPDX-License-Identifier: Apache-2.0
"""The blob: text to `Blob` and back, and what its tag binds. Knows no keys. Specified in docs/format.md."""
