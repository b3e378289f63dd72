# SPDX-License-Identifier: Apache-2.0
"""Steps that show what must not work, what it says, and what helps."""

from pathlib import Path

from testbed.demo import originals
from testbed.demo.report import expect
from testbed.demo.shell import Shell
from testbed.demo.stage import Stage

_GRANT = "To grant it: "
_HEALED_SECONDS = 60.0


def too_large(stage: Stage) -> None:
    """4097 bytes: the command line, the API behind it, and a crafted value in the CRD."""
    stage.alice.run("head -c 4097 /dev/urandom > large")
    stage.alice.refused(
        "kubectl create secret generic large -n shop --from-file=large --dry-run=client -o yaml \\\n"
        "  | strongroom encrypt --key prod",
        "PlaintextTooLarge",
        "4097 bytes",
    )
    stage.alice.run(
        """printf '{"apiVersion":"crypto.strongroom.dev/v1alpha1","kind":"EncryptRequest","spec":{"scope":"Strict",'\\
'"name":"large","values":{"large":"%s"}}}' "$(base64 -w0 large)" > request.json"""
    )
    stage.alice.refused(
        "kubectl create --raw /apis/crypto.strongroom.dev/v1alpha1/namespaces/shop/keys/prod/encrypt -f request.json",
        "4097 bytes, at most 4096",
    )
    stage.report.note("a value that claims to be one of 4097 bytes, straight to the API server:")
    stage.alice.run("blob=$( (printf 'SR1\\001'; head -c 4145 /dev/urandom) | base64 -w0)\n" + _manifest("crafted"))
    stage.alice.refused("kubectl apply -f crafted.yaml", "more than 4096 bytes of plaintext")


def moved(stage: Stage) -> None:
    """Ciphertext of one namespace, applied in another that may use the same key."""
    stage.admin.run("sed 's/shop/website/' examples/permission.yaml | kubectl apply -f -")
    stage.admin.run("sed 's/namespace: shop/namespace: website/' git/backoffice.yaml | kubectl apply -f -")
    found = stage.wait_reason("encryptedsecret", "backoffice", "InvalidCiphertext", "website")
    stage.report.output(found["message"], whole=True)
    expect(stage.secret("website", "backoffice") is None, "there should be no Secret")
    stage.expect_recorded("Decrypt", "Failure", "InvalidCiphertext", "system:serviceaccount:website:default")
    stage.admin.run("kubectl get esec,secrets -n website")


def namespace_without_permission(stage: Stage) -> None:
    """Nothing is decrypted for a namespace that was given no key; the message says how to give it."""
    stage.admin.run(
        'kubectl create secret generic printer -n office --from-literal=pin="$(openssl rand -hex 24)" \\\n'
        "  --dry-run=client -o yaml | tee plain-printer.yaml | strongroom encrypt --key prod | kubectl apply -f -"
    )
    found = stage.wait_reason("encryptedsecret", "printer", "AccessDenied", "office")
    stage.report.output(found["message"], whole=True)
    expect(stage.secret("office", "printer") is None, "there should be no Secret")
    stage.expect_recorded("Decrypt", "Denied", "AccessDenied", "system:serviceaccount:office:default")
    _, _, grant = found["message"].partition(_GRANT)
    expect(grant, f"the message should hold a command, after {_GRANT!r}")
    stage.report.note("exactly the command of that message:")
    stage.admin.run(grant)
    stage.wait_reason("encryptedsecret", "printer", "Decrypted", "office", seconds=_HEALED_SECONDS)
    original = originals.read_file(stage.workspace / "plain-printer.yaml")
    found_differences = original.differences(stage.secret("office", "printer") or {})
    expect(not found_differences, "\n".join(found_differences))
    stage.admin.run("kubectl get esec -n office")


def user_without_permission(stage: Stage) -> None:
    """Someone who may edit almost everything in the namespace, but was given no key."""
    stage.admin.run("kubectl create rolebinding bob-edits -n shop --clusterrole=edit --user=bob")
    _may_not_encrypt(stage, stage.bob)
    stage.report.note("nor may he have the namespace decrypt what others encrypted:")
    stage.bob.refused(
        "sed 's/name: backoffice/name: copy/' git/backoffice.yaml | kubectl apply -f -",
        'user "bob" may not use key "prod" in namespace "shop"',
    )
    stage.bob.refused("strongroom decrypt -f git/backoffice.yaml > /dev/null", "AccessDenied", code=5)


def user_of_another_namespace(stage: Stage) -> None:
    """A permission is for one namespace."""
    stage.admin.run(
        "sed -e 's/namespace: shop/namespace: website/' \\\n"
        "  -e 's/kind: Group/kind: User/' -e 's/name: developers/name: carol/' \\\n"
        "  examples/team-encrypter.yaml | kubectl apply -f -"
    )
    stage.carol.run(
        "openssl rand -hex 24 | strongroom encrypt --raw --key prod -n website --name page --data-key token \\\n"
        "  | cut -c -24"
    )
    _may_not_encrypt(stage, stage.carol)


def disabled_key(stage: Stage) -> None:
    """Takes effect on the next operation; existing Secrets stay; enabling heals what waits."""
    stage.alice.run(
        'kubectl create secret generic late -n shop --from-literal=token="$(openssl rand -hex 24)" \\\n'
        "  --dry-run=client -o yaml | tee plain/late.yaml | strongroom encrypt --key prod > git/late.yaml"
    )
    _set_state(stage, "Disabled")
    stage.alice.refused("strongroom encrypt --key prod -f plain/late.yaml > /dev/null", "KeyDisabled")
    stage.expect_recorded("Encrypt", "Failure", "KeyDisabled", "alice")
    stage.alice.run("kubectl apply -f git/late.yaml")
    found = stage.wait_reason("encryptedsecret", "late", "KeyDisabled", "shop")
    stage.report.output(found["message"], whole=True)
    expect(stage.secret("shop", "late") is None, "there should be no Secret")
    stage.alice.run("kubectl get esec -n shop")
    differences = stage.differences()
    expect(not differences, "existing Secrets should stay as they are:\n" + "\n".join(differences))
    for original in stage.originals:
        ready = stage.ready_condition("encryptedsecret", original.name, "shop")
        expect(ready.get("status") == "True", f"{original.name} should stay Ready")
    stage.report.note("the Secrets that exist stay, byte for byte, and their EncryptedSecrets stay Ready")
    _set_state(stage, "Enabled")
    stage.wait_reason("encryptedsecret", "late", "Decrypted", "shop", seconds=_HEALED_SECONDS)
    stage.originals = originals.read(stage.workspace / "plain")
    stage.wait_restored("the Secret that waited to be as its original")
    stage.alice.run("kubectl get esec late -n shop")


def no_plaintext_anywhere(stage: Stage) -> None:
    """Every value of this run, and the PIN, looked for in everything that was written outside etcd and the people's own
    files."""
    wanted = originals.needles([*stage.originals, originals.read_file(stage.workspace / "plain-printer.yaml")])
    wanted["the token's PIN"] = {stage.token.pin_file.read_bytes()}
    kinds = "customermasterkeys,encryptedsecrets,events,configmaps"
    texts = {
        "objects of the cluster": stage.admin.kubectl("get", kinds, "-A", "-o", "json").encode(),
        "metrics of the operator": str(stage.operator.metrics().samples).encode(),
    }
    directory = stage.control_plane.directory
    for path in (*directory.glob("*.log"), *_files(stage.operator.directory), *_files(stage.token.tokens)):
        texts[str(path.relative_to(directory))] = path.read_bytes()
    for where, text in texts.items():
        found = originals.leaks(wanted, text)
        expect(not found, f"{where} holds {', '.join(found)}")
        stage.report.note(f"none in {where} ({len(text)} bytes)")


def _may_not_encrypt(stage: Stage, who: Shell) -> None:
    who.refused(
        "openssl rand -hex 24 | strongroom encrypt --raw --key prod -n shop --name x --data-key token",
        "AccessDenied",
        f'User "{who.name}" cannot create resource "keys/encrypt"',
        code=5,
    )
    verdicts = [
        event["responseStatus"]["code"]
        for event in stage.control_plane.audit_events()
        if event["user"]["username"] == who.name and event["requestURI"].endswith("/namespaces/shop/keys/prod/encrypt")
    ]
    expect(verdicts == [403], f"kube-apiserver should have recorded one refusal, not {verdicts}")
    stage.report.note("Kubernetes' own RBAC refused it: it is in the audit log of kube-apiserver, and never reached us")


def _set_state(stage: Stage, state: str) -> None:
    stage.admin.run(f"""kubectl patch cmk prod --type=merge -p '{{"spec":{{"state":"{state}"}}}}'""")


def _manifest(name: str) -> str:
    """The command that writes an EncryptedSecret around $blob."""
    return (
        f"printf '%s\\n' 'apiVersion: kms.strongroom.dev/v1alpha1' 'kind: EncryptedSecret' \\\n"
        f"  'metadata: {{name: {name}, namespace: shop}}' \\\n"
        f'  "spec: {{keyRef: {{name: prod}}, scope: Strict, encryptedData: {{x: $blob}}}}" > {name}.yaml'
    )


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
