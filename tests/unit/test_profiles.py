# SPDX-License-Identifier: Apache-2.0
"""Vendor profiles: every file can be used, and a change that does not fit is refused by name."""

import re
from typing import Any

import pytest

from strongroom import profiles
from strongroom.model.algorithms import Algorithm
from strongroom.model.keys import KeySpec
from strongroom.profiles import IvSource, KeyTemplate, Marking, Profile, ProfileError
from tests.docs.documents import read, rows, section

TRIED_HERE = {"softhsm", "kryoptic", "nss"}


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_loads_and_says_where_it_comes_from(name: str) -> None:
    profile = profiles.load(name)
    assert profile.title
    assert profile.sources
    assert all(source.startswith("https://") for source in profile.sources)
    assert profile.notes
    assert profile.verified is (name in TRIED_HERE)
    assert profile.algorithm(KeySpec.AES_256) is profile.aes_algorithm


@pytest.mark.parametrize("name", profiles.names())
def test_what_a_profile_says_fits_together(name: str) -> None:
    profile = profiles.load(name)
    if profile.iv_source is IvSource.ZERO_BUFFER:
        assert profile.iv_bytes == 12
    if profile.key_template is KeyTemplate.CLOUD_KMS:  # it takes a label, and no id
        assert profile.marking is Marking.LABEL
    assert (profile.max_data_bytes > 0) <= (profile.aes_algorithm is Algorithm.AES_256_CBC_HMAC_SHA256)
    assert (profile.algorithm(KeySpec.RSA_3072) is None) == (profile.oaep_hash is None)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("softhsm", Algorithm.AES_256_GCM),
        ("aws-cloudhsm", Algorithm.AES_256_GCM),
        ("thales-luna-fips", Algorithm.AES_256_GCM_IV16),
        ("yubihsm2", Algorithm.AES_256_CBC_HMAC_SHA256),
    ],
)
def test_algorithm_of_values_follows_from_the_profile(name: str, algorithm: Algorithm) -> None:
    assert profiles.load(name).aes_algorithm is algorithm


def test_rsa_algorithm_follows_from_the_hash_that_the_token_has() -> None:
    assert profiles.load("softhsm").algorithm(KeySpec.RSA_4096) is Algorithm.RSA_OAEP_SHA1_AES_256_GCM
    assert profiles.load("kryoptic").algorithm(KeySpec.RSA_4096) is Algorithm.RSA_OAEP_SHA256_AES_256_GCM
    assert profiles.load("yubihsm2").algorithm(KeySpec.RSA_4096) is None


def test_google_and_amazon_have_mechanism_numbers_of_their_own() -> None:
    vendor_defined = 0x80000000
    assert profiles.load("google-cloud-kms").gcm_mechanism == vendor_defined | 0x1E100 | 0x01
    changes = {"gcmMechanism": vendor_defined | 0x1087, "ivSource": "prepended"}
    assert profiles.load("aws-cloudhsm", changes).gcm_mechanism == vendor_defined | 0x1087


def test_a_change_replaces_one_field_and_leaves_the_others() -> None:
    changed = profiles.load("thales-luna-fips", {"ivBytes": 12})
    assert (changed.iv_bytes, changed.iv_source) == (12, IvSource.APPENDED)
    assert changed.aes_algorithm is Algorithm.AES_256_GCM
    assert profiles.load("thales-luna-fips").iv_bytes == 16


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"ivBytse": 12}, "`ivBytse`", id="unknown-field"),
        pytest.param({"iv_bytes": 12}, "`iv_bytes`", id="name-of-python-not-of-yaml"),
        pytest.param({"ivSource": "guess"}, "`$.ivSource`", id="unknown-value"),
        pytest.param({"oaepHash": "md5"}, "`$.oaepHash`", id="unknown-hash"),
        pytest.param({"gcmMechanism": -1}, "`$.gcmMechanism`", id="negative-mechanism"),
        pytest.param({"gcmMechanism": 2**32}, "`$.gcmMechanism`", id="mechanism-of-more-than-32-bits"),
        pytest.param({"gcmMechanism": "0x1087"}, "`$.gcmMechanism`", id="text-for-a-number"),
        pytest.param({"maxDataBytes": -1}, "`$.maxDataBytes`", id="negative-size"),
        pytest.param({"sessions": 0}, "`$.sessions`", id="no-sessions"),
        pytest.param({"sessions": 65}, "`$.sessions`", id="too-many-sessions"),
        pytest.param({"login": "no"}, "`$.login`", id="text-for-a-switch"),
        pytest.param({"sources": None}, "`$.sources`", id="nothing-for-a-list"),
        pytest.param({"ivBytes": 13}, "ivBytes", id="nonce-of-a-length-that-no-blob-has"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_by_its_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(named)) as caught:
        profiles.load("generic", changes)
    assert "'generic'" in str(caught.value)


@pytest.mark.parametrize("name", ["", "softHSM", "../softhsm", "__init__"])
def test_an_unknown_profile_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(ProfileError, match=r"aws-cloudhsm, .*, yubihsm2"):
        profiles.load(name)


def _rsa(name: str, profile: Profile) -> str:
    if name == "nss":  # no key of it is used
        return "none, too"
    return "–" if profile.oaep_hash is None else f"yes, {profile.oaep_hash.name}"


def test_the_document_lists_every_profile_and_what_was_tried() -> None:
    listed = {cells[0].strip("`"): cells for cells in rows(section(read("docs/hsm.md"), "Profiles"))}
    assert sorted(listed) == profiles.names()
    for name, cells in listed.items():
        profile = profiles.load(name)
        assert cells[1] == profile.title
        assert cells[3] == _rsa(name, profile)
        assert cells[4].startswith("tried here" if profile.verified else "documents only")
