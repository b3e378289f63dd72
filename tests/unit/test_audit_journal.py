# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import io
import json
import logging
import re
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.audit.journal import FIRST_HASH, Journal, record_hash
from strongroom.audit.record import Entry, EventName, Outcome, Value, uuid7
from strongroom.config import ConfigurationError
from strongroom.errors import AccessDenied, InvalidCiphertext, Reason, StrongroomError
from strongroom.model.principal import Caller, ObjectReference, Permission, Principal, Source

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"


def caller(*, on_behalf_of: ObjectReference | None = None) -> Caller:
    source = Source(via="API", address="10.0.0.1", user_agent="kubectl", audit_id="claimed")
    principal = Principal("jane", ("dev",), "7", (("scopes", ("a",)),))
    return Caller(principal, Permission.DECRYPT, "shop", source, on_behalf_of)


def entry(event: EventName = EventName.DECRYPT, **changes: Any) -> Entry:
    usual = {"key_name": "prod", "key_id": "id", "key_versions": [1], "hsm": "default", "scope": "Strict"}
    return Entry(event, caller(), **(usual | changes))


def full_entry() -> Entry:
    """One that fills every field."""
    reference = ObjectReference("kms.strongroom.dev/v1alpha1", "EncryptedSecret", "shop", "db", "uid", 2, "7")
    filled = entry(context={"team": "payments"}, values=[Value("password", 7)], detail={"from": "a", "to": "b"})
    filled.caller = caller(on_behalf_of=reference)
    return filled


_opened: list[Journal] = []


@pytest.fixture(autouse=True)
def _close_journals() -> Iterator[None]:
    """A journal stays open as long as its process; a test run makes many."""
    yield
    while _opened:
        for output in _opened.pop()._outputs:
            output._stream.close()


class Pipe(io.RawIOBase):
    """Takes `room` bytes in all, at most `at_a_time` with one call and not the last `left_out` of a line, then fails
    like a full disk."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = bytearray()
        self.at_a_time = 1 << 30
        self.room = 1 << 30
        self.left_out = 0

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("closed")
        part = bytes(data)[: min(self.at_a_time, self.room, len(data) - self.left_out)]
        if not part:
            raise OSError(errno.ENOSPC, "canary")
        self.taken += part
        self.room -= len(part)
        return len(part)

    def getvalue(self) -> bytes:
        return bytes(self.taken)


class Bench:
    def __init__(self, *, strict: bool = True, file: str = "") -> None:
        self.stdout = Pipe()
        self.outcomes: list[str] = []
        self.journal = Journal(strict=strict, file=file, stdout=self.stdout, on_record=self.outcomes.append)
        _opened.append(self.journal)

    @property
    def lines(self) -> list[str]:
        return self.stdout.getvalue().decode().split("\n")[:-1]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def verify(lines: list[str]) -> None:
    """docs/audit.md's own snippet."""
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    namespace: dict[str, Any] = {}
    exec(snippet, namespace)
    namespace["verify"](lines)


def three_lines() -> list[str]:
    bench = Bench()
    bench.journal.success(full_entry())
    bench.journal.refusal(entry(), InvalidCiphertext(where="it", ckr="CKR_ENCRYPTED_DATA_INVALID"))
    bench.journal.success(entry(EventName.ENCRYPT, context={"équipe": "\U0001f511"}))
    return bench.lines


def test_a_chain_as_written_verifies_by_the_documented_snippet() -> None:
    lines = three_lines()
    verify(lines)
    records = [json.loads(line) for line in lines]
    assert [record["sequence"] for record in records] == [0, 1, 2]
    assert records[0]["prevHash"] == FIRST_HASH
    assert [record["prevHash"] for record in records[1:]] == [record["hash"] for record in records[:-1]]
    assert all(record_hash(record) == record["hash"] for record in records)
    assert len({record["chain"] for record in records}) == 1
    assert len({record["id"] for record in records}) == 3


def test_the_lines_of_several_chains_may_be_mixed() -> None:
    one, other = three_lines(), three_lines()
    verify([one[0], other[0], other[1], one[1], one[2], other[2]])


def changed(line: str, **fields: Any) -> str:
    return json.dumps(json.loads(line) | fields)


def rehashed(line: str, **fields: Any) -> str:
    record = json.loads(line) | fields
    return json.dumps(record | {"hash": record_hash(record)})


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda a, b, c: [a, changed(b, outcome="Success"), c], id="changed"),
        pytest.param(lambda a, b, c: [a, rehashed(b, outcome="Success"), c], id="changed-and-hashed-again"),
        pytest.param(lambda a, b, c: [a, changed(b, hash="0" * 64), c], id="hash-changed"),
        pytest.param(lambda a, b, c: [a, changed(b, extra=1), c], id="field-added"),
        pytest.param(lambda a, b, c: [a, c], id="removed"),
        pytest.param(lambda a, b, c: [b, c], id="first-removed"),
        pytest.param(lambda a, b, c: [a, c, b], id="reordered"),
        pytest.param(lambda a, b, c: [a, b, b, c], id="repeated"),
        pytest.param(lambda a, b, c: [a, rehashed(c, prevHash=json.loads(a)["hash"])], id="relinked"),
    ],
)
def test_a_change_to_the_chain_shows(tamper) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="line"):
        verify(tamper(*three_lines()))


@pytest.mark.parametrize(
    ("error", "outcome", "code", "ckr"),
    [
        (AccessDenied(who="jane", may_not="decrypt"), "Denied", "AccessDenied", ""),
        (InvalidCiphertext(where="it", ckr="CKR_DATA_INVALID"), "Failure", "InvalidCiphertext", "CKR_DATA_INVALID"),
        (StrongroomError(Reason.INTERNAL, "canary"), "Failure", "Internal", ""),
    ],
)
def test_a_refusal_is_recorded_with_its_reason(error: StrongroomError, outcome: str, code: str, ckr: str) -> None:
    bench = Bench()
    bench.journal.refusal(entry(), error)
    (record,) = bench.records
    assert (record["outcome"], record["errorCode"], record["ckr"]) == (outcome, code, ckr)
    assert "canary" not in bench.lines[0]
    assert bench.outcomes == [outcome]


def test_a_record_names_who_did_what_to_what() -> None:
    bench = Bench()
    bench.journal.success(full_entry())
    (record,) = bench.records
    assert record["eventName"] == "Decrypt"
    assert record["principal"] == {"username": "jane", "uid": "7", "groups": ["dev"]}
    assert record["permission"] == {"verb": "create", "subresource": "decrypt", "namespace": "shop"}
    assert record["source"] == {
        "via": "API", "address": "10.0.0.1", "userAgent": "kubectl", "claimedAuditId": "claimed",
    }  # fmt: skip
    assert record["object"]["name"] == "db"
    assert record["key"] == {"name": "prod", "id": "id", "versions": [1], "hsm": "default"}
    assert record["request"]["values"] == [{"dataKey": "password", "bytes": 7}]
    assert record["request"]["encryptionContext"] == {"team": "payments"}
    assert record["outcome"] == Outcome.SUCCESS
    assert record["durationUs"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["time"])


def test_what_the_operator_does_of_its_own_is_its_own_accounts() -> None:
    bench = Bench()
    bench.journal.success(Entry(EventName.CREATE_KEY, None, principal="system:serviceaccount:strongroom:strongroom"))
    (record,) = bench.records
    assert (record["principal"], record["source"]) == (
        {"username": "system:serviceaccount:strongroom:strongroom", "uid": "", "groups": []},
        {"via": "Controller"},
    )


@pytest.mark.parametrize("text", ["two\nlines", "\r", "\u2028", "\x1b[31m", '"quoted"', "\U0001f511"])
def test_whatever_a_client_claims_of_itself_a_record_is_one_line(text: str) -> None:
    bench = Bench()
    claimed = entry()
    claimed.caller = Caller(Principal(text), Permission.DECRYPT, "shop", Source(via="API", user_agent=text))
    bench.journal.success(claimed)
    assert bench.stdout.getvalue().count(b"\n") == 1
    assert bench.stdout.getvalue().endswith(b"}\n")
    assert json.loads(bench.stdout.getvalue())["source"]["userAgent"] == text


def test_the_file_gets_the_same_lines_behind_those_it_had_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first = Bench(file=str(path))
    first.journal.success(entry())
    second = Bench(file=str(path))
    second.journal.success(entry())
    assert path.read_text().splitlines() == first.lines + second.lines
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    verify(path.read_text().splitlines())


def test_after_a_crash_in_the_middle_of_a_line_the_next_process_begins_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first = Bench(file=str(path))
    first.journal.success(entry())
    first.journal.success(entry())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 40])
    second = Bench(file=str(path))
    second.journal.success(entry())
    lines = path.read_text().splitlines()
    assert [lines[0], lines[-1]] == [first.lines[0], second.lines[0]]
    verify(lines)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), max_size=6))
def test_any_text_in_a_record_verifies_by_the_documented_snippet(context: dict[str, str]) -> None:
    bench = Bench()
    bench.journal.success(entry(context=context))
    assert bench.records[0]["request"]["encryptionContext"] == context
    verify(bench.lines)


def test_after_a_full_disk_the_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    bench = Bench(file=str(path))
    bench.stdout.close()  # so that the file alone decides what is out
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(StrongroomError):
        bench.journal.success(entry())
    size = path.stat().st_size
    for room in (0, 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
        try:
            with pytest.raises(StrongroomError):
                bench.journal.success(entry())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(StrongroomError):
        bench.journal.success(entry())
    lines = path.read_text().splitlines()
    torn = [line for line in lines if not line.endswith("}")]
    assert [len(line) for line in torn] == [101]
    verify([line for line in lines if line not in torn])
    assert len(lines) - len(torn) == 2


def test_a_full_disk_refuses_when_strict() -> None:
    bench = Bench(file="/dev/full")
    with pytest.raises(StrongroomError) as caught:
        bench.journal.success(entry())
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert bench.outcomes == ["failed"]


def test_a_full_disk_is_logged_and_counted_when_not_strict(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(strict=False, file="/dev/full")
    bench.journal.success(entry())
    assert "could not be written" in caplog.text
    assert (bench.outcomes, len(bench.lines)) == (["failed"], 1)


@pytest.mark.parametrize("strict", [True, False])
def test_a_refusal_stands_whether_or_not_it_can_be_recorded(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(strict=strict, file="/dev/full")
    with caplog.at_level(logging.ERROR):
        bench.journal.refusal(entry(), InvalidCiphertext(where="it"))
    assert "could not be written" in caplog.text


def test_a_line_that_is_out_somewhere_keeps_its_place_in_the_chain() -> None:
    bench = Bench(file="/dev/full")
    for _ in range(3):
        with pytest.raises(StrongroomError):
            bench.journal.success(entry())
    verify(bench.lines)
    assert len(bench.lines) == 3


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("full", [{"room": 0}, {"room": 1}, {"room": 100}, {"left_out": 1}], ids=str)
def test_a_line_that_failed_never_comes_out_later(strict: bool, full: dict[str, int]) -> None:
    """Its operation was refused; the record of a success must not turn up behind that."""
    bench = Bench(strict=strict)
    vars(bench.stdout).update(full)
    refused = pytest.raises(StrongroomError, match=r"could not be written \(OSError\)")
    with refused if strict else contextlib.nullcontext():
        bench.journal.success(entry(key_name="refused"))
    taken = len(bench.stdout.getvalue())
    assert taken == full.get("room", taken)
    vars(bench.stdout).update(room=1 << 30, left_out=0)
    bench.journal.success(entry(key_name="next"))
    *torn, whole = bench.lines
    assert [len(line) for line in torn] == ([taken + 1] if taken else [])
    assert all(line.endswith("#") for line in torn)  # so that it is no record, however much of it is there
    assert json.loads(whole)["key"]["name"] == "next"
    assert (json.loads(whole)["sequence"], json.loads(whole)["prevHash"]) == (0, FIRST_HASH)
    verify([whole])
    assert bench.outcomes == ["failed", "Success"]


def test_half_a_line_again_and_again_leaves_every_whole_line_a_line() -> None:
    bench = Bench()
    for _ in range(3):
        bench.stdout.room = 50
        with pytest.raises(StrongroomError):
            bench.journal.success(entry())
    bench.stdout.room = 0
    with pytest.raises(StrongroomError):
        bench.journal.success(entry())
    bench.stdout.room = 1 << 30
    for _ in range(2):
        bench.journal.success(entry())
    assert b"\n\n" not in bench.stdout.getvalue()
    verify(bench.lines[-2:])
    assert [len(line) for line in bench.lines[:-2]] == [51, 49, 49]


def test_a_line_goes_out_whole_though_the_pipe_takes_it_in_pieces() -> None:
    bench = Bench()
    bench.stdout.at_a_time = 7
    for _ in range(3):
        bench.journal.success(full_entry())
    verify(bench.lines)
    assert len(bench.lines) == 3


def test_nothing_waits_in_a_buffer(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    bench = Bench(file=str(path))
    bench.journal.success(entry())
    assert path.read_text().splitlines() == bench.lines != []


@pytest.mark.parametrize("file", ["missing/audit.jsonl", "."], ids=["no-directory", "a-directory"])
def test_a_file_that_cannot_be_opened_is_an_error_of_the_configuration(tmp_path: Path, file: str) -> None:
    path = str(tmp_path / file)
    with pytest.raises(ConfigurationError, match=r"\$\.audit\.file") as caught:
        Bench(file=path)
    assert path in str(caught.value)


def test_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    made = [uuid7() for _ in range(100)]
    assert all((value.version, value.variant) == (7, "specified in RFC 4122") for value in made)
    milliseconds = [value.int >> 80 for value in made]
    assert milliseconds == sorted(milliseconds)
    assert len(set(made)) == 100


def paths(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict) and prefix not in ("request.encryptionContext", "detail"):
        return {path for key, item in value.items() for path in paths(item, f"{prefix}.{key}".lstrip("."))}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return paths(value[0], prefix + "[]")
    return {prefix}


def test_the_documented_fields_are_those_of_a_record() -> None:
    bench = Bench()
    bench.journal.success(full_entry())
    documented = re.findall(r"^\| `([^`]+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert sorted(documented) == sorted(paths(bench.records[0]))


def test_the_documented_events_are_those_that_are_written() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    listed = re.findall(r"^- `(\w+)`:", text, re.M)
    assert sorted(listed) == sorted(EventName)
