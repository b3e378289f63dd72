# SPDX-License-Identifier: Apache-2.0
"""One module per verb, imported when the verb is used; each holds the command under the verb's name."""
