# SPDX-License-Identifier: Apache-2.0
"""What to do about one CustomerMasterKey's material: a pure function of the object and what the token holds.

PKCS#11 has no create-if-absent, and tokens store twins without a word. So there is one writer: it records its intent
in status before it generates, and trusts a version only after the token shows exactly one match.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import KeyMaterial
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.masterkey import MasterKey


@dataclass(frozen=True, slots=True)
class RecordIntent:
    """Nothing exists: choose an id, write the intent to status, look again."""


@dataclass(frozen=True, slots=True)
class Generate:
    """The intent stands and the token holds nothing of it: generate."""

    ref: KeyVersionRef
    spec: KeySpec


@dataclass(frozen=True, slots=True)
class Publish:
    """The token holds exactly what status should say. `adopted` if this object did not create it. Versions that status
    does not name yet must be verified before they are published."""

    key_id: KeyId
    materials: tuple[KeyMaterial, ...]
    shared: bool
    adopted: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """Only someone's doing can help."""

    error: StrongroomError


Step = RecordIntent | Generate | Publish | Refuse

_FIRST = KeyVersion(1)


def plan(
    key: MasterKey,
    materials: Sequence[KeyMaterial],
    cluster: str,
    algorithm_of: Callable[[KeySpec], Algorithm | None],
) -> Step:
    """The next step. `materials` is all the token holds of ours, `cluster` this cluster's mark, `algorithm_of` what
    the token can: the algorithm of new keys of a kind, or None."""
    spec = key.known_spec
    if spec is None or not key.supported:
        return _refuse(
            Reason.UNSUPPORTED_FORMAT,
            f"spec.keySpec {key.key_spec!r} or spec.state is unknown to this version of the operator",
            f"Use {', '.join(KeySpec)} and Enabled, Disabled or Archived, or upgrade the operator",
        )
    step = _step(key, spec, materials, cluster)
    if isinstance(step, Refuse):
        return step
    return _misfit(key, spec, step) or _beyond(key, spec, step, algorithm_of) or step


def _step(key: MasterKey, spec: KeySpec, materials: Sequence[KeyMaterial], cluster: str) -> Step:
    """What follows from ids and labels alone."""
    if key.key_id is not None:
        return _known(key, key.key_id, materials, cluster)
    if key.pending is not None:
        return _pending(KeyVersionRef(key.pending.key_id, key.pending.version), spec, materials)
    if key.requested_key_id is not None:
        return _requested(key, key.requested_key_id, materials, cluster)
    return _by_label(key, materials, cluster)


def _known(key: MasterKey, key_id: KeyId, materials: Sequence[KeyMaterial], cluster: str) -> Step:
    """Published before: every version must still be there, once. Versions that status does not name count only if
    they are marked as this key's own, or if the key is shared and made elsewhere."""
    found = tuple(
        material
        for material in _of(key_id, materials)
        if key.shared or key.has_version(material.ref.version) or _is_own(key, material, cluster)
    )
    if conflict := _twins(found):
        return conflict
    present = {material.ref.version for material in found}
    missing = [entry.version for entry in key.versions if entry.version not in present]
    if missing or not found:
        return _refuse(
            Reason.KEY_VERSION_NOT_FOUND,
            f"the token does not hold version {', '.join(map(str, missing)) or '1'} of key id {key_id}",
            "Restore the token from its backup; nothing is generated in its place",
        )
    return Publish(key_id, found, shared=key.shared, adopted=False)


def _pending(ref: KeyVersionRef, spec: KeySpec, materials: Sequence[KeyMaterial]) -> Step:
    """The intent is recorded; a crash may have come before or after the token did its part."""
    found = tuple(material for material in materials if material.ref == ref)
    if conflict := _twins(found):
        return conflict
    return Publish(ref.key_id, found, shared=False, adopted=False) if found else Generate(ref, spec)


def _requested(key: MasterKey, key_id: KeyId, materials: Sequence[KeyMaterial], cluster: str) -> Step:
    """`spec.keyId` names material to adopt; another cluster's or another name's is used but never changed here."""
    found = _of(key_id, materials)
    if not found:
        return _refuse(
            Reason.KEY_NOT_FOUND,
            f"the token holds no material with spec.keyId {key_id}",
            "Correct spec.keyId, or spec.hsm; without spec.keyId a new key is made",
        )
    if conflict := _twins(found):
        return conflict
    return Publish(key_id, found, shared=not all(_is_own(key, entry, cluster) for entry in found), adopted=True)


def _by_label(key: MasterKey, materials: Sequence[KeyMaterial], cluster: str) -> Step:
    """No id anywhere: adopt what this cluster made under this name, or make a new key."""
    own = [material for material in materials if _is_own(key, material, cluster)]
    ids = sorted({material.ref.key_id for material in own}, key=str)
    if len(ids) == 1:
        found = _of(ids[0], materials)
        return _twins(found) or Publish(ids[0], found, shared=False, adopted=True)
    named = sorted({str(m.ref.key_id) for m in materials if m.label is not None and m.label.name == key.name})
    if named:
        return _refuse(
            Reason.KEY_EXISTS,
            f"the token holds material named {key.name!r} that is not this cluster's alone: {', '.join(named)}",
            "Set spec.keyId to use it, or choose another name",
        )
    return RecordIntent()


def _misfit(key: MasterKey, spec: KeySpec, step: Step) -> Refuse | None:
    """Material of another kind than the spec says, or published with an algorithm that we do not know."""
    if not isinstance(step, Publish):
        return None
    for material in step.materials:
        if material.spec is not spec:
            return _refuse(
                Reason.INVALID_KEY_USAGE,
                f"the token holds version {material.ref.version} of key id {step.key_id} as {material.spec.value}, but "
                f"spec.keySpec is {spec.value}",
                f"Create a CustomerMasterKey of keySpec {material.spec.value} for it, or correct spec.keyId",
            )
    for entry in key.versions:
        if entry.algorithm is None:
            return _refuse(
                Reason.UNSUPPORTED_FORMAT,
                f"status.versions names an algorithm for version {entry.version} that this version of the operator "
                f"does not know for {spec.value}",
                "Upgrade the operator to the version that wrote it",
            )
    return None


def _beyond(
    key: MasterKey, spec: KeySpec, step: Step, algorithm_of: Callable[[KeySpec], Algorithm | None]
) -> Refuse | None:
    """New versions of a kind of key that the token does not have. What is published stays as it is."""
    old = isinstance(step, Publish) and all(key.has_version(material.ref.version) for material in step.materials)
    if old or algorithm_of(spec) is not None:
        return None
    return _refuse(
        Reason.INVALID_KEY_USAGE,
        f"HSM {key.hsm!r} has no keys of spec.keySpec {spec.value}, by its profile",
        "Choose another keySpec or HSM; or, if the HSM does have them, correct its `profile` or `profileChanges` in "
        "the operator's configuration",
    )


def _is_own(key: MasterKey, material: KeyMaterial, cluster: str) -> bool:
    return material.label is not None and (material.label.cluster, material.label.name) == (cluster, key.name)


def _of(key_id: KeyId, materials: Sequence[KeyMaterial]) -> tuple[KeyMaterial, ...]:
    return tuple(sorted((m for m in materials if m.ref.key_id == key_id), key=lambda m: m.ref.version))


def _twins(found: Sequence[KeyMaterial]) -> Refuse | None:
    versions = [material.ref.version for material in found]
    for version in versions:
        if versions.count(version) > 1:
            return _refuse(
                Reason.KEY_CONFLICT,
                f"the token holds {versions.count(version)} objects for version {version} of key id "
                f"{found[0].ref.key_id}; none of them is used or deleted",
                "Find out which one encrypted, and remove the other with the HSM's own tools",
            )
    return None


def _refuse(reason: Reason, message: str, hint: str) -> Refuse:
    return Refuse(StrongroomError(reason, message, hint=hint))


def first_version(key_id: KeyId) -> KeyVersionRef:
    """What a new key starts with."""
    return KeyVersionRef(key_id, _FIRST)
