# SPDX-License-Identifier: Apache-2.0
"""Steps of the main job: real Secrets, encrypted, applied, compared, recorded, healed."""

import itertools

from testbed.demo import originals
from testbed.demo.report import expect
from testbed.demo.stage import Stage
from testbed.waiting import wait_for

_EVENT_SECONDS = 30.0
PRINCIPAL = "system:serviceaccount:shop:default"

_COMMANDS = (
    # A certificate and its key.
    """openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=shop.example \\
  -keyout tls.key -out tls.crt 2> /dev/null
kubectl create secret tls shop-tls -n shop --cert=tls.crt --key=tls.key \\
  --dry-run=client -o yaml > plain/shop-tls.yaml""",
    # An application's configuration file.
    """printf 'database:\\n  url: postgres://shop:%s@db.shop.svc/shop\\n  pool: 8\\n' "$(openssl rand -hex 24)" \\
  > application.yaml
kubectl create secret generic shop-config -n shop --from-file=application.yaml \\
  --dry-run=client -o yaml > plain/shop-config.yaml""",
    # A credential for a container registry.
    """kubectl create secret docker-registry registry -n shop --docker-server=registry.example --docker-username=shop \\
  --docker-password="$(openssl rand -hex 24)" --dry-run=client -o yaml > plain/registry.yaml""",
    # An SSH key.
    """ssh-keygen -q -t ed25519 -N '' -C deploy@shop.example -f deploy
kubectl create secret generic deploy-key -n shop --type=kubernetes.io/ssh-auth --from-file=ssh-privatekey=deploy \\
  --dry-run=client -o yaml > plain/deploy-key.yaml""",
    # User name and password.
    """kubectl create secret generic backoffice -n shop --type=kubernetes.io/basic-auth \\
  --from-literal=username="robot-$(openssl rand -hex 6)" --from-literal=password="$(openssl rand -hex 24)" \\
  --dry-run=client -o yaml > plain/backoffice.yaml""",
    # Bytes that are no text; the smallest and the largest value there can be.
    """head -c 32 /dev/urandom > session.key; head -c 4096 /dev/urandom > largest
head -c 1 /dev/urandom > byte; : > empty
kubectl create secret generic session -n shop --from-file=session.key --from-file=largest --from-file=byte \\
  --from-file=empty --dry-run=client -o yaml > plain/session.yaml""",
)


def make_secrets(stage: Stage) -> None:
    """Manifests of every common kind, by the tools that people use."""
    stage.report.note("in a private directory, in memory where there is /dev/shm; nothing of it is ever committed")
    stage.alice.run("umask 077; mkdir plain git")
    for command in _COMMANDS:
        stage.alice.run(command)
    stage.originals = originals.read(stage.workspace / "plain")
    expect(len(stage.originals) == len(_COMMANDS), "every command should have made a manifest")
    for original in stage.originals:
        stage.report.note(original.summary())


def encrypt(stage: Stage) -> None:
    """Plain manifests in, encrypted manifests out, in place."""
    stage.alice.run("cp plain/*.yaml git/ && strongroom encrypt --key prod --context team=shop --in-place -f git/")
    stage.alice.run("sed -E 's/(U1Ix.{24}).*/\\1…/' git/shop-tls.yaml")


def no_plaintext_in_output(stage: Stage) -> None:
    """Every value, each of its lines, and the base64 of them, looked for in every encrypted manifest."""
    wanted = originals.needles(list(stage.originals))
    before, after = ((stage.workspace / name) for name in ("plain", "git"))
    for path in sorted(before.glob("*.yaml")):
        expect(originals.leaks(wanted, path.read_bytes()), f"the search should find the values in plain/{path.name}")
        found = originals.leaks(wanted, (after / path.name).read_bytes())
        expect(not found, f"git/{path.name} holds plaintext of {', '.join(found)}")
    forms = sum(map(len, wanted.values()))
    stage.report.note(f"{len(wanted)} values in {forms} forms: all found in plain/ (so the search works), none in git/")


def apply(stage: Stage) -> None:
    """The namespace gets its permission, the ciphertext is applied, Secrets appear."""
    stage.admin.run("kubectl apply -f examples/permission.yaml")
    stage.alice.run("kubectl apply -f git/")
    stage.wait_all_ready("shop")
    stage.alice.run("kubectl get encryptedsecrets -n shop")


def compare(stage: Stage) -> None:
    """Types, data keys and every byte."""
    found = stage.differences()
    expect(not found, "\n".join(found))
    for original in stage.originals:
        stage.report.note(f"equal: {original.summary()}")


def events(stage: Stage) -> None:
    """What a developer sees of it."""

    def all_written() -> bool:
        items = stage.admin.kubectl.json("get", "events", "--namespace", "shop")["items"]
        told = {item["involvedObject"]["name"] for item in items if item["reason"] == "Decrypted"}
        return told >= {original.name for original in stage.originals}

    wait_for(all_written, _EVENT_SECONDS, "an Event Decrypted for each EncryptedSecret")
    stage.alice.run("kubectl describe esec shop-tls -n shop | sed -n '/^Events:/,$p'")
    stage.alice.run("kubectl get events -n shop --field-selector=reason=Decrypted")


def audit(stage: Stage) -> None:
    """One record for each object, with whose permission it was; each line chained to the one before."""
    records = stage.audit(eventName="Decrypt", outcome="Success")
    names = sorted(record["object"]["name"] for record in records)
    expect(
        names == sorted(original.name for original in stage.originals), f"one record an object expected, got {names}"
    )
    for record in records:
        user = record["principal"]["username"]
        expect(user == PRINCIPAL, f"the record of {record['object']['name']} names {user}, not {PRINCIPAL}")
    encrypted = stage.audit(eventName="Encrypt", outcome="Success")
    expect({record["principal"]["username"] for record in encrypted} == {"alice"}, "alice should have encrypted")
    lines = stage.operator.audit_lines()
    chained = all(after["prevHash"] == before["hash"] for before, after in itertools.pairwise(lines))
    expect(chained, "each record should hold the hash of the one before")
    for record in (*stage.audit(eventName="CreateKey")[-1:], encrypted[-1], records[-1]):
        stage.show_record(record)
    stage.report.note(f"{len(lines)} records in all, one chain; {len(records)} Decrypt, each for {PRINCIPAL}")


def heal(stage: Stage) -> None:
    """A Secret edited by hand, and one deleted by hand."""
    stage.admin.run("""kubectl patch secret registry -n shop --type=merge -p '{"data":{".dockerconfigjson":"e30="}}'""")
    stage.wait_restored("the edited Secret to be as it was")
    before = (stage.secret("shop", "shop-tls") or {})["metadata"]["uid"]
    stage.admin.run("kubectl delete secret shop-tls -n shop")
    stage.wait_restored("the deleted Secret to be back")
    after = (stage.secret("shop", "shop-tls") or {})["metadata"]["uid"]
    expect(before != after, "the Secret was not deleted at all")
    stage.report.note("both are back, byte for byte; no value was encrypted or applied anew")


def decrypt(stage: Stage) -> None:
    """Decrypting is a permission of its own: nobody has it unless it is bound."""
    command = "strongroom decrypt -f git/shop-config.yaml --raw --data-key application.yaml"
    stage.alice.refused(f"{command} > /dev/null", "AccessDenied", "keys/decrypt", code=5)
    stage.admin.run("kubectl create rolebinding break-glass -n shop --clusterrole=strongroom-key-decrypter --user=dave")
    stage.dave.run(f"{command} | cmp - application.yaml && echo 'the same bytes'")
    record = stage.audit(eventName="Decrypt", outcome="Success")[-1]
    expect(record["principal"]["username"] == "dave", "the audit log should name dave")
    stage.show_record(record)


def inspect(stage: Stage) -> None:
    """What ciphertext says of itself, without a cluster."""
    shown = stage.alice.run("strongroom inspect -f git/shop-tls.yaml -f git/session.yaml")
    key_id = stage.admin.kubectl.json("get", "cmk", "prod")["status"]["keyId"]
    expect(shown.count(key_id) == 6, "all six values should name the key's id")
    expect("4096" in shown and "AES_256_GCM" in shown, "size and algorithm should be shown")
