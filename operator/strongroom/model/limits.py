# SPDX-License-Identifier: Apache-2.0
"""Every limit that users see, with its reason."""

MAX_PLAINTEXT_BYTES = 4096
"""Plaintext of one value: 0..4096 bytes, after base64 decoding. What cloud KMSs encrypt directly; larger data takes
envelope encryption. The configuration may lower it, never raise it."""

MAX_VALUES = 64
"""Data keys in one EncryptedSecret, and values in one API request: 64 full values stay under etcd's 1.5 MiB."""

MAX_CONTEXT_PAIRS = 16
MAX_CONTEXT_BYTES = 1024
"""Encryption context: keys and values together, in UTF-8 bytes. HSMs limit the additional data they accept."""

MAX_DATA_KEY_LENGTH = 253
"""Longest data key of a Secret (Kubernetes: `[-._a-zA-Z0-9]+`, at most 253, neither `.` nor `..` at the start)."""

MAX_KEY_NAME_LENGTH = 63
"""Longest name of a CustomerMasterKey: it must fit into a token's label beside the cluster's mark."""

MAX_REQUEST_BYTES = 1024 * 1024
"""Largest body the crypto API reads. 64 full values in base64 are 350 KiB."""

NONCE_BYTES = 12
TAG_BYTES = 16
"""AES-GCM with a 96-bit nonce and a 128-bit tag (NIST SP 800-38D section 5.2.1)."""

ENCRYPTIONS_BLOCK = 2**16
"""How many encryptions a replica reserves in the ledger at a time."""
ENCRYPTIONS_WARN = 2**28
ENCRYPTIONS_LIMIT = 2**31
"""Encryptions under one key version: warn, then refuse and ask for rotation. NIST SP 800-38D section 8.3 allows 2^32
with random 96-bit nonces."""
