# SPDX-License-Identifier: Apache-2.0
"""One session with the token: requests in, replies out, and what each return code leads to.

DATA                     the value is bad
AMBIGUOUS, opening       the key's canary: does not decrypt → outage; does, but the value still not → it is bad
AMBIGUOUS, sealing       a fresh round trip under the same key: works → refused; fails → outage
HANDLE                   look the key up again, once; not found on a healthy token → the key is missing
SESSION, LOGIN, DEVICE   outage: the operator replaces this process
the rest                 refused, if the token is healthy

Under an RSA key everything but HANDLE and an outage is AMBIGUOUS, and a bad value carries no return code: what the
token says of a wrapped key that somebody made up must not tell them anything.
"""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from strongroom.hsm import ckr, wire
from strongroom.hsm.canary import Canaries
from strongroom.hsm.ciphers import Ciphers
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.cryptoki import CkrError, CryptokiSession, NotDestroyedError
from strongroom.hsm.keystore import KeyStore, StoredKey
from strongroom.hsm.module import OpenToken
from strongroom.hsm.outcome import Outcome
from strongroom.hsm.verification import Verification
from strongroom.model.algorithms import Algorithm, modulus_bytes
from strongroom.model.limits import MAX_PLAINTEXT_BYTES

_Result = TypeVar("_Result")
_OUTAGE = frozenset({CkrClass.SESSION, CkrClass.LOGIN, CkrClass.DEVICE})
"""This session is to be given up."""
_TRIES = 2
"""Of a value that does not open, with the canary between."""


class TokenSession:
    """Serves requests on one PKCS#11 session. Belongs to one thread.

    Sealing and opening are for any session, the rest for a read-write one, one at a time in the whole process.
    """

    def __init__(self, token: OpenToken, session: CryptokiSession, canaries: Canaries) -> None:
        self._token = token
        self._session = session
        self._canaries = canaries
        self._ciphers = Ciphers(session, token.profile)
        self._store = KeyStore(token, session)
        self._verification = Verification(token, session, self._ciphers)
        self._known: dict[bytes, StoredKey] = {}

    def serve(self, request: wire.Request) -> wire.Reply:
        """The answer. Never raises for anything the token does."""
        try:
            return self._dispatch(request)
        except Outcome as outcome:
            return outcome.failed
        except CkrError as error:
            return self._judge(error.code)

    def _dispatch(self, request: wire.Request) -> wire.Reply:
        match request:
            case wire.Seal():
                return self._seal(request)
            case wire.Open():
                return self._open(request)
            case wire.Find():
                return wire.FoundKeys(self._store.find(request.id_prefix))
            case wire.Generate():
                self._store.generate(request.cka_id, request.label, request.spec)
                return self._verify(request.cka_id)
            case wire.Verify():
                return self._verify(request.cka_id)
            case wire.DescribeToken():
                self._token.check_health(self._session)
                return self._token.describe()
            case wire.Start() | wire.LogIn() | wire.OpenSessions():
                raise wire.ProtocolError("a worker was started twice")

    def _verify(self, cka_id: bytes) -> wire.FoundKeys:
        """A key that fails stays in the token, unused, for people to look at."""

        def prove(key: StoredKey) -> wire.FoundKey:
            self._verification.prove(key)
            return self._store.describe(key)

        return wire.FoundKeys([self._with_key(cka_id, prove)])

    def _seal(self, request: wire.Seal) -> wire.SealedValues:
        try:
            return wire.SealedValues(self._with_key(request.cka_id, lambda key: self._seal_all(key, request)))
        finally:
            for value in request.values:
                wire.wipe(value.plaintext)

    def _seal_all(self, key: StoredKey, request: wire.Seal) -> list[wire.SealedValue]:
        cipher = self._ciphers.for_sealing(key, request.algorithm)
        sealed = []
        for value in request.values:
            try:
                nonce, body = cipher.encrypt(key.handles, value.plaintext, value.aad)
            except CkrError as error:
                self._settle_sealing(key, request.algorithm, error)
            sealed.append(wire.SealedValue(nonce, body))
        return sealed

    def _settle_sealing(self, key: StoredKey, algorithm: Algorithm, error: CkrError) -> NoReturn:
        if ckr.class_of(error.code) is not CkrClass.AMBIGUOUS:
            raise error
        if self._opens(key, algorithm, lambda: self._ciphers.seal_probe(key, algorithm)):
            raise Outcome(wire.Failure.REFUSED, error.code)
        raise Outcome(wire.Failure.UNAVAILABLE, error.code)

    def _open(self, request: wire.Open) -> wire.OpenedValues:
        return self._with_key(request.cka_id, lambda key: self._open_all(key, request))

    def _open_all(self, key: StoredKey, request: wire.Open) -> wire.OpenedValues:
        opened = wire.OpenedValues([])
        lengths = _Lengths(key, request.algorithm)
        try:
            for index, value in enumerate(request.values):
                if not lengths.fit(value):
                    raise Outcome(wire.Failure.INVALID_CIPHERTEXT, index=index)
                opened.values.append(self._open_one(key, request.algorithm, index, value))
        except BaseException:
            opened.wipe()
            raise
        return opened

    def _open_one(self, key: StoredKey, algorithm: Algorithm, index: int, value: wire.OpenValue) -> bytearray:
        bad: Outcome | None = None
        for _ in range(_TRIES):  # a fault that passes makes no value bad
            try:
                return self._ciphers.open(key, algorithm, value)
            except CkrError as error:
                bad = self._settle_opening(key, algorithm, error, index)
            except Outcome as outcome:
                raise Outcome(outcome.failed.failure, outcome.failed.ckr, index=index) from None
        assert bad is not None
        raise bad

    def _settle_opening(self, key: StoredKey, algorithm: Algorithm, error: CkrError, index: int) -> Outcome:
        """What the value is, if it does not open now that the token is seen to work. Raises where the error says more,
        or the token does not."""
        kind = ckr.class_of(error.code)
        if _says_nothing_of_the_value(error):
            raise error
        if key.spec.asymmetric:
            bad = Outcome(wire.Failure.INVALID_CIPHERTEXT, index=index)
        else:
            bad = Outcome(wire.Failure.INVALID_CIPHERTEXT, error.code, index=index)
            if kind is CkrClass.DATA:
                raise bad
            if kind is not CkrClass.AMBIGUOUS:
                raise error
        if not self._opens(key, algorithm, lambda: self._canary(key, algorithm)):
            raise Outcome(wire.Failure.UNAVAILABLE, error.code)
        return bad

    def _canary(self, key: StoredKey, algorithm: Algorithm) -> wire.OpenValue:
        return self._canaries.get(key.cka_id, algorithm, lambda: self._ciphers.seal_probe(key, algorithm))

    def _opens(self, key: StoredKey, algorithm: Algorithm, probe: Callable[[], wire.OpenValue]) -> bool:
        """Whether the token works under this key: what is known to be good decrypts. Raises CkrError where that says
        more, Outcome."""
        try:
            return self._ciphers.opens_probe(key, algorithm, probe())
        except CkrError as failure:
            if ckr.class_of(failure.code) in (CkrClass.AMBIGUOUS, CkrClass.DATA):  # what is known to be good is not bad
                raise Outcome(wire.Failure.UNAVAILABLE, failure.code) from None
            raise

    def _with_key(self, cka_id: bytes, use: Callable[[StoredKey], _Result]) -> _Result:
        """Run with the key; once more, looked up again, if the token does not know its handle any longer."""
        try:
            return use(self._key(cka_id))
        except CkrError as error:
            if ckr.class_of(error.code) is not CkrClass.HANDLE:
                raise
        self._known.pop(cka_id, None)
        self._canaries.forget(cka_id)
        return use(self._key(cka_id))

    def _key(self, cka_id: bytes) -> StoredKey:
        known = self._known.get(cka_id)
        if known is None:
            known = self._known[cka_id] = self._store.look_up(cka_id)
        return known

    def _judge(self, code: int) -> wire.Failed:
        """What an error says that nothing above could place."""
        if ckr.class_of(code) in _OUTAGE:
            return wire.Failed(wire.Failure.UNAVAILABLE, code)
        try:
            self._token.check_health(self._session)
        except Outcome as outcome:
            return outcome.failed
        return wire.Failed(wire.Failure.REFUSED, code)


def _says_nothing_of_the_value(error: CkrError) -> bool:
    kind = ckr.class_of(error.code)
    return isinstance(error, NotDestroyedError) or kind in _OUTAGE or kind is CkrClass.HANDLE


class _Lengths:
    """What the parts of a value under this key measure: nothing else goes to the token. Made once for all of a request,
    since a value's own time is little."""

    def __init__(self, key: StoredKey, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._nonce = algorithm.nonce_bytes
        self._tag = algorithm.tag_bytes
        self._wrapped_key = modulus_bytes(key.spec) or 0
        self._longest = algorithm.ciphertext_bytes(MAX_PLAINTEXT_BYTES)

    def fit(self, value: wire.OpenValue) -> bool:
        """Whether this one has them."""
        size = self._algorithm.plaintext_bytes(len(value.body) - self._tag)
        return (
            len(value.nonce) == self._nonce
            and len(value.wrapped_key) == self._wrapped_key
            and size is not None
            and size <= self._longest
        )
