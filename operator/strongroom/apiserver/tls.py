# SPDX-License-Identifier: Apache-2.0
"""The TLS side of the listener. The private key reaches OpenSSL through memory, never through a file system."""

import os
import ssl

from strongroom.apiserver.certificates import Leaf


def server_context(leaf: Leaf, client_ca: str) -> ssl.SSLContext:
    """A server context that shows `leaf` and takes only clients with a certificate that `client_ca` signed.

    Sessions are not resumed, so every connection proves its certificate against the CA of this very context.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=client_ca)
    # The ssl module takes a certificate by path alone.
    descriptor = os.memfd_create("strongroom-serving-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, leaf.key_and_certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
