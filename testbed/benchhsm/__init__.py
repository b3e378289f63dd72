# SPDX-License-Identifier: Apache-2.0
"""`python -m testbed.benchhsm`: the HSM layer, measured against C and against direct calls on the same token."""
