# SPDX-License-Identifier: Apache-2.0
"""What may be done with a master key: the one door to encryption and decryption, the ledger, the keys' state."""
