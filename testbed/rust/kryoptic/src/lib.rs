// SPDX-License-Identifier: Apache-2.0
//! The one entry point of a PKCS#11 2.40 module; everything behind it is kryoptic-lib.

use kryoptic_lib::fns::general::fn_get_function_list;
use kryoptic_lib::pkcs11::{CK_FUNCTION_LIST_PTR_PTR, CK_RV};

/// C_GetFunctionList of PKCS#11.
#[unsafe(no_mangle)]
pub extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    fn_get_function_list(list)
}
