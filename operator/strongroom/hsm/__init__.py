# SPDX-License-Identifier: Apache-2.0
"""The HSM: one PKCS#11 token per worker process, behind an asyncio façade.

In the operator's process, without PKCS#11:

    api        Token: seal, open, find, generate, verify, public_key
    values     what goes in and out
    label      how our keys are marked
    publickey  public keys, checked and as DER
    exchange   one request, one answer: its turn, the worker, what is learnt from it
    admission  whose turn it is: fair shares of the sessions
    suspects   requests that may be what ends a worker
    supervisor keeps a worker alive: opens, replaces, logs in at most once with a PIN
    pin        the PIN file, and the memory of refused PINs
    tokenfiles modes of the files of tokens that live in some
    process    the worker process and the requests in flight to it
    problems   failures of the worker, worded for people

On both sides of the socket:

    hardening no core dumps, no ptrace; the first thing either process does
    wire      typed messages and their frames
    ckr       names and classes of PKCS#11 return codes

In the worker process, the only place where C is called:

    worker       its start, threads, the loop
    cryptoki     PKCS#11: structures, numbers, functions, what takes more than one call
    module       loading a library, finding the token, logging in, opening sessions
    session      requests to replies, and what each return code leads to
    ciphers      one value, by the algorithm of its key
    aead         AES-GCM
    cbchmac      AES-CBC with HMAC
    rsa          unwrapping the key that a value brings along
    nonces       random initial vectors
    buffers      memory that is overwritten
    canary       tells a bad value from a bad token
    keystore     finding and generating keys
    verification proves how a key behaves
    outcome      ends a request early
"""
