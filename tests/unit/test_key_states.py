# SPDX-License-Identifier: Apache-2.0
import pytest

from strongroom.errors import Reason
from strongroom.model.keys import KeyState, Operation, refusal

TABLE: dict[KeyState, dict[Operation, Reason | None]] = {
    KeyState.CREATING: {Operation.ENCRYPT: Reason.KEY_NOT_READY, Operation.DECRYPT: Reason.KEY_NOT_READY},
    KeyState.ENABLED: {Operation.ENCRYPT: None, Operation.DECRYPT: None},
    KeyState.DISABLED: {Operation.ENCRYPT: Reason.KEY_DISABLED, Operation.DECRYPT: Reason.KEY_DISABLED},
    KeyState.ARCHIVED: {Operation.ENCRYPT: Reason.KEY_ARCHIVED, Operation.DECRYPT: None},
    KeyState.PENDING_DELETION: {
        Operation.ENCRYPT: Reason.KEY_PENDING_DELETION,
        Operation.DECRYPT: Reason.KEY_PENDING_DELETION,
    },
    KeyState.DESTROYED: {Operation.ENCRYPT: Reason.KEY_DESTROYED, Operation.DECRYPT: Reason.KEY_DESTROYED},
}


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("state", KeyState)
def test_a_state_allows_or_refuses_each_operation(state: KeyState, operation: Operation) -> None:
    assert refusal(state, operation) is TABLE[state][operation]
