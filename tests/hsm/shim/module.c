// SPDX-License-Identifier: Apache-2.0
// The module itself: its function table, with a wrapper where FUNCTIONS has one and the other module's own elsewhere.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "habits.h"

struct function_list *behind;
static struct function_list shown;

#define WRAPPER(position, name, parameters, arguments, about, prefix) \
    static ulong_t shim_##name parameters { \
        struct call seen = about; \
        struct fault fault = meet(position, seen); \
        if (fault.has_returns && !fault.after) { \
            if (seen.operation && fault.returns != CKR_BUFFER_TOO_SMALL) end_operation(position, &seen); \
            return fault.returns; \
        } \
        ulong_t code = prefix##_##name arguments; \
        return fault.has_returns ? fault.returns : code; \
    }
FUNCTIONS(WRAPPER)

__attribute__((visibility("default"))) ulong_t C_GetFunctionList(struct function_list **list);

ulong_t C_GetFunctionList(struct function_list **list) {
    *list = &shown;
    if (behind) return CKR_OK;
    const char *module = getenv("SHIM_MODULE");
    void *library = module ? dlopen(module, RTLD_NOW) : NULL;
    ulong_t (*get)(struct function_list **) = NULL;
    if (library) *(void **)&get = dlsym(library, "C_GetFunctionList");
    if (!open_control() || !get || get(&behind) != CKR_OK) {
        fprintf(stderr, "shim: SHIM_CONTROL has no .counts beside it, or SHIM_MODULE is no PKCS#11 module\n");
        behind = NULL;
        return CKR_GENERAL_ERROR;
    }
    shown = *behind;
    shown.functions[3] = (function)C_GetFunctionList;
#define ENTRY(position, name, parameters, arguments, about, prefix) shown.functions[position] = (function)shim_##name;
    FUNCTIONS(ENTRY)
    return CKR_OK;
}
