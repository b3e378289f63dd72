# SPDX-License-Identifier: Apache-2.0
"""A running server, and a client that has the front proxy's certificate."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.apiserver.harness import Client, Harness


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Harness(tmp_path) as harness:
        yield harness


@pytest.fixture
async def client(api: Harness) -> AsyncIterator[Client]:
    async with api.client() as opened:
        yield opened
