// SPDX-License-Identifier: Apache-2.0
// The functions that have habits; each otherwise does what the module behind does.

#pragma once
#include "control.h"

#define DECLARE_play(name, parameters) ulong_t play_##name parameters;
#define DECLARE_real(name, parameters)
#define DECLARE(position, name, parameters, arguments, about, prefix) DECLARE_##prefix(name, parameters)
FUNCTIONS(DECLARE)

// The operation ends in the module, too, and what it gives goes nowhere.
void end_operation(int position, const struct call *call);
