# SPDX-License-Identifier: Apache-2.0
"""The serving certificate: made, trusted, renewed and rotated without a restart or a gap."""

import asyncio
import base64
import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.apiserver.certificates import create_authority, sign_leaf
from strongroom.apiserver.servingcert import ServingCertificates
from strongroom.kube import paths
from strongroom.kube.client import ApiError
from tests.apiserver.harness import NAMESPACE, SECRET_PATH, Clock, FakeKube, Harness

KEYS = "/apis/crypto.strongroom.dev/v1alpha1/namespaces/shop/keys"


@pytest.fixture
def kube() -> FakeKube:
    fake = FakeKube()
    fake.put(paths.API_SERVICE, {"spec": {}})
    return fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _replica(kube: FakeKube, clock: Clock) -> ServingCertificates:
    return ServingCertificates(kube, NAMESPACE, "strongroom", clock=clock)  # type: ignore[arg-type]


def _bundle(kube: FakeKube) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(kube.ca_bundle.encode())


def _secret(kube: FakeKube, field: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(kube.objects[SECRET_PATH]["data"][field]))


async def test_authority_and_leaf_are_what_kube_apiserver_accepts(kube: FakeKube, clock: Clock) -> None:
    leaf = await _replica(kube, clock).refresh()

    ca = _secret(kube, "tls.crt")
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert ca.not_valid_after_utc == clock() + datetime.timedelta(days=365)
    assert _bundle(kube) == [ca]
    certificate = leaf.certificate
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "strongroom",
        "strongroom.strongroom-system",
        "strongroom.strongroom-system.svc",
        "strongroom.strongroom-system.svc.cluster.local",
    ]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    authority_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority_id.key_identifier == ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert certificate.not_valid_before_utc == clock() - datetime.timedelta(minutes=5)
    assert certificate.not_valid_after_utc == clock() + datetime.timedelta(days=30)


async def test_two_authorities_have_different_subjects(clock: Clock) -> None:
    assert create_authority(clock()).certificate.subject != create_authority(clock()).certificate.subject


async def test_nothing_is_written_while_nothing_is_due(kube: FakeKube, clock: Clock) -> None:
    replica = _replica(kube, clock)
    first = await replica.refresh()
    kube.writes.clear()
    clock.advance(days=19)

    assert await replica.refresh() is first
    assert kube.writes == []


async def test_second_replica_and_restart_use_the_same_authority(kube: FakeKube, clock: Clock) -> None:
    first = await _replica(kube, clock).refresh()
    kube.writes.clear()

    second = await _replica(kube, clock).refresh()

    assert (second.issuer, kube.writes) == (first.issuer, [])
    assert second.certificate != first.certificate


async def test_replica_that_loses_the_race_to_create_uses_the_winners_authority(kube: FakeKube, clock: Clock) -> None:
    other = FakeKube()
    other.put(paths.API_SERVICE, {"spec": {}})
    winner = _replica(other, clock)
    won = await winner.refresh()

    def another_was_first() -> None:
        kube.before_write = lambda: None
        kube.put(SECRET_PATH, other.objects[SECRET_PATH])

    kube.before_write = another_was_first

    assert (await _replica(kube, clock).refresh()).issuer == won.issuer


async def test_leaf_is_renewed_ten_days_before_its_end(kube: FakeKube, clock: Clock) -> None:
    replica = _replica(kube, clock)
    first = await replica.refresh()
    clock.advance(days=20)

    second = await replica.refresh()

    assert second.certificate != first.certificate
    assert second.issuer == first.issuer


async def test_authority_rotates_in_three_steps(kube: FakeKube, clock: Clock) -> None:
    replicas = [_replica(kube, clock) for _ in range(2)]
    for replica in replicas:
        await replica.refresh()
    old = _secret(kube, "tls.crt")
    clock.advance(days=304)
    for replica in replicas:
        assert (await replica.refresh()).issuer == old
    clock.advance(days=1)

    # 1: the bundle holds both, while the leaf is still the old CA's.
    leaf = await replicas[0].refresh()
    new = _secret(kube, "tls.crt")
    assert new != old
    assert _bundle(kube) == [new, old]
    assert leaf.issuer == old
    leaf.certificate.verify_directly_issued_by(old)

    # 2: one round later the leaf is the new CA's; the other replica sees the bundle published and follows.
    for replica in replicas:
        leaf = await replica.refresh()
        leaf.certificate.verify_directly_issued_by(new)
    assert _bundle(kube) == [new, old]

    # 3: when every leaf of the old CA has ended, it leaves Secret and bundle.
    clock.advance(days=29)
    await replicas[0].refresh()
    assert _bundle(kube) == [new, old]
    clock.advance(days=1, hours=1)
    await replicas[0].refresh()
    assert _bundle(kube) == [new]
    assert "previous.crt" not in kube.objects[SECRET_PATH]["data"]


async def test_bundle_that_something_changed_is_put_right(kube: FakeKube, clock: Clock) -> None:
    replica = _replica(kube, clock)
    await replica.refresh()
    wanted = kube.ca_bundle
    for wrong in ("", "bm90IGEgY2VydGlmaWNhdGU=", "!"):
        kube.objects[paths.API_SERVICE]["spec"]["caBundle"] = wrong

        await replica.refresh()

        assert kube.ca_bundle == wanted


async def test_deleted_secret_gives_a_new_authority_and_a_leaf_of_it_at_once(kube: FakeKube, clock: Clock) -> None:
    replica = _replica(kube, clock)
    await replica.refresh()
    del kube.objects[SECRET_PATH]

    leaf = await replica.refresh()

    assert _bundle(kube) == [leaf.issuer] == [_secret(kube, "tls.crt")]


def _swap_key(kube: FakeKube, clock: Clock) -> None:
    kube.objects[SECRET_PATH]["data"]["tls.key"] = base64.b64encode(create_authority(clock()).key_pem()).decode()


def _use_leaf_as_authority(kube: FakeKube, clock: Clock) -> None:
    pem = sign_leaf(create_authority(clock()), ("a",), clock()).key_and_certificate
    encoded = base64.b64encode(pem).decode()
    kube.objects[SECRET_PATH]["data"] |= {"tls.crt": encoded, "tls.key": encoded}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_swap_key, id="key-of-another"),
        pytest.param(_use_leaf_as_authority, id="not-a-ca"),
        pytest.param(lambda kube, _: kube.objects[SECRET_PATH]["data"].clear(), id="empty"),
        pytest.param(lambda kube, _: kube.objects[SECRET_PATH].pop("data"), id="no-data"),
        pytest.param(lambda kube, _: kube.objects[SECRET_PATH]["data"].update({"tls.key": "IQ=="}), id="garbage"),
        pytest.param(lambda kube, _: kube.objects[SECRET_PATH]["data"].update({"tls.crt": "?"}), id="no-base64"),
        pytest.param(lambda kube, _: kube.objects[SECRET_PATH]["data"].update({"previous.crt": "IQ=="}), id="previous"),
    ],
)
async def test_unusable_secret_is_replaced(kube: FakeKube, clock: Clock, damage) -> None:  # type: ignore[no-untyped-def]
    replica = _replica(kube, clock)
    await replica.refresh()
    damage(kube, clock)

    leaf = await replica.refresh()

    leaf.certificate.verify_directly_issued_by(_secret(kube, "tls.crt"))
    assert _bundle(kube) == [_secret(kube, "tls.crt")]


async def test_expired_authority_is_replaced(kube: FakeKube, clock: Clock) -> None:
    await _replica(kube, clock).refresh()
    clock.advance(days=400)

    leaf = await _replica(kube, clock).refresh()

    assert leaf.certificate.not_valid_after_utc == clock() + datetime.timedelta(days=30)
    leaf.certificate.verify_directly_issued_by(_secret(kube, "tls.crt"))


async def test_missing_api_service_is_reported_and_the_leaf_is_there_when_it_appears(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    kube = FakeKube()
    replica = _replica(kube, clock)

    leaf = await replica.refresh()
    assert "caBundle" in caplog.text
    kube.put(paths.API_SERVICE, {"spec": {}})

    assert await replica.refresh() is leaf
    assert _bundle(kube) == [leaf.issuer]


async def test_foreign_labels_of_the_secret_survive_a_rotation(kube: FakeKube, clock: Clock) -> None:
    await _replica(kube, clock).refresh()
    kube.objects[SECRET_PATH]["metadata"]["labels"]["team"] = "platform"
    clock.advance(days=310)

    await _replica(kube, clock).refresh()

    labels = kube.objects[SECRET_PATH]["metadata"]["labels"]
    assert labels == {"team": "platform", "app.kubernetes.io/managed-by": "strongroom"}


async def test_private_keys_are_not_shown(clock: Clock) -> None:
    authority = create_authority(clock())
    leaf = sign_leaf(authority, ("a",), clock())

    assert "PRIVATE" not in f"{authority!r}{leaf!r}"


async def test_private_key_reaches_openssl_through_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load_cert_chain = ssl.SSLContext.load_cert_chain

    def watch(context: ssl.SSLContext, path: str) -> None:
        loaded.append(os.readlink(path))
        load_cert_chain(context, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    harness = Harness(tmp_path)
    await harness.server.start()
    await harness.server.wait_until_serving()
    await harness.server.stop()

    assert [path.partition(":")[0] for path in loaded] == ["/memfd"]


async def test_leaf_is_renewed_on_the_running_server(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.clock.advance(days=-20)  # so that both certificates are valid now
    async with harness, harness.client() as client:
        before = await _shown_certificate(harness)
        harness.clock.advance(days=20)
        await harness.server.upkeep()

        after = await _shown_certificate(harness)
        assert after.serial_number != before.serial_number
        assert after.not_valid_after_utc == harness.clock() + datetime.timedelta(days=30)
        assert (await client("GET", KEYS)).status == 200


async def test_server_that_cannot_reach_the_api_server_listens_when_it_can(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.kube.failing[SECRET_PATH] = ApiError(0, "ClientConnectorError")
    await harness.server.start()
    try:
        await harness.server.upkeep()
        with pytest.raises(OSError):
            await _shown_certificate(harness)
        harness.kube.failing.clear()
        await harness.server.upkeep()
        assert (await _shown_certificate(harness)).issuer
    finally:
        await harness.server.stop()


async def _shown_certificate(harness: Harness) -> x509.Certificate:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", harness.server.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(shown)
