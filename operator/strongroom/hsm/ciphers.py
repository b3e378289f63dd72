# SPDX-License-Identifier: Apache-2.0
"""Sealing and opening one value on one session, by the algorithm of its key."""

from strongroom.hsm import rsa, wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.canary import PROBE, PROBE_AAD
from strongroom.hsm.cbchmac import CbcHmac
from strongroom.hsm.cryptoki import CryptokiSession
from strongroom.hsm.keystore import StoredKey
from strongroom.hsm.outcome import Outcome
from strongroom.model.algorithms import Algorithm
from strongroom.model.keys import KeySpec
from strongroom.profiles import Profile

_OF_AES = frozenset({Algorithm.AES_256_GCM, Algorithm.AES_256_GCM_IV16, Algorithm.AES_256_CBC_HMAC_SHA256})


class Ciphers:
    """Not for two threads at a time. Raises CkrError and Outcome; REFUSED for an algorithm that is not the key's."""

    def __init__(self, session: CryptokiSession, profile: Profile) -> None:
        self._profile = profile
        self._gcm = AesGcm(session.functions, session.handle, profile)
        self._cbc_hmac = CbcHmac(session.functions, session.handle, profile)
        self.rsa = rsa.RsaOaep(session, self._gcm)

    def for_sealing(self, key: StoredKey, algorithm: Algorithm) -> AesGcm | CbcHmac:
        """What encrypts new values under this AES key: by the profile's own algorithm only."""
        if algorithm is not self._profile.algorithm(key.spec) or key.spec.asymmetric:
            raise Outcome(wire.Failure.REFUSED)
        self._check_kind(key, algorithm)
        return self._of(algorithm)

    def open(self, key: StoredKey, algorithm: Algorithm, value: wire.OpenValue) -> bytearray:
        """The plaintext, which the caller wipes. Values made under an earlier profile open, too."""
        self._check_kind(key, algorithm)
        if key.spec.asymmetric:
            return self.rsa.open(key, algorithm, value)
        return self._of(algorithm).decrypt(key.handles, value.nonce, value.body, value.aad)

    def seal_probe(self, key: StoredKey, algorithm: Algorithm) -> wire.OpenValue:
        """A known value under this key, by the mechanism of this algorithm; the nonce is as long as the profile's."""
        self._check_kind(key, algorithm)
        if key.spec.asymmetric:
            return rsa.seal_probe(key, algorithm, PROBE, PROBE_AAD)
        nonce, body = self._of(algorithm).encrypt(key.handles, bytearray(PROBE), PROBE_AAD)
        return wire.OpenValue(b"", nonce, body, PROBE_AAD)

    def opens_probe(self, key: StoredKey, algorithm: Algorithm, probe: wire.OpenValue) -> bool:
        """Whether the token gives it back."""
        return self.open(key, algorithm, probe) == PROBE

    def algorithm(self, key: StoredKey) -> Algorithm:
        """Of new values under this key. Outcome REFUSED if the profile has none for it."""
        algorithm = self._profile.algorithm(key.spec)
        if algorithm is None:
            raise Outcome(wire.Failure.REFUSED)
        return algorithm

    def _check_kind(self, key: StoredKey, algorithm: Algorithm) -> None:
        if (key.spec is KeySpec.AES_256) is not (algorithm in _OF_AES):
            raise Outcome(wire.Failure.REFUSED)
        if algorithm is Algorithm.AES_256_CBC_HMAC_SHA256 and not key.handles.authentication:
            raise Outcome(wire.Failure.KEY_NOT_FOUND)  # half of it

    def _of(self, algorithm: Algorithm) -> AesGcm | CbcHmac:
        return self._cbc_hmac if algorithm is Algorithm.AES_256_CBC_HMAC_SHA256 else self._gcm
