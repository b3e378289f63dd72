# SPDX-License-Identifier: Apache-2.0
"""Keys of the test vectors. They are published: never use them for anything else."""

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

AES_KEY = bytes(range(32))
OTHER_AES_KEY = bytes(range(32, 64))
AUTHENTICATION_KEY = bytes(range(64, 96))

_P_3072 = int(
    "e53e01357da99371a5be6796c83eb10e23700d8ce4a4ff877067d4b7a1d0e8ce6724600e19b66252fc6084b25c035b72"
    "39db163e8d39550d65b4180ea743e0d2fc6c8844299a123370c412a84b70ba8e7f0486ce78742adcd6641f333d6a0458"
    "4c45c73bfb664a876862615d7e39ad66f435479257ed7b7bff68da918badd824658c1d1e1cacc10eef70b1ca9518b306"
    "59de452fea77c255197a85efa212563125173ee2c730c61d92f6a330dc57d1bd11060ace42d6aee279b7c322be687281",
    16,
)
_Q_3072 = int(
    "ca2baa0dcb090b031b95504274e2a0f14e6a2e6ad0a63c4a9dae274d8fa140d0bd08cfe790edda2e8961badd012a97c7"
    "e965ff9a09644d40b091d89e111cf53fcb74015d86210f4f2034999bb0993802d94f7d18f711e99eec164a0bcd671dcd"
    "f3b7d653d9ca8d5a1cddb9b4fc4e582e53722f85c93051c7505014dd2dff1825f9150d921e3b912b9835bdfcf857b11f"
    "90873cc0429db6efd49ae0aece88f49b373688b72ef5f536f6293ecd91c6f1efc85c4124321c4619be77774c22097869",
    16,
)
_P_4096 = int(
    "ce05ac3cdedd0f9429f50f3beab7cb9b3965d1177855459666378d5d3042beb4ab3c46e4c20c0652e99cbba10fbf063e"
    "4beae04348bb3139e853996eb75698f62d1b7eb41e8bf362732bbd9acb3bbf0f025edeefbd068ac376ebf5de2d8ac85d"
    "3bad94ad3784a8c49e9a500d29db3f3fdf004da51c60a267abdb80e73814fccf7f4617c66f2f1fa258a311781ad14090"
    "6a69cea9af38acc8ed9ddc33336f29a2630d3ecc77935a73dba805afe3367c0f83ecadd49ed8a0385fa6230bf534e5c5"
    "60ac587985dcc1f24305ab28c4a0013585c4cc5bc23baf1db25779059e95da7007d9132850b4d8155e55543b6baf8864"
    "48586e570fad46133f3f1f87cf4b5909",
    16,
)
_Q_4096 = int(
    "cb867ef9f39cc63048200b8c3e386c47e7aacb5ae48c878e66079be6f3e8faebdd01cdcf687d6d1b6b1190de4626ef44"
    "c7617fb446479775b9fce65ffef15d05fa7f263ed6dc92f863953e874314965c876f6a513522879bbcce4b5f9d81f5e0"
    "c94601982338f81aba436024efaa45b8963d63f1c8860d1afe3a41bccc2c78f7f5eabee0c89c70b53cad479a34896996"
    "fb01449e9f23ba9742076caf862c3044e0c26b0b2af6f5d2efca91e905d94ffb3d5458468995a5406c13a38f158cb029"
    "a64a6b626e327018479550770f163ce5b437a1bcd35acdcce54c721888552a04c7d0193f462b3be66567d03cc089501c"
    "f4b72333ef8a695ec78c3f5449238fc7",
    16,
)


def _private_key(p: int, q: int, e: int = 65537) -> rsa.RSAPrivateKey:
    d = pow(e, -1, (p - 1) * (q - 1))
    return rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), rsa.RSAPublicNumbers(e, p * q)
    ).private_key()


RSA_KEYS = {"RSA_3072": _private_key(_P_3072, _Q_3072), "RSA_4096": _private_key(_P_4096, _Q_4096)}


def pem(name: str) -> str:
    """One of them as PKCS#8."""
    return RSA_KEYS[name].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
