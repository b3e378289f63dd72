# SPDX-License-Identifier: Apache-2.0
"""Pure values: names, limits, keys, contexts. No I/O; imports only the standard library and `strongroom.errors`."""
