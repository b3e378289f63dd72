// SPDX-License-Identifier: Apache-2.0
// A PKCS#11 module in front of another one, which makes it slow, faulty, or like another vendor's: for tests alone.
//
//   SHIM_MODULE    the module behind
//   SHIM_CONTROL   what to do, as text; looked at in every call, so a change acts at once
//
// Faults, one a line: a function's name or `*`, then words. All of a line's conditions must hold.
//
//   id=N            which counter beside the control file counts its calls; needed
//   from=N times=N  only from the N-th such call on (1), only so often (for ever)
//   input=HEX       only if C_Encrypt, C_Decrypt, C_Sign, C_Verify, C_UnwrapKey, C_Login get these bytes
//   attribute=N     only if it is in the first template of the call
//   mechanism=N     only under this mechanism
//   delay=N         microseconds more than usual
//   returns=N       this code without calling the module; with `after`, after calling it. An operation that ends with
//                   this call ends all the same, as it does when the code is a module's own
//   hang            until the line is gone
//   crash, exit     SIGSEGV, _exit(1)
//
// Habits of tokens, one a line: a word and its value; see `struct habits`. SHIM_CONTROL.counts holds, as native 64-bit
// numbers, the calls of each of the 68 functions, and then those counted by each `id`; all processes share it.

#pragma once
#include <pthread.h>

#include "cryptoki.h"

enum { MAX_INPUT = 1024, MAX_HIDDEN = 16 };

// What a condition can look at.
struct call {
    const byte *input;
    ulong_t size;
    const struct attribute *attributes;
    ulong_t count;
    const struct mechanism *mechanism;
    ulong_t operation;  // the session whose operation ends with this call
};

struct fault {
    int position;
    ulong_t id, from, times, delay, returns, attribute, mechanism, input_size;
    bool after, has_returns, hang, crash, exit, has_attribute, has_mechanism, has_input;
    byte input[MAX_INPUT];
};

struct habits {
    ulong_t token_flags;                         // token-flags: set in C_GetTokenInfo besides the token's own
    ulong_t max_sessions, max_rw_sessions;       // max-sessions, max-rw-sessions: shown there
    ulong_t session_limit;                       // session-limit: more are CKR_SESSION_COUNT; 0: no limit
    bool read_write_only;                        // read-write-only: C_OpenSession without CKF_RW_SESSION is refused
    ulong_t hidden[MAX_HIDDEN], hidden_count;    // hide: a mechanism that is not there
    ulong_t gcm_mechanism;                       // gcm-mechanism: AES-GCM under this number
    enum { HOST, ZERO_BUFFER, PREPENDED, APPENDED } iv_source;  // gcm-iv: who makes the IV, where it goes
    ulong_t iv_bytes;                            // gcm-iv-bytes: of IVs made here
    enum { RANDOM, ZEROS, SAME } iv_fault;       // gcm-iv-fault: what is wrong with them
    bool any_tag;                                // accept-any-tag: decryption ignores it
    bool readable, wrappable;                    // new keys are, whatever was asked for and is answered
    bool typed_hmac;                             // typed-hmac: HMAC keys are CKK_SHA256_HMAC; searches ignore the type
    bool cloud_kms;                              // cloud-kms: C_GenerateKey takes a label, CKA_KMS_ALGORITHM, no more
    bool has_max_id, has_max_label;
    ulong_t max_id, max_label;                   // max-id, max-label: bytes of room in new objects; 0: none at all
    char pin[256];                               // login-pin: there is no C_Login, sessions begin logged in with it
};

// Guards everything that threads share.
extern pthread_mutex_t lock;

// Opens the counters, which are there already; false if they are not.
bool open_control(void);

// The habits of now. Takes the lock.
struct habits current_habits(void);

// What this call meets: counted, delayed, hung, crashed here; the fault that decides its return code, if any.
struct fault meet(int position, struct call call);
