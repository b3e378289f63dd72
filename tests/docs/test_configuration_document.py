# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md lists every field of the configuration with its default, and its example can be loaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from strongroom import config
from strongroom.config import Config
from tests.docs.documents import blocks, read, rows

DOCUMENT = read("docs/configuration.md")


def fields(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every field as written in the file, and its default as YAML would have it."""
    for field in msgspec.structs.fields(struct):
        path = prefix + field.encode_name
        below = field.type if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) else None
        if below is not None:
            yield from fields(below, f"{path}.")
            continue
        yield path, _default(field)
        for argument in get_args(get_args(field.type)[0]) if get_args(field.type) else ():
            if isinstance(argument, type) and issubclass(argument, msgspec.Struct):
                yield from fields(argument, f"{path}[].")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value: Any = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return value if isinstance(value, str) and value else json.dumps(value)


def test_every_field_is_listed_with_its_default() -> None:
    listed = [(cells[0].strip("`"), cells[1].strip("`")) for cells in rows(DOCUMENT)]
    assert listed == list(fields(Config))


def test_chart_values_that_are_named_exist() -> None:
    values = yaml.safe_load(read("charts/strongroom/values.yaml"))
    for cells in rows(DOCUMENT):
        for word in cells[3].split("`")[1::2]:
            top, _, below = word.replace("[]", "").partition(".")
            assert top in values
            assert isinstance(values[top], list) or not below or below in values[top]


def test_example_can_be_loaded(tmp_path: Path) -> None:
    [example] = blocks(DOCUMENT, "yaml")
    file = tmp_path / "config.yaml"
    file.write_text(example)
    assert [hsm.name for hsm in config.load(file).hsms] == ["default", "payments"]
