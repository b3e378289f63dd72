# SPDX-License-Identifier: Apache-2.0
"""YAML as other tools read it, and as its authors wrote it."""

import base64
import json

import pytest
import yaml
from ruamel.yaml import YAML

from strongroom.cli import yamltext
from strongroom.cli.yamltext import Indentation
from tests.cli.conftest import Cli

# What some YAML reader takes for a boolean, null, number, date, merge key or directive, or cannot take plainly.
TRAPS = [
    *("y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"),
    *("true", "True", "TRUE", "false", "False", "null", "Null", "NULL", "~", "", " ", "a ", " a"),
    *("0", "1", "-1", "+1", "007", "0o7", "0x1F", "0b11", "1_000", "1.5", ".5", "1.", "1e3", "1E+3", "12e03", "1.e+3"),
    *("12:30:45", "1:20", "-1:20", "2001-01-01", "2001-12-14t21:59:43.10-05:00", "2001-12-15 2:59:43"),
    *(".inf", "-.inf", ".nan", ".NaN", "<<", "=", "-", "?", ":", "- a", "? a", "a: b", "a #b", "#a", "a:", ":a"),
    *("[a]", "{a}", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "'a'", '"a"', "a\nb", "a\tb", "\\n", "---", "..."),
    *("ü", "日本", "\u0085", "\u2028", "\ufeff", "\x7f", "😀", "a" * 200 + " " + "b" * 200),
]


@pytest.mark.parametrize("trap", TRAPS, ids=repr)
def test_written_strings_read_back_as_strings_in_yaml_1_1_and_1_2(trap: str) -> None:
    text = yamltext.dump(yamltext.from_json({trap: trap, "list": [trap], "map": {"k": trap}}), Indentation())
    expected = {trap: trap, "list": [trap], "map": {"k": trap}}
    assert yaml.safe_load(text) == expected
    assert YAML(typ="safe", pure=True).load(text) == expected


@pytest.mark.parametrize("word", ["y", "n", "Y", "N"])
def test_the_booleans_that_only_some_yaml_1_1_readers_know_are_quoted(word: str) -> None:
    assert yamltext.dump(yamltext.from_json({word: word}), Indentation()) == f'"{word}": "{word}"\n'


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if trap])
def test_traps_survive_in_labels_annotations_and_context(cli: Cli, trap: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "no", "namespace": "on", "labels": {"l": trap}, "annotations": {trap: trap}},
        "stringData": {"y": "1", "123": "2", "1e3": "3", "off": trap},
    }
    result = cli("encrypt", "--key", "prod", f"--context=no={trap}", stdin=json.dumps(manifest))
    assert result.code == 0, result.stderr
    for read in (yaml.safe_load(result.text), YAML(typ="safe", pure=True).load(result.text)):
        assert read["metadata"] == {"name": "no", "namespace": "on", "labels": {"l": trap}}
        assert read["spec"]["template"]["metadata"] == {"labels": {"l": trap}, "annotations": {trap: trap}}
        assert read["spec"]["encryptionContext"] == {"no": trap}
        assert list(read["spec"]["encryptedData"]) == ["y", "123", "1e3", "off"]
    back = yaml.safe_load(cli("decrypt", stdin=result.stdout).text)
    assert base64.b64decode(back["data"]["off"]).decode() == trap


@pytest.mark.parametrize("value", ["yes", "No", "on", "y", "true", "null", "~", "", "1", "1.5", "2001-01-01", "0o7"])
@pytest.mark.parametrize("field", ["stringData", "data"])
def test_unquoted_scalars_that_are_no_strings_are_refused(cli: Cli, field: str, value: str) -> None:
    text = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: db, namespace: shop}}\n{field}:\n  a: {value}\n"
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert (result.code, result.stdout) == (1, b"")
    assert "Put it in double quotes" in result.stderr
    assert "data key a)" in result.stderr


@pytest.mark.parametrize("style", ["|\n    one\n    # two\n", ">-\n    one\n    # two\n"], ids=["literal", "folded"])
def test_hash_signs_inside_block_scalars_are_values_not_comments(cli: Cli, style: str) -> None:
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\nstringData:\n  a: "
    encrypted = cli("encrypt", "--key", "prod", stdin=head + style)
    assert encrypted.code == 0, encrypted.stderr
    assert "two" not in encrypted.text
    value = base64.b64decode(yaml.safe_load(cli("decrypt", stdin=encrypted.stdout).text)["data"]["a"])
    assert b"# two" in value


def test_a_separator_inside_a_block_scalar_of_another_document_does_not_split_it(cli: Cli) -> None:
    text = "kind: ConfigMap\ndata:\n  a: |\n    x\n    ---\n    kind: Secret\n"
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert (result.code, result.text) == (0, text)


def test_base64_may_be_wrapped_as_kubernetes_allows(cli: Cli) -> None:
    text = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\n"
        "data:\n  a: |\n    aGVs\n    bG8=\n  b: >-\n    aGVs\n\n    bG8=\n"
    )
    encrypted = cli("encrypt", "--key", "prod", stdin=text)
    assert encrypted.code == 0, encrypted.stderr
    assert yaml.safe_load(cli("decrypt", stdin=encrypted.stdout).text)["data"] == {"a": "aGVsbG8=", "b": "aGVsbG8="}


def test_crlf_line_ends_are_kept(cli: Cli) -> None:
    text = (
        "# c\r\n" * 40
        + "apiVersion: v1\r\nkind: Secret\r\nmetadata: {name: db, namespace: s}\r\nstringData: {a: x}\r\n"
    )
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert result.code == 0, result.stderr
    assert result.text.count("\n") == result.text.count("\r\n")
    assert "spec:\r\n" in result.text


def test_a_byte_order_mark_is_no_part_of_the_first_key(cli: Cli) -> None:
    text = "\ufeffapiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: s}\nstringData: {a: x}\n"
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert yaml.safe_load(result.text)["kind"] == "EncryptedSecret"


@pytest.mark.parametrize(
    "source",
    [
        "items:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: d, namespace: s}\n  stringData: {a: x}\n",
        "items:\n  - apiVersion: v1\n    kind: Secret\n    metadata: {name: d, namespace: s}\n    stringData: {a: x}\n",
    ],
    ids=["flush", "indented"],
)
def test_indentation_of_lists_is_kept(cli: Cli, source: str) -> None:
    result = cli("encrypt", "--key", "prod", stdin="apiVersion: v1\nkind: List\n" + source)
    assert result.code == 0, result.stderr
    dash = source.splitlines()[1].partition("-")[0] + "- apiVersion: kms.strongroom.dev/v1alpha1\n"
    assert f"items:\n{dash}" in result.text


def test_merge_keys_and_anchors_are_resolved(cli: Cli) -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- &base {apiVersion: v1, kind: Secret, metadata: {name: a, namespace: s}, stringData: &d {k: v}}\n"
        "- {apiVersion: v1, kind: Secret, metadata: {name: b, namespace: s}, stringData: {<<: *d, l: w}}\n"
    )
    encrypted = cli("encrypt", "--key", "prod", stdin=text)
    assert encrypted.code == 0, encrypted.stderr
    items = yaml.safe_load(cli("decrypt", stdin=encrypted.stdout).text)["items"]
    assert [item["data"] for item in items] == [{"k": "dg=="}, {"k": "dg==", "l": "dw=="}]


def _alias_bomb(level: str) -> str:
    """Each of nine levels names the one before nine times."""
    first = "l0: &l0 [x, x, x, x, x, x, x, x, x]\n"
    return first + "".join(f"l{n}: &l{n} " + level % ", ".join([f"*l{n - 1}"] * 9) + "\n" for n in range(1, 9))


BOMBS = {
    "sequences": (_alias_bomb("[%s]"), "more than 1000000 nodes"),
    "mappings": (_alias_bomb("[{k: [%s]}]"), "more than 1000000 nodes"),
    "lists": (_alias_bomb("{kind: List, items: [%s]}") + "kind: List\nitems: [*l8]\n", "more than 1000000 nodes"),
    "inside-itself": ("&a\nkind: [EncryptedSecret, Secret]\nb: *a\n", "an alias stands inside what it names"),
}


@pytest.mark.parametrize(("text", "says"), BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("arguments", [["decrypt", "-o", "json"], ["encrypt", "--key", "prod", "-o", "json"]])
def test_aliases_that_mean_too_much_are_refused(cli: Cli, arguments: list[str], text: str, says: str) -> None:
    assert len(text) < 1024
    result = cli(*arguments, stdin=text)
    assert (result.code, result.stdout) == (1, b"")
    assert says in result.stderr
    assert "(stdin: document 1)" in result.stderr


def test_aliases_that_people_write_are_written_out_in_json(cli: Cli) -> None:
    result = cli("decrypt", "-o", "json", stdin="a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}\n")
    assert json.loads(result.text) == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}], "c": {"x": 1, "y": 2}}
