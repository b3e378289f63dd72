// SPDX-License-Identifier: Apache-2.0
// A PKCS#11 token from C, as fast as it goes: what the HSM layer is measured against.
//
// loop MODULE TOKEN_LABEL PIN_FILE, then one line on standard input for each run, answered with operations a second:
//     encrypt KEY_ID SECONDS                C_EncryptInit, C_Encrypt of 1 KB with 32 bytes of additional data
//     decrypt KEY_ID SECONDS                C_DecryptInit, C_Decrypt of the same
//     unwrap  KEY_ID SECONDS HASH WRAPPED   C_UnwrapKey (RSA-OAEP; 1 or 256) into a session key, C_DestroyObject
// KEY_ID and WRAPPED are hexadecimal digits.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long ulong_t;
struct mechanism { ulong_t mechanism; void *parameter; ulong_t length; };
struct attribute { ulong_t type; void *value; ulong_t length; };
struct gcm { void *iv; ulong_t iv_length, iv_bits; void *aad; ulong_t aad_length, tag_bits; };
struct oaep { ulong_t hash, mgf, source; void *data; ulong_t length; };
struct initialize { void *mutexes[4]; ulong_t flags; void *reserved; };
struct functions { void *version; void *at[68]; };

enum { VALUE = 1024, AAD = 32, TAG = 16 };
static struct functions *table;
static ulong_t session, key;
static unsigned char plaintext[VALUE], ciphertext[VALUE + TAG], aad[AAD], iv[12], wrapped[512];
static ulong_t wrapped_length;
static struct gcm gcm = {iv, sizeof iv, 96, aad, AAD, 128};
static struct mechanism aes_gcm = {0x1087, &gcm, sizeof gcm};
static struct oaep oaep = {0x220, 1, 1, NULL, 0};
static struct mechanism rsa_oaep = {0x9, &oaep, sizeof oaep};

// A function by its position in CK_FUNCTION_LIST. Ends the program unless it returns CKR_OK.
#define CALL(position, types, ...) check(position, ((ulong_t(*) types)table->at[position])(__VA_ARGS__))
#define INIT_TYPES (ulong_t, struct mechanism *, ulong_t)
#define CRYPT_TYPES (ulong_t, unsigned char *, ulong_t, unsigned char *, ulong_t *)

static void check(int position, ulong_t code) {
    if (code) {
        fprintf(stderr, "function %d of CK_FUNCTION_LIST returned 0x%lx\n", position, code);
        exit(1);
    }
}

static void encrypt(void) {
    ulong_t length = sizeof ciphertext;
    CALL(29, INIT_TYPES, session, &aes_gcm, key);
    CALL(30, CRYPT_TYPES, session, plaintext, VALUE, ciphertext, &length);
}

static void decrypt(void) {
    ulong_t length = sizeof ciphertext;
    CALL(33, INIT_TYPES, session, &aes_gcm, key);
    CALL(34, CRYPT_TYPES, session, ciphertext, sizeof ciphertext, plaintext, &length);
}

static void unwrap(void) {
    ulong_t class = 4, type = 0x1F, unwrapped;
    unsigned char yes = 1, no = 0;
    struct attribute template[] = {
        {0x00, &class, sizeof class}, {0x100, &type, sizeof type}, {0x01, &no, 1},
        {0x103, &yes, 1},             {0x162, &no, 1},             {0x105, &yes, 1},
    };
    CALL(61, (ulong_t, struct mechanism *, ulong_t, unsigned char *, ulong_t, struct attribute *, ulong_t, ulong_t *),
         session, &rsa_oaep, key, wrapped, wrapped_length, template, 6, &unwrapped);
    CALL(22, (ulong_t, ulong_t), session, unwrapped);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static double rate(void (*operation)(void), double seconds) {
    double start = now(), end = start;
    long done = 0;
    for (operation(); end - start < seconds; end = now())
        for (int i = 0; i < 8; i++, done++) operation();
    return done / (end - start);
}

static void log_in(const char *label, const char *pin_file) {
    ulong_t slots[64], count = 64, wanted = 64;
    unsigned char info[512], pin[256];
    CALL(4, (unsigned char, ulong_t *, ulong_t *), 1, slots, &count);
    for (ulong_t i = 0; i < count; i++) {
        CALL(6, (ulong_t, void *), slots[i], info);
        if (!memcmp(info, label, strlen(label))) wanted = i;  // CK_TOKEN_INFO starts with the label
    }
    FILE *file = fopen(pin_file, "r");
    if (wanted == 64 || !file) {
        fprintf(stderr, "no such token, or no PIN file\n");
        exit(1);
    }
    ulong_t length = fread(pin, 1, sizeof pin, file);
    fclose(file);
    CALL(12, (ulong_t, ulong_t, void *, void *, ulong_t *), slots[wanted], 6, NULL, NULL, &session);
    CALL(18, (ulong_t, ulong_t, void *, ulong_t), session, 1, pin, length);
}

static ulong_t from_hex(const char *digits, unsigned char *bytes) {
    ulong_t count = strlen(digits) / 2;
    for (ulong_t i = 0; i < count; i++) sscanf(digits + 2 * i, "%2hhx", bytes + i);
    return count;
}

static void find_key(ulong_t class, const char *digits) {
    unsigned char id[32];
    ulong_t count;
    struct attribute template[] = {{0x00, &class, sizeof class}, {0x102, id, from_hex(digits, id)}};
    CALL(26, (ulong_t, struct attribute *, ulong_t), session, template, 2);
    CALL(27, (ulong_t, ulong_t *, ulong_t, ulong_t *), session, &key, 1, &count);
    CALL(28, (ulong_t), session);
    check(27, count == 1 ? 0 : 0x82);
}

int main(int argc, char **argv) {
    void *module = argc == 4 ? dlopen(argv[1], RTLD_NOW) : NULL;
    ulong_t (*get_function_list)(struct functions **) = module ? dlsym(module, "C_GetFunctionList") : NULL;
    if (!get_function_list || get_function_list(&table)) {
        fprintf(stderr, "loop MODULE TOKEN_LABEL PIN_FILE\n");
        return 2;
    }
    struct initialize arguments = {.flags = 2};  // for threads, as the worker has it
    CALL(0, (void *), &arguments);
    log_in(argv[2], argv[3]);
    char line[2048], name[16], id[65], hex[1025];
    double seconds;
    int hash;
    while (fgets(line, sizeof line, stdin)) {
        int words = sscanf(line, "%15s %64s %lf %d %1024s", name, id, &seconds, &hash, hex);
        if (words < 3) return 2;
        find_key(*name == 'u' ? 3 : 4, id);
        if (*name == 'u') {
            oaep.hash = hash == 1 ? 0x220 : 0x250;
            oaep.mgf = hash == 1 ? 1 : 2;
            wrapped_length = from_hex(hex, wrapped);
        }
        if (*name == 'd') encrypt();
        printf("%f\n", rate(*name == 'u' ? unwrap : *name == 'd' ? decrypt : encrypt, seconds));
        fflush(stdout);
    }
    CALL(1, (void *), NULL);
    return 0;
}
