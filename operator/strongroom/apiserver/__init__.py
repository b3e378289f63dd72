# SPDX-License-Identifier: Apache-2.0
"""The crypto API, `crypto.strongroom.dev`: an aggregated API server behind kube-apiserver."""
