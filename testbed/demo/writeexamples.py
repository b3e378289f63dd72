# SPDX-License-Identifier: Apache-2.0
"""examples/encryptedsecret-*.yaml: what the demonstration encrypted, under a key that ends with its token."""

from testbed import REPOSITORY
from testbed.demo.report import expect
from testbed.demo.stage import Stage

_HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# {what}. Made with:
#   strongroom encrypt --key prod --context team=shop
# Its key no longer exists, so it decrypts nowhere: examples/README.md.
"""
_EXAMPLES = {
    "shop-tls": ("tls", "A TLS certificate and its key"),
    "shop-config": ("config-file", "An application's configuration file"),
    "registry": ("docker-registry", "A credential for a container registry"),
    "deploy-key": ("ssh-key", "An SSH key"),
    "backoffice": ("basic-auth", "User name and password"),
    "session": ("binary", "Bytes that are no text, from none to 4096 of them"),
}


def write(stage: Stage) -> None:
    """Make every file anew."""
    manifests = {path.stem: path.read_text() for path in (stage.workspace / "git").glob("*.yaml")}
    expect(manifests.keys() == _EXAMPLES.keys(), "an example for each Secret of the demonstration, and no other")
    for name, (kind, what) in _EXAMPLES.items():
        path = REPOSITORY / "examples" / f"encryptedsecret-{kind}.yaml"
        path.write_text(_HEADER.format(what=what) + manifests[name])
        stage.report.note(f"examples/{path.name}")
