// SPDX-License-Identifier: Apache-2.0
// PKCS#11 as far as the shim needs it: types, numbers, and the functions that it wraps. Layout and numbers are those of
// PKCS#11 2.40 (pkcs11t.h, pkcs11f.h).

#pragma once
#include <stdbool.h>

typedef unsigned long ulong_t;  // CK_ULONG, CK_RV and all handles
typedef unsigned char byte;
typedef void (*function)(void);

enum { FUNCTIONS_COUNT = 68 };
struct function_list { byte major, minor; function functions[FUNCTIONS_COUNT]; };
struct mechanism { ulong_t mechanism; void *parameter; ulong_t length; };
struct attribute { ulong_t type; void *value; ulong_t length; };
struct gcm_parameters { byte *iv; ulong_t iv_length, iv_bits; byte *aad; ulong_t aad_length, tag_bits; };
struct ctr_parameters { ulong_t counter_bits; byte block[16]; };
struct token_info {
    byte texts[96];
    ulong_t flags, max_sessions, sessions, max_rw_sessions, rw_sessions, others[6];
    byte versions_and_time[20];
};
struct session_info { ulong_t slot, state, flags, device_error; };

#define CKR_OK 0x0UL
#define CKR_GENERAL_ERROR 0x5UL
#define CKR_ARGUMENTS_BAD 0x7UL
#define CKR_ATTRIBUTE_VALUE_INVALID 0x13UL
#define CKR_FUNCTION_NOT_SUPPORTED 0x54UL
#define CKR_ENCRYPTED_DATA_LEN_RANGE 0x41UL
#define CKR_MECHANISM_INVALID 0x70UL
#define CKR_MECHANISM_PARAM_INVALID 0x71UL
#define CKR_SESSION_COUNT 0xB1UL
#define CKR_USER_ALREADY_LOGGED_IN 0x100UL
#define CKR_BUFFER_TOO_SMALL 0x150UL
#define CKR_TEMPLATE_INCONSISTENT 0xD1UL
#define CKA_TOKEN 0x1UL
#define CKA_PRIVATE 0x2UL
#define CKA_LABEL 0x3UL
#define CKA_KEY_TYPE 0x100UL
#define CKA_ID 0x102UL
#define CKA_SENSITIVE 0x103UL
#define CKA_ENCRYPT 0x104UL
#define CKA_DECRYPT 0x105UL
#define CKA_WRAP 0x106UL
#define CKA_UNWRAP 0x107UL
#define CKA_SIGN 0x108UL
#define CKA_VERIFY 0x10AUL
#define CKA_DERIVE 0x10CUL
#define CKA_VALUE_LEN 0x161UL
#define CKA_EXTRACTABLE 0x162UL
#define CKA_NEVER_EXTRACTABLE 0x164UL
#define CKA_ALWAYS_SENSITIVE 0x165UL
#define CKA_KMS_ALGORITHM 0x8001E101UL  // of Google's library
#define CKK_GENERIC_SECRET 0x10UL
#define CKK_SHA256_HMAC 0x2BUL
#define CKF_RW_SESSION 0x2UL
#define CKF_LOGIN_REQUIRED 0x4UL
#define CKM_AES_CTR 0x1086UL
#define CKM_AES_GCM 0x1087UL
#define CKM_GENERIC_SECRET_KEY_GEN 0x350UL
#define CKU_USER 1UL

// Every function that is wrapped: position in CK_FUNCTION_LIST, name, parameters, arguments, what of a call a condition
// can look at, and `real` or `play`: whether it is the module's or has habits.
#define IN_OUT (ulong_t session, byte *in, ulong_t size, byte *out, ulong_t *length)
#define IN_OUT_ARGUMENTS (session, in, size, out, length)
#define INIT (ulong_t session, struct mechanism *mechanism, ulong_t key)
#define INIT_ARGUMENTS (session, mechanism, key)
#define NOTHING (struct call){0}
#define INPUT (struct call){.input = in, .size = size}
#define LAST (struct call){.input = in, .size = size, .operation = session}
#define TEMPLATE (struct call){.attributes = template, .count = count}
#define MECHANISM (struct call){.mechanism = mechanism}
#define FUNCTIONS(X) \
    X(0, C_Initialize, (void *arguments), (arguments), NOTHING, real) \
    X(1, C_Finalize, (void *reserved), (reserved), NOTHING, play) \
    X(4, C_GetSlotList, (byte present, ulong_t *slots, ulong_t *count), (present, slots, count), NOTHING, real) \
    X(6, C_GetTokenInfo, (ulong_t slot, struct token_info *info), (slot, info), NOTHING, play) \
    X(7, C_GetMechanismList, (ulong_t slot, ulong_t *list, ulong_t *count), (slot, list, count), NOTHING, play) \
    X(12, C_OpenSession, (ulong_t slot, ulong_t flags, void *application, void *notify, ulong_t *session), \
      (slot, flags, application, notify, session), NOTHING, play) \
    X(13, C_CloseSession, (ulong_t session), (session), NOTHING, play) \
    X(14, C_CloseAllSessions, (ulong_t slot), (slot), NOTHING, play) \
    X(15, C_GetSessionInfo, (ulong_t session, struct session_info *info), (session, info), NOTHING, play) \
    X(18, C_Login, (ulong_t session, ulong_t user, byte *in, ulong_t size), (session, user, in, size), INPUT, play) \
    X(22, C_DestroyObject, (ulong_t session, ulong_t object), (session, object), NOTHING, real) \
    X(24, C_GetAttributeValue, (ulong_t session, ulong_t object, struct attribute *template, ulong_t count), \
      (session, object, template, count), TEMPLATE, play) \
    X(26, C_FindObjectsInit, (ulong_t session, struct attribute *template, ulong_t count), \
      (session, template, count), TEMPLATE, play) \
    X(27, C_FindObjects, (ulong_t session, ulong_t *objects, ulong_t room, ulong_t *count), \
      (session, objects, room, count), NOTHING, real) \
    X(28, C_FindObjectsFinal, (ulong_t session), (session), (struct call){.operation = session}, real) \
    X(29, C_EncryptInit, INIT, INIT_ARGUMENTS, MECHANISM, play) \
    X(30, C_Encrypt, IN_OUT, IN_OUT_ARGUMENTS, LAST, play) \
    X(33, C_DecryptInit, INIT, INIT_ARGUMENTS, MECHANISM, play) \
    X(34, C_Decrypt, IN_OUT, IN_OUT_ARGUMENTS, LAST, play) \
    X(42, C_SignInit, INIT, INIT_ARGUMENTS, MECHANISM, real) \
    X(43, C_Sign, IN_OUT, IN_OUT_ARGUMENTS, LAST, real) \
    X(48, C_VerifyInit, INIT, INIT_ARGUMENTS, MECHANISM, real) \
    X(49, C_Verify, (ulong_t session, byte *in, ulong_t size, byte *signature, ulong_t length), \
      (session, in, size, signature, length), LAST, real) \
    X(58, C_GenerateKey, (ulong_t session, struct mechanism *mechanism, struct attribute *template, ulong_t count, \
      ulong_t *key), (session, mechanism, template, count, key), \
      ((struct call){.mechanism = mechanism, .attributes = template, .count = count}), play) \
    X(59, C_GenerateKeyPair, (ulong_t session, struct mechanism *mechanism, struct attribute *template, ulong_t count, \
      struct attribute *private, ulong_t private_count, ulong_t *public_key, ulong_t *private_key), \
      (session, mechanism, template, count, private, private_count, public_key, private_key), \
      ((struct call){.mechanism = mechanism, .attributes = template, .count = count}), play) \
    X(60, C_WrapKey, (ulong_t session, struct mechanism *mechanism, ulong_t by, ulong_t key, byte *out, \
      ulong_t *length), (session, mechanism, by, key, out, length), MECHANISM, real) \
    X(61, C_UnwrapKey, (ulong_t session, struct mechanism *mechanism, ulong_t by, byte *in, ulong_t size, \
      struct attribute *template, ulong_t count, ulong_t *key), \
      (session, mechanism, by, in, size, template, count, key), \
      ((struct call){.mechanism = mechanism, .input = in, .size = size, .attributes = template, .count = count}), \
      real) \
    X(64, C_GenerateRandom, (ulong_t session, byte *out, ulong_t size), (session, out, size), NOTHING, real)

extern struct function_list *behind;  // the module's own table

#define REAL(position, name, parameters, arguments, about, prefix) \
    static inline ulong_t real_##name parameters { \
        return ((ulong_t(*) parameters)behind->functions[position]) arguments; \
    }
FUNCTIONS(REAL)

