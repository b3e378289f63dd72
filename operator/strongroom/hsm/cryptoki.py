# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 itself: structures, numbers, and the C functions of one library that this layer calls.

Ours, not a binding's: every return code arrives as the number it is, no length is asked for first, buffers are the
caller's to overwrite, and any mechanism number goes (docs/decisions/0011-own-pkcs11-binding.md). Names and numbers are
those of PKCS#11 2.40 with errata 1 (pkcs11t.h, pkcs11f.h).
"""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from strongroom.hsm import ckr

CK_UNAVAILABLE_INFORMATION = 2 ** (8 * ctypes.sizeof(ctypes.c_ulong)) - 1
CK_EFFECTIVELY_INFINITE = 0

CKF_OS_LOCKING_OK = 0x02
CKF_RW_SESSION = 0x02
CKF_SERIAL_SESSION = 0x04
CKF_USER_PIN_FINAL_TRY = 0x00020000
CKF_USER_PIN_LOCKED = 0x00040000
CKU_USER = 1
CKS_USER_STATES = (1, 3)
"""CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS: logged in."""

CKO_PUBLIC_KEY = 2
CKO_PRIVATE_KEY = 3
CKO_SECRET_KEY = 4
CKK_RSA = 0x00
CKK_GENERIC_SECRET = 0x10
CKK_AES = 0x1F
CKK_SHA256_HMAC = 0x2B

CKA_CLASS = 0x00
CKA_TOKEN = 0x01
CKA_PRIVATE = 0x02
CKA_LABEL = 0x03
CKA_VALUE = 0x11
CKA_KEY_TYPE = 0x100
CKA_ID = 0x102
CKA_SENSITIVE = 0x103
CKA_ENCRYPT = 0x104
CKA_DECRYPT = 0x105
CKA_WRAP = 0x106
CKA_UNWRAP = 0x107
CKA_SIGN = 0x108
CKA_SIGN_RECOVER = 0x109
CKA_VERIFY = 0x10A
CKA_DERIVE = 0x10C
CKA_MODULUS = 0x120
CKA_MODULUS_BITS = 0x121
CKA_PUBLIC_EXPONENT = 0x122
CKA_PRIVATE_EXPONENT = 0x123
CKA_VALUE_LEN = 0x161
CKA_EXTRACTABLE = 0x162
CKA_NEVER_EXTRACTABLE = 0x164
CKA_MODIFIABLE = 0x170

CKM_RSA_PKCS_KEY_PAIR_GEN = 0x0000
CKM_RSA_PKCS_OAEP = 0x0009
CKM_SHA_1 = 0x0220
CKM_SHA256 = 0x0250
CKM_SHA256_HMAC = 0x0251
CKM_GENERIC_SECRET_KEY_GEN = 0x0350
CKM_AES_KEY_GEN = 0x1080
CKM_AES_CBC = 0x1082
CKM_AES_CBC_PAD = 0x1085
CKM_AES_KEY_WRAP = 0x2109
CKM_AES_KEY_WRAP_PAD = 0x210A
CKM_AES_KEY_WRAP_KWP = 0x210B
CKG_MGF1_SHA1 = 1
CKG_MGF1_SHA256 = 2
CKZ_DATA_SPECIFIED = 1

MAX_ATTRIBUTE_BYTES = 512
"""Room for each attribute that is read: a modulus of 4096 bits, a label."""

ulong = ctypes.c_ulong
pointer = ctypes.c_void_p

AttributeValue = bool | int | bytes
"""CK_BBOOL, CK_ULONG, or bytes."""


class CkrError(Exception):
    """A PKCS#11 function did not return CKR_OK."""

    def __init__(self, code: int) -> None:
        super().__init__(ckr.name_of(code))
        self.code = code


class NotDestroyedError(CkrError):
    """What was done with a temporary key is done, but the key is still there."""


class Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", ulong), ("parameter", pointer), ("parameter_length", ulong))

    def __init__(self, mechanism: int, parameters: ctypes.Structure | ctypes.Array[Any] | None = None) -> None:
        if parameters is None:
            super().__init__(mechanism)
        else:
            super().__init__(mechanism, ctypes.addressof(parameters), ctypes.sizeof(parameters))
        self._parameters = parameters  # the address above is good for as long as this lives


class GcmParameters(ctypes.Structure):
    """CK_GCM_PARAMS."""

    _fields_ = (
        ("iv", pointer),
        ("iv_length", ulong),
        ("iv_bits", ulong),
        ("aad", pointer),
        ("aad_length", ulong),
        ("tag_bits", ulong),
    )


class OaepParameters(ctypes.Structure):
    """CK_RSA_PKCS_OAEP_PARAMS."""

    _fields_ = (
        ("hash", ulong),
        ("mgf", ulong),
        ("source", ulong),
        ("source_data", pointer),
        ("source_data_length", ulong),
    )


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", ulong), ("value", pointer), ("length", ulong))


class Template:
    """CK_ATTRIBUTE[] from a mapping. Lives as long as the call that uses it."""

    def __init__(self, attributes: Mapping[int, AttributeValue]) -> None:
        self._buffers = [_pack(value) for value in attributes.values()]
        self.array = (Attribute * len(attributes))(
            *(
                Attribute(kind, ctypes.addressof(buffer), ctypes.sizeof(buffer))
                for kind, buffer in zip(attributes, self._buffers, strict=True)
            )
        )
        self.count = len(attributes)


def _pack(value: AttributeValue) -> Any:
    if isinstance(value, bool):  # before int, which it is, too
        return ctypes.c_ubyte(value)
    if isinstance(value, int):
        return ulong(value)
    return (ctypes.c_char * len(value)).from_buffer_copy(value) if value else (ctypes.c_char * 0)()


class InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("create_mutex", pointer),
        ("destroy_mutex", pointer),
        ("lock_mutex", pointer),
        ("unlock_mutex", pointer),
        ("flags", ulong),
        ("reserved", pointer),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte))


class TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("label", ctypes.c_char * 32),
        ("manufacturer", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", ulong),
        ("max_sessions", ulong),
        ("sessions", ulong),
        ("max_rw_sessions", ulong),
        ("rw_sessions", ulong),
        ("max_pin", ulong),
        ("min_pin", ulong),
        ("total_public_memory", ulong),
        ("free_public_memory", ulong),
        ("total_private_memory", ulong),
        ("free_private_memory", ulong),
        ("hardware_version", _Version),
        ("firmware_version", _Version),
        ("utc_time", ctypes.c_char * 16),
    )


class SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = (("slot", ulong), ("state", ulong), ("flags", ulong), ("device_error", ulong))


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST: a version, then 68 functions in the order of pkcs11f.h."""

    _fields_ = (("version", _Version), ("functions", pointer * 68))


_IN_PLACE = (ulong, pointer, ulong, pointer, pointer)
"""session, input, its length, output, length in and out."""
_FUNCTIONS: dict[str, tuple[int, tuple[Any, ...]]] = {
    # position in CK_FUNCTION_LIST, types of the arguments
    "C_Initialize": (0, (pointer,)),
    "C_Finalize": (1, (pointer,)),
    "C_GetSlotList": (4, (ctypes.c_ubyte, pointer, pointer)),
    "C_GetTokenInfo": (6, (ulong, pointer)),
    "C_GetMechanismList": (7, (ulong, pointer, pointer)),
    "C_OpenSession": (12, (ulong, ulong, pointer, pointer, pointer)),
    "C_GetSessionInfo": (15, (ulong, pointer)),
    "C_Login": (18, (ulong, ulong, pointer, ulong)),
    "C_DestroyObject": (22, (ulong, ulong)),
    "C_GetAttributeValue": (24, (ulong, ulong, pointer, ulong)),
    "C_FindObjectsInit": (26, (ulong, pointer, ulong)),
    "C_FindObjects": (27, (ulong, pointer, ulong, pointer)),
    "C_FindObjectsFinal": (28, (ulong,)),
    "C_EncryptInit": (29, (ulong, pointer, ulong)),
    "C_Encrypt": (30, _IN_PLACE),
    "C_DecryptInit": (33, (ulong, pointer, ulong)),
    "C_Decrypt": (34, _IN_PLACE),
    "C_SignInit": (42, (ulong, pointer, ulong)),
    "C_Sign": (43, _IN_PLACE),
    "C_VerifyInit": (48, (ulong, pointer, ulong)),
    "C_Verify": (49, (ulong, pointer, ulong, pointer, ulong)),
    "C_GenerateKey": (58, (ulong, pointer, pointer, ulong, pointer)),
    "C_GenerateKeyPair": (59, (ulong, pointer, pointer, ulong, pointer, ulong, pointer, pointer)),
    "C_WrapKey": (60, (ulong, pointer, ulong, ulong, pointer, pointer)),
    "C_UnwrapKey": (61, (ulong, pointer, ulong, pointer, ulong, pointer, ulong, pointer)),
    "C_GenerateRandom": (64, (ulong, pointer, ulong)),
}
FUNCTION_NAMES: Sequence[str] = tuple(_FUNCTIONS)
"""Everything this layer calls, besides C_GetFunctionList."""


class Functions:
    """The C functions of one library, by their names. Each releases the GIL while it runs and raises CkrError.

    Raises OSError or AttributeError if the file is no library, or none of PKCS#11.
    """

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        table = ctypes.POINTER(_FunctionList)()
        check(library.C_GetFunctionList(ctypes.byref(table)))
        pointers = table.contents.functions

        def bind(name: str) -> Callable[..., int]:
            position, arguments = _FUNCTIONS[name]
            if not pointers[position]:
                return _not_supported
            return _checked(ctypes.CFUNCTYPE(ulong, *arguments)(pointers[position]))

        self.C_Initialize = bind("C_Initialize")
        self.C_Finalize = bind("C_Finalize")
        self.C_GetSlotList = bind("C_GetSlotList")
        self.C_GetTokenInfo = bind("C_GetTokenInfo")
        self.C_GetMechanismList = bind("C_GetMechanismList")
        self.C_OpenSession = bind("C_OpenSession")
        self.C_GetSessionInfo = bind("C_GetSessionInfo")
        self.C_Login = bind("C_Login")
        self.C_DestroyObject = bind("C_DestroyObject")
        self.C_GetAttributeValue = bind("C_GetAttributeValue")
        self.C_FindObjectsInit = bind("C_FindObjectsInit")
        self.C_FindObjects = bind("C_FindObjects")
        self.C_FindObjectsFinal = bind("C_FindObjectsFinal")
        self.C_EncryptInit = bind("C_EncryptInit")
        self.C_Encrypt = bind("C_Encrypt")
        self.C_DecryptInit = bind("C_DecryptInit")
        self.C_Decrypt = bind("C_Decrypt")
        self.C_SignInit = bind("C_SignInit")
        self.C_Sign = bind("C_Sign")
        self.C_VerifyInit = bind("C_VerifyInit")
        self.C_Verify = bind("C_Verify")
        self.C_GenerateKey = bind("C_GenerateKey")
        self.C_GenerateKeyPair = bind("C_GenerateKeyPair")
        self.C_WrapKey = bind("C_WrapKey")
        self.C_UnwrapKey = bind("C_UnwrapKey")
        self.C_GenerateRandom = bind("C_GenerateRandom")


def _not_supported(*_: object) -> int:
    """In place of a function that the library should have, if only to say this."""
    raise CkrError(ckr.CKR_FUNCTION_NOT_SUPPORTED)


def _checked(function: Any) -> Callable[..., int]:
    """ctypes looks at every return value through `errcheck`: no wrapper of Python's is called on the way in."""
    function.errcheck = _errcheck
    return function  # type: ignore[no-any-return]


def _errcheck(code: int, _function: object, _arguments: object) -> int:
    if code != ckr.CKR_OK:
        raise CkrError(code)
    return code


def check(code: int) -> None:
    """Raises CkrError for everything but CKR_OK."""
    if code != ckr.CKR_OK:
        raise CkrError(code)


class KeyHandles(NamedTuple):
    """Handles of one key version, as one session knows them."""

    main: int
    """AES key, or RSA private key."""
    authentication: int = 0
    """The HMAC key beside an AES key that works in CBC mode; else 0."""


class CryptokiSession:
    """One session: its handle, and what takes more than one call. Not for two threads at a time. Raises CkrError."""

    def __init__(self, functions: Functions, handle: int) -> None:
        self.functions = functions
        self.handle = handle

    @classmethod
    def open(cls, functions: Functions, slot: int, *, read_write: bool) -> "CryptokiSession":
        """C_OpenSession."""
        handle = ulong()
        flags = CKF_SERIAL_SESSION | (CKF_RW_SESSION if read_write else 0)
        functions.C_OpenSession(slot, flags, None, None, ctypes.byref(handle))
        return cls(functions, handle.value)

    def find(self, attributes: Mapping[int, AttributeValue]) -> list[int]:
        """Handles of all objects that match; the search is ended whatever happens."""
        template = Template(attributes)
        self.functions.C_FindObjectsInit(self.handle, template.array, template.count)
        batch = (ulong * 64)()
        count = ulong()
        found: list[int] = []
        try:
            while True:
                self.functions.C_FindObjects(self.handle, batch, len(batch), ctypes.byref(count))
                if count.value == 0:
                    return found
                found += batch[: count.value]
        finally:
            self._end_search()

    def _end_search(self) -> None:
        try:
            self.functions.C_FindObjectsFinal(self.handle)
        except CkrError as error:
            if error.code != ckr.CKR_OPERATION_NOT_INITIALIZED:  # ended by the failure that brought us here
                raise

    def read(self, key: int, *attributes: int) -> list[bytes]:
        """Attributes that are no secrets, in one call; empty where the token has none such, will not say, or has more
        than any of ours can be."""
        buffers = [ctypes.create_string_buffer(MAX_ATTRIBUTE_BYTES) for _ in attributes]
        template = (Attribute * len(buffers))(
            *(
                Attribute(kind, ctypes.addressof(buffer), MAX_ATTRIBUTE_BYTES)
                for kind, buffer in zip(attributes, buffers, strict=True)
            )
        )
        try:
            self.functions.C_GetAttributeValue(self.handle, key, template, len(buffers))
        except CkrError as error:
            if error.code not in _NOT_TO_BE_READ:
                raise
            if len(attributes) == 1:
                return [b""]
            return [self.read(key, each)[0] for each in attributes]  # not every token has read the others
        return [
            buffer.raw[: read.length] if read.length <= MAX_ATTRIBUTE_BYTES else b""
            for buffer, read in zip(buffers, template, strict=True)
        ]

    def generate_key(self, mechanism: int, attributes: Mapping[int, AttributeValue]) -> int:
        """C_GenerateKey; the handle."""
        template, key = Template(attributes), ulong()
        self.functions.C_GenerateKey(
            self.handle, ctypes.byref(Mechanism(mechanism)), template.array, template.count, ctypes.byref(key)
        )
        return key.value

    def generate_key_pair(
        self, mechanism: int, public: Mapping[int, AttributeValue], private: Mapping[int, AttributeValue]
    ) -> tuple[int, int]:
        """C_GenerateKeyPair; handles of the public and the private key."""
        public_template, private_template, handles = Template(public), Template(private), (ulong * 2)()
        self.functions.C_GenerateKeyPair(
            *(self.handle, ctypes.byref(Mechanism(mechanism))),
            *(public_template.array, public_template.count, private_template.array, private_template.count),
            *(ctypes.byref(handles), ctypes.byref(handles, ctypes.sizeof(ulong))),
        )
        return handles[0], handles[1]

    def unwrap_key(
        self, mechanism: Mechanism, key: int, wrapped: bytes, attributes: Mapping[int, AttributeValue]
    ) -> int:
        """C_UnwrapKey; the handle."""
        template, unwrapped = Template(attributes), ulong()
        self.functions.C_UnwrapKey(
            *(self.handle, ctypes.byref(mechanism), key, wrapped, len(wrapped)),
            *(template.array, template.count, ctypes.byref(unwrapped)),
        )
        return unwrapped.value

    def destroy(self, key: int) -> None:
        """C_DestroyObject."""
        self.functions.C_DestroyObject(self.handle, key)

    @contextmanager
    def temporary(self, key: int) -> Iterator[int]:
        """A session key that is destroyed at the end of a `with` block. Raises NotDestroyedError, unless the block has
        failed."""
        try:
            yield key
        except BaseException:
            with suppress(CkrError):  # what went wrong first says more; the key dies with the session
                self.destroy(key)
            raise
        try:
            self.destroy(key)
        except CkrError as error:
            raise NotDestroyedError(error.code) from None


_NOT_TO_BE_READ = frozenset({ckr.CKR_ATTRIBUTE_TYPE_INVALID, ckr.CKR_ATTRIBUTE_SENSITIVE, ckr.CKR_BUFFER_TOO_SMALL})
