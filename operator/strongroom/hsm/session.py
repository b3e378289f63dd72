# SPDX-License-Identifier: Apache-2.0
"""One session with the token: requests in, replies out, and what each return code leads to.

DATA                     the value is bad
AMBIGUOUS, opening       the key's canary: decrypts → the value is bad; does not → outage
AMBIGUOUS, sealing       a fresh round trip under the same key: works → refused; fails → outage
HANDLE                   look the key up again, once; not found on a healthy token → the key is missing
SESSION, LOGIN, DEVICE   outage: the operator replaces this process
the rest                 refused, if the token is healthy
"""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from strongroom.hsm import ckr, wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.canary import PROBE, PROBE_AAD, Canaries, seal_probe
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.keystore import KeyStore
from strongroom.hsm.module import CkrError, OpenToken, Outcome
from strongroom.model.limits import MAX_PLAINTEXT_BYTES, NONCE_BYTES, TAG_BYTES

_Result = TypeVar("_Result")
_OUTAGE = frozenset({CkrClass.SESSION, CkrClass.LOGIN, CkrClass.DEVICE})


class TokenSession:
    """Serves requests on one PKCS#11 session. Belongs to one thread."""

    def __init__(self, token: OpenToken, canaries: Canaries) -> None:
        session = token.new_session()
        self._token = token
        self._canaries = canaries
        self._aead = AesGcm(token.functions, session)
        self._keys = KeyStore(token, session, self._aead)
        self._handles: dict[bytes, int] = {}

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
                return wire.FoundKeys(self._keys.find(request.id_prefix))
            case wire.Generate():
                return wire.FoundKeys([self._keys.generate(request.cka_id, request.label)])
            case wire.Verify():
                self._with_key(request.cka_id, self._keys.verify)
                return wire.Done()
            case wire.DescribeToken():
                self._token.check_health()
                return self._token.describe()
            case wire.Start() | wire.LogIn():
                raise wire.ProtocolError("a worker was started twice")

    def _seal(self, request: wire.Seal) -> wire.SealedValues:
        try:
            return wire.SealedValues(self._with_key(request.cka_id, lambda key: self._seal_all(key, request.values)))
        finally:
            for value in request.values:
                wire.wipe(value.plaintext)

    def _seal_all(self, key: int, values: list[wire.SealValue]) -> list[wire.SealedValue]:
        """Draws its own nonces, so that a second attempt has new ones."""
        sealed = []
        for value, nonce in zip(values, self._aead.nonces(len(values)), strict=True):
            try:
                body = self._aead.encrypt(key, nonce, value.plaintext, value.aad)
            except CkrError as error:
                refused = Outcome(wire.Failure.REFUSED, error.code)
                self._settle(error, lambda: self._round_trip_works(key), if_well=refused)
            sealed.append(wire.SealedValue(nonce, body))
        return sealed

    def _open(self, request: wire.Open) -> wire.OpenedValues:
        return self._with_key(request.cka_id, lambda key: self._open_all(request.cka_id, key, request.values))

    def _open_all(self, cka_id: bytes, key: int, values: list[wire.OpenValue]) -> wire.OpenedValues:
        opened = wire.OpenedValues([])
        try:
            for index, value in enumerate(values):
                opened.values.append(self._open_one(cka_id, key, index, value))
        except BaseException:
            opened.wipe()
            raise
        return opened

    def _open_one(self, cka_id: bytes, key: int, index: int, value: wire.OpenValue) -> bytearray:
        size = len(value.body) - TAG_BYTES
        if len(value.nonce) != NONCE_BYTES or not 0 <= size <= MAX_PLAINTEXT_BYTES:
            raise Outcome(wire.Failure.INVALID_CIPHERTEXT, index=index)
        try:
            return self._aead.decrypt(key, value.nonce, value.body, value.aad)
        except CkrError as error:
            bad = Outcome(wire.Failure.INVALID_CIPHERTEXT, error.code, index=index)
            if ckr.class_of(error.code) is CkrClass.DATA:
                raise bad from None
            self._settle(error, lambda: self._canaries.works(self._aead, cka_id, key), if_well=bad)

    def _round_trip_works(self, key: int) -> bool:
        nonce, body = seal_probe(self._aead, key)
        return self._aead.decrypt(key, nonce, body, PROBE_AAD) == PROBE

    def _settle(self, error: CkrError, works: Callable[[], bool], *, if_well: Outcome) -> NoReturn:
        """After an AMBIGUOUS error: the token works under this key → `if_well`; it does not → outage. Other errors are
        raised again."""
        if ckr.class_of(error.code) is not CkrClass.AMBIGUOUS:
            raise error
        try:
            well = works()
        except CkrError as failure:
            if ckr.class_of(failure.code) in (CkrClass.AMBIGUOUS, CkrClass.DATA):  # what is known to be good is not bad
                raise Outcome(wire.Failure.UNAVAILABLE, failure.code) from None
            raise
        raise (if_well if well else Outcome(wire.Failure.UNAVAILABLE, error.code)) from None

    def _with_key(self, cka_id: bytes, use: Callable[[int], _Result]) -> _Result:
        """Run with the key's handle; once more with a new one if the token does not know it any longer."""
        try:
            return use(self._handle(cka_id))
        except CkrError as error:
            if ckr.class_of(error.code) is not CkrClass.HANDLE:
                raise
        self._handles.pop(cka_id, None)
        self._canaries.forget(cka_id)
        return use(self._handle(cka_id))

    def _handle(self, cka_id: bytes) -> int:
        cached = self._handles.get(cka_id)
        if cached is not None:
            return cached
        handles = self._keys.handles(cka_id)
        if not handles:
            self._token.check_health()
            raise Outcome(wire.Failure.KEY_NOT_FOUND)
        if len(handles) > 1:
            raise Outcome(wire.Failure.KEY_TWINS)
        self._handles[cka_id] = handles[0]
        return handles[0]

    def _judge(self, code: int) -> wire.Failed:
        """What an error says that nothing above could place."""
        if ckr.class_of(code) in _OUTAGE:
            return wire.Failed(wire.Failure.UNAVAILABLE, code)
        try:
            self._token.check_health()
        except Outcome as outcome:
            return outcome.failed
        return wire.Failed(wire.Failure.REFUSED, code)
