# SPDX-License-Identifier: Apache-2.0
"""The blob: text to `Blob` and back, what its tag binds, and sealing with a public key. Knows no secret keys. Specified
in docs/format.md."""
