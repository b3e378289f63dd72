// SPDX-License-Identifier: Apache-2.0
// Habits of tokens: what the shim does itself, so that the module behind looks like another vendor's, or like a liar's.

#define _GNU_SOURCE
#include "habits.h"

#include <string.h>
#include <sys/random.h>

enum { MAX_SESSIONS = 256 };
static struct operation {  // of AES-GCM, in one session
    ulong_t session, key;
    bool active, deferred;
    struct habits habits;
    struct gcm_parameters parameters;
    byte iv[16], *callers_iv;
} operations[MAX_SESSIONS];
static ulong_t open_sessions;

static struct operation *operation_of(ulong_t session) {
    struct operation *found = NULL;
    pthread_mutex_lock(&lock);
    for (int index = 0; index < MAX_SESSIONS && !found; index++)
        if (operations[index].active && operations[index].session == session) found = &operations[index];
    pthread_mutex_unlock(&lock);
    return found;
}

static struct operation *new_operation(ulong_t session, ulong_t key, const struct habits *habits) {
    struct operation *found = operation_of(session);
    pthread_mutex_lock(&lock);
    for (int index = 0; index < MAX_SESSIONS && !found; index++)
        if (!operations[index].active) found = &operations[index];
    if (found) *found = (struct operation){.session = session, .key = key, .active = true, .habits = *habits};
    pthread_mutex_unlock(&lock);
    return found;
}

static bool is_hidden(const struct habits *habits, ulong_t mechanism) {
    for (ulong_t index = 0; index < habits->hidden_count; index++)
        if (habits->hidden[index] == mechanism) return true;
    return false;
}

ulong_t play_C_Finalize(void *reserved) {
    pthread_mutex_lock(&lock);
    open_sessions = 0;
    memset(operations, 0, sizeof operations);
    pthread_mutex_unlock(&lock);
    return real_C_Finalize(reserved);
}

ulong_t play_C_GetTokenInfo(ulong_t slot, struct token_info *info) {
    ulong_t code = real_C_GetTokenInfo(slot, info);
    struct habits habits = current_habits();
    if (code != CKR_OK) return code;
    info->flags |= habits.token_flags;
    if (habits.pin[0]) info->flags &= ~CKF_LOGIN_REQUIRED;
    if (habits.max_sessions) info->max_sessions = habits.max_sessions;
    if (habits.max_rw_sessions) info->max_rw_sessions = habits.max_rw_sessions;
    return code;
}

ulong_t play_C_GetMechanismList(ulong_t slot, ulong_t *list, ulong_t *count) {
    struct habits habits = current_habits();
    ulong_t all[512], total = 511, kept = 0;
    bool has_gcm = false;
    ulong_t code = real_C_GetMechanismList(slot, all, &total);
    if (code != CKR_OK) return code;
    for (ulong_t index = 0; index < total; index++) {
        if (is_hidden(&habits, all[index])) continue;
        has_gcm |= all[index] == habits.gcm_mechanism;
        all[kept++] = all[index];
    }
    if (!has_gcm && !is_hidden(&habits, habits.gcm_mechanism)) all[kept++] = habits.gcm_mechanism;
    ulong_t room = *count;
    *count = kept;
    if (!list) return CKR_OK;
    if (room < kept) return CKR_BUFFER_TOO_SMALL;
    memcpy(list, all, kept * sizeof *list);
    return CKR_OK;
}

ulong_t play_C_OpenSession(ulong_t slot, ulong_t flags, void *application, void *notify, ulong_t *session) {
    struct habits habits = current_habits();
    if (habits.read_write_only && !(flags & CKF_RW_SESSION)) return CKR_ARGUMENTS_BAD;
    pthread_mutex_lock(&lock);
    bool full = habits.session_limit && open_sessions >= habits.session_limit;
    ulong_t code = full ? CKR_SESSION_COUNT : real_C_OpenSession(slot, flags, application, notify, session);
    if (code == CKR_OK) open_sessions++;
    pthread_mutex_unlock(&lock);
    if (code != CKR_OK || !habits.pin[0]) return code;
    code = real_C_Login(*session, CKU_USER, (byte *)habits.pin, strlen(habits.pin));
    return code == CKR_USER_ALREADY_LOGGED_IN ? CKR_OK : code;
}

ulong_t play_C_CloseSession(ulong_t session) {
    ulong_t code = real_C_CloseSession(session);
    struct operation *operation = operation_of(session);
    pthread_mutex_lock(&lock);
    if (operation) operation->active = false;
    if (code == CKR_OK) open_sessions--;
    pthread_mutex_unlock(&lock);
    return code;
}

ulong_t play_C_CloseAllSessions(ulong_t slot) {
    pthread_mutex_lock(&lock);
    open_sessions = 0;
    memset(operations, 0, sizeof operations);
    pthread_mutex_unlock(&lock);
    return real_C_CloseAllSessions(slot);
}

ulong_t play_C_GetSessionInfo(ulong_t session, struct session_info *info) {
    ulong_t code = real_C_GetSessionInfo(session, info);
    if (code == CKR_OK && current_habits().pin[0] && info->state % 2) info->state--;  // to one that is not logged in
    return code;
}

ulong_t play_C_Login(ulong_t session, ulong_t user, byte *pin, ulong_t length) {
    return current_habits().pin[0] ? CKR_FUNCTION_NOT_SUPPORTED : real_C_Login(session, user, pin, length);
}

ulong_t play_C_GetAttributeValue(ulong_t session, ulong_t object, struct attribute *template, ulong_t count) {
    ulong_t code = real_C_GetAttributeValue(session, object, template, count);
    struct habits habits = current_habits();
    for (ulong_t index = 0; index < count; index++) {
        ulong_t type = template[index].type;
        byte *answer = template[index].value;
        if (habits.typed_hmac && type == CKA_KEY_TYPE && answer && *(ulong_t *)answer == CKK_GENERIC_SECRET)
            *(ulong_t *)answer = CKK_SHA256_HMAC;
        if (!(habits.readable || habits.wrappable) || !answer || template[index].length != 1) continue;
        if (type == CKA_SENSITIVE || type == CKA_ALWAYS_SENSITIVE || type == CKA_NEVER_EXTRACTABLE) *answer = 1;
        if (type == CKA_EXTRACTABLE) *answer = 0;
    }
    return code;
}

enum { MAX_ATTRIBUTES = 64 };
static byte true_ = 1, false_ = 0;
static ulong_t key_bytes = 32;

ulong_t play_C_FindObjectsInit(ulong_t session, struct attribute *template, ulong_t count) {
    struct attribute kept[MAX_ATTRIBUTES];
    bool typed_hmac = current_habits().typed_hmac;
    ulong_t kept_count = 0;
    for (ulong_t index = 0; index < count && kept_count < MAX_ATTRIBUTES; index++)
        if (!typed_hmac || template[index].type != CKA_KEY_TYPE) kept[kept_count++] = template[index];
    return real_C_FindObjectsInit(session, kept, kept_count);
}

// Copies the template of a new key into `changed`, as leaky as the habits say. Refuses what there is no room for.
static ulong_t leak(struct attribute *changed, const struct attribute *template, ulong_t count) {
    struct habits habits = current_habits();
    if (count > MAX_ATTRIBUTES) return CKR_ARGUMENTS_BAD;
    for (ulong_t index = 0; index < count; index++) {
        changed[index] = template[index];
        ulong_t type = template[index].type, length = template[index].length;
        if (type == CKA_ID && habits.has_max_id && length > habits.max_id) return CKR_ATTRIBUTE_VALUE_INVALID;
        if (type == CKA_LABEL && habits.has_max_label && length > habits.max_label) return CKR_ATTRIBUTE_VALUE_INVALID;
        if (type == CKA_EXTRACTABLE && (habits.wrappable || habits.readable)) changed[index].value = &true_;
        if (type == CKA_SENSITIVE && habits.readable) changed[index].value = &false_;
    }
    return CKR_OK;
}

// What a cloud knows by itself, around the label that the template gives.
static ulong_t generate_in_the_cloud(ulong_t session, struct mechanism *mechanism, struct attribute *template,
                                     ulong_t count, ulong_t *key) {
    struct attribute whole[] = {
        {CKA_LABEL, NULL, 0},       {CKA_VALUE_LEN, &key_bytes, sizeof key_bytes},
        {CKA_TOKEN, &true_, 1},     {CKA_PRIVATE, &true_, 1},
        {CKA_SENSITIVE, &true_, 1}, {CKA_EXTRACTABLE, &false_, 1},
        {CKA_ENCRYPT, &true_, 1},   {CKA_DECRYPT, &true_, 1},
        {CKA_WRAP, &false_, 1},     {CKA_UNWRAP, &false_, 1},
        {CKA_SIGN, &false_, 1},     {CKA_VERIFY, &false_, 1},
        {CKA_DERIVE, &false_, 1},
    };
    bool algorithm = false;
    for (ulong_t index = 0; index < count; index++) {
        if (template[index].type == CKA_LABEL) whole[0] = template[index];
        else if (template[index].type == CKA_KMS_ALGORITHM) algorithm = true;
        else return CKR_TEMPLATE_INCONSISTENT;
    }
    if (!algorithm || !whole[0].value) return CKR_TEMPLATE_INCONSISTENT;
    return real_C_GenerateKey(session, mechanism, whole, sizeof whole / sizeof *whole, key);
}

// An HMAC key has a type of its own, and its length is the token's business.
static ulong_t generate_typed_hmac(ulong_t session, struct mechanism *mechanism, struct attribute *template,
                                   ulong_t count, ulong_t *key) {
    static ulong_t generic = CKK_GENERIC_SECRET;
    bool typed = false;
    for (ulong_t index = 0; index < count; index++) {
        if (template[index].type == CKA_VALUE_LEN) return CKR_TEMPLATE_INCONSISTENT;
        if (template[index].type != CKA_KEY_TYPE) continue;
        typed = *(ulong_t *)template[index].value == CKK_SHA256_HMAC;
        template[index].value = &generic;
    }
    const struct attribute more[] = {
        {CKA_VALUE_LEN, &key_bytes, sizeof key_bytes}, {CKA_ENCRYPT, &false_, 1}, {CKA_DECRYPT, &false_, 1},
        {CKA_WRAP, &false_, 1}, {CKA_UNWRAP, &false_, 1},
    };
    ulong_t more_count = sizeof more / sizeof *more;
    if (!typed || count + more_count > MAX_ATTRIBUTES) return CKR_TEMPLATE_INCONSISTENT;
    memcpy(template + count, more, sizeof more);
    return real_C_GenerateKey(session, mechanism, template, count + more_count, key);
}

ulong_t play_C_GenerateKey(ulong_t session, struct mechanism *mechanism, struct attribute *template, ulong_t count,
                           ulong_t *key) {
    struct attribute changed[MAX_ATTRIBUTES];
    struct habits habits = current_habits();
    ulong_t code = leak(changed, template, count);
    if (code != CKR_OK) return code;
    if (habits.cloud_kms) return generate_in_the_cloud(session, mechanism, changed, count, key);
    if (habits.typed_hmac && mechanism->mechanism == CKM_GENERIC_SECRET_KEY_GEN)
        return generate_typed_hmac(session, mechanism, changed, count, key);
    return real_C_GenerateKey(session, mechanism, changed, count, key);
}

ulong_t play_C_GenerateKeyPair(ulong_t session, struct mechanism *mechanism, struct attribute *public,
                               ulong_t public_count, struct attribute *private, ulong_t private_count,
                               ulong_t *public_key, ulong_t *private_key) {
    struct attribute changed[MAX_ATTRIBUTES];
    ulong_t code = leak(changed, private, private_count);
    return code != CKR_OK ? code
                          : real_C_GenerateKeyPair(session, mechanism, public, public_count, changed, private_count,
                                                   public_key, private_key);
}

static bool all_zeros(const byte *bytes, ulong_t count) {
    while (count--) if (bytes[count]) return false;
    return true;
}

// If the mechanism is the AES-GCM that we play, its operation has begun.
static ulong_t begin(ulong_t session, struct mechanism *mechanism, ulong_t key, struct operation **begun) {
    struct habits habits = current_habits();
    if (is_hidden(&habits, mechanism->mechanism)) return CKR_MECHANISM_INVALID;
    if (mechanism->mechanism != habits.gcm_mechanism) return CKR_OK;
    if (!mechanism->parameter || mechanism->length != sizeof(struct gcm_parameters)) return CKR_MECHANISM_PARAM_INVALID;
    *begun = new_operation(session, key, &habits);
    if (!*begun) return CKR_GENERAL_ERROR;
    (*begun)->parameters = *(struct gcm_parameters *)mechanism->parameter;
    return CKR_OK;
}

ulong_t play_C_EncryptInit(ulong_t session, struct mechanism *mechanism, ulong_t key) {
    struct operation *operation = NULL;
    ulong_t code = begin(session, mechanism, key, &operation);
    if (code != CKR_OK || !operation) return code == CKR_OK ? real_C_EncryptInit(session, mechanism, key) : code;
    struct gcm_parameters *parameters = &operation->parameters;
    const struct habits *habits = &operation->habits;
    bool as_expected = true;
    if (habits->iv_source == ZERO_BUFFER)
        as_expected = parameters->iv && parameters->iv_length == habits->iv_bytes &&
                      all_zeros(parameters->iv, parameters->iv_length);
    else if (habits->iv_source != HOST)
        as_expected = !parameters->iv;
    if (habits->iv_source != HOST) {
        operation->callers_iv = parameters->iv;
        if (habits->iv_fault == RANDOM && getrandom(operation->iv, sizeof operation->iv, 0) < 0) as_expected = false;
        if (habits->iv_fault == SAME) memset(operation->iv, 0x42, sizeof operation->iv);
        parameters->iv = operation->iv;
        parameters->iv_length = habits->iv_bytes;
        parameters->iv_bits = habits->iv_bytes * 8;
    }
    struct mechanism ours = {CKM_AES_GCM, parameters, sizeof *parameters};
    code = as_expected ? real_C_EncryptInit(session, &ours, key) : CKR_MECHANISM_PARAM_INVALID;
    if (code != CKR_OK) operation->active = false;
    return code;
}

ulong_t play_C_Encrypt IN_OUT {
    struct operation *operation = operation_of(session);
    if (!operation) return real_C_Encrypt IN_OUT_ARGUMENTS;
    int source = operation->habits.iv_source;
    ulong_t beside = source == PREPENDED || source == APPENDED ? operation->habits.iv_bytes : 0;
    ulong_t needed = size + operation->parameters.tag_bits / 8 + beside, room = *length;
    *length = needed;
    if (!out) return CKR_OK;
    if (room < needed) return CKR_BUFFER_TOO_SMALL;
    byte *start = source == PREPENDED ? out + beside : out;
    ulong_t written = room - beside;
    ulong_t code = real_C_Encrypt(session, in, size, start, &written);
    operation->active = false;
    if (code != CKR_OK) return code;
    if (source == PREPENDED) memcpy(out, operation->iv, beside);
    if (source == APPENDED) memcpy(out + written, operation->iv, beside);
    if (source == ZERO_BUFFER) memcpy(operation->callers_iv, operation->iv, operation->habits.iv_bytes);
    *length = written + beside;
    return code;
}

// The module's C_DecryptInit; a tag that nobody looks at is AES in counter mode (SP 800-38D section 7.1).
static ulong_t begin_decryption(const struct operation *operation, struct gcm_parameters *parameters) {
    struct mechanism gcm = {CKM_AES_GCM, parameters, sizeof *parameters};
    if (!operation->habits.any_tag) return real_C_DecryptInit(operation->session, &gcm, operation->key);
    struct ctr_parameters counter = {32, {[15] = 2}};
    memcpy(counter.block, parameters->iv, 12);
    struct mechanism ctr = {CKM_AES_CTR, &counter, sizeof counter};
    return real_C_DecryptInit(operation->session, &ctr, operation->key);
}

ulong_t play_C_DecryptInit(ulong_t session, struct mechanism *mechanism, ulong_t key) {
    struct operation *operation = NULL;
    ulong_t code = begin(session, mechanism, key, &operation);
    if (code != CKR_OK || !operation) return code == CKR_OK ? real_C_DecryptInit(session, mechanism, key) : code;
    operation->deferred = operation->habits.iv_source == PREPENDED;  // the IV comes with the data
    bool as_expected = operation->deferred == !operation->parameters.iv;
    if (!as_expected) code = CKR_MECHANISM_PARAM_INVALID;
    else if (!operation->deferred) code = begin_decryption(operation, &operation->parameters);
    if (code != CKR_OK) operation->active = false;
    return code;
}

ulong_t play_C_Decrypt IN_OUT {
    struct operation *operation = operation_of(session);
    if (!operation) return real_C_Decrypt IN_OUT_ARGUMENTS;
    ulong_t code = CKR_OK, tag = operation->habits.any_tag ? operation->parameters.tag_bits / 8 : 0;
    if (!out) return *length = size, CKR_OK;
    operation->active = false;
    if (operation->deferred) {
        ulong_t iv = operation->habits.iv_bytes;
        if (size < iv) return CKR_ENCRYPTED_DATA_LEN_RANGE;
        operation->parameters.iv = in;
        operation->parameters.iv_length = iv;
        operation->parameters.iv_bits = iv * 8;
        code = begin_decryption(operation, &operation->parameters);
        in += iv, size -= iv;
    }
    return code == CKR_OK ? real_C_Decrypt(session, in, size - tag, out, length) : code;
}


void end_operation(int position, const struct call *call) {
    byte nowhere[16384];
    ulong_t length = sizeof nowhere;
    struct operation *operation = operation_of(call->operation);
    if (operation) operation->active = false;
    switch (position) {
    case 28: real_C_FindObjectsFinal(call->operation); break;
    case 30: real_C_Encrypt(call->operation, (byte *)call->input, call->size, nowhere, &length); break;
    case 34: real_C_Decrypt(call->operation, (byte *)call->input, call->size, nowhere, &length); break;
    case 43: real_C_Sign(call->operation, (byte *)call->input, call->size, nowhere, &length); break;
    case 49: real_C_Verify(call->operation, (byte *)call->input, call->size, nowhere, 32); break;
    }
    memset(nowhere, 0, sizeof nowhere);
}
