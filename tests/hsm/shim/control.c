// SPDX-License-Identifier: Apache-2.0
// The control file: read, parsed, and what it says about one call.

#define _GNU_SOURCE
#include "control.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME(position, name, parameters, arguments, about, prefix) [position] = #name,
static const char *const names[FUNCTIONS_COUNT] = {FUNCTIONS(NAME)};

enum { MAX_FAULTS = 32, MAX_IDS = 256, ANY = -1 };

static struct control {
    struct fault faults[MAX_FAULTS];
    int count;
    struct habits habits;
} control;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *control_path;
static uint64_t *counts;  // calls by position, then by id of a fault

static int position_of(const char *name) {
    for (int position = 0; position < FUNCTIONS_COUNT; position++)
        if (names[position] && !strcmp(names[position], name)) return position;
    return ANY;
}

static void parse_word(struct fault *fault, const char *word) {
    const char *equals = strchr(word, '=');
    ulong_t number = equals ? strtoul(equals + 1, NULL, 0) : 0;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
#define IS(text) (length == strlen(text) && !strncmp(word, text, length))
    if (IS("id")) fault->id = number % MAX_IDS;
    else if (IS("from")) fault->from = number;
    else if (IS("times")) fault->times = number;
    else if (IS("delay")) fault->delay = number;
    else if (IS("returns")) fault->returns = number, fault->has_returns = true;
    else if (IS("after")) fault->after = true;
    else if (IS("hang")) fault->hang = true;
    else if (IS("crash")) fault->crash = true;
    else if (IS("exit")) fault->exit = true;
    else if (IS("attribute")) fault->attribute = number, fault->has_attribute = true;
    else if (IS("mechanism")) fault->mechanism = number, fault->has_mechanism = true;
    else if (IS("input") && equals) {
        fault->has_input = true;
        for (const char *hex = equals + 1; hex[0] && hex[1] && fault->input_size < MAX_INPUT; hex += 2)
            fault->input[fault->input_size++] = (byte)strtoul((char[]){hex[0], hex[1], 0}, NULL, 16);
    } else fprintf(stderr, "shim: %s is no word of a fault\n", word);
#undef IS
}

static void parse_habit(struct habits *habits, const char *name, const char *value) {
    ulong_t number = strtoul(value, NULL, 0);
#define IS(text) (!strcmp(name, text))
    if (IS("token-flags")) habits->token_flags = number;
    else if (IS("max-sessions")) habits->max_sessions = number;
    else if (IS("max-rw-sessions")) habits->max_rw_sessions = number;
    else if (IS("session-limit")) habits->session_limit = number;
    else if (IS("read-write-only")) habits->read_write_only = true;
    else if (IS("hide") && habits->hidden_count < MAX_HIDDEN) habits->hidden[habits->hidden_count++] = number;
    else if (IS("gcm-mechanism")) habits->gcm_mechanism = number;
    else if (IS("gcm-iv"))
        habits->iv_source = !strcmp(value, "zero-buffer") ? ZERO_BUFFER : !strcmp(value, "prepended") ? PREPENDED
                          : !strcmp(value, "appended") ? APPENDED : HOST;
    else if (IS("gcm-iv-bytes")) habits->iv_bytes = number > 16 ? 16 : number;
    else if (IS("gcm-iv-fault")) habits->iv_fault = !strcmp(value, "zeros") ? ZEROS : SAME;
    else if (IS("accept-any-tag")) habits->any_tag = true;
    else if (IS("readable")) habits->readable = true;
    else if (IS("wrappable")) habits->wrappable = true;
    else if (IS("typed-hmac")) habits->typed_hmac = true;
    else if (IS("cloud-kms")) habits->cloud_kms = true;
    else if (IS("max-id")) habits->max_id = number, habits->has_max_id = true;
    else if (IS("max-label")) habits->max_label = number, habits->has_max_label = true;
    else if (IS("login-pin")) snprintf(habits->pin, sizeof habits->pin, "%s", value);
    else fprintf(stderr, "shim: %s is no function and no habit\n", name);
#undef IS
}

static void parse_line(char *line) {
    char *rest, *subject = strtok_r(line, " \n", &rest);
    if (!subject) return;
    int position = position_of(subject);
    if (position == ANY && strcmp(subject, "*")) {
        char *value = strtok_r(NULL, " \n", &rest);
        parse_habit(&control.habits, subject, value ? value : "");
    } else if (control.count < MAX_FAULTS) {
        struct fault *fault = &control.faults[control.count++];
        *fault = (struct fault){.position = position, .from = 1, .times = ~0UL};
        for (char *word; (word = strtok_r(NULL, " \n", &rest));) parse_word(fault, word);
    }
}

// Reads the control file again if it is another one. The test replaces it whole, by renaming.
static void refresh(void) {
    static struct stat last;
    struct stat now = {0};
    if (stat(control_path, &now)) now = (struct stat){0};
    if (now.st_ino == last.st_ino && now.st_mtim.tv_sec == last.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == last.st_mtim.tv_nsec && now.st_size == last.st_size)
        return;
    last = now;
    control = (struct control){.habits = {.gcm_mechanism = CKM_AES_GCM, .iv_bytes = 12}};
    FILE *file = fopen(control_path, "re");
    if (!file) return;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) parse_line(line);
    free(line);
    fclose(file);
}

bool open_control(void) {
    char path[4096];
    control_path = getenv("SHIM_CONTROL");
    snprintf(path, sizeof path, "%s.counts", control_path ? control_path : "");
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return false;
    counts = mmap(NULL, (FUNCTIONS_COUNT + MAX_IDS) * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return counts != MAP_FAILED;
}

struct habits current_habits(void) {
    pthread_mutex_lock(&lock);
    struct habits habits = control.habits;
    pthread_mutex_unlock(&lock);
    return habits;
}

static bool meant(const struct fault *fault, int position, const struct call *call) {
    if (fault->position != ANY && fault->position != position) return false;
    if (fault->has_input && call->size != fault->input_size) return false;
    if (fault->has_input && memcmp(call->input, fault->input, call->size)) return false;
    if (fault->has_mechanism && (!call->mechanism || call->mechanism->mechanism != fault->mechanism)) return false;
    if (!fault->has_attribute) return true;
    for (ulong_t index = 0; index < call->count; index++)
        if (call->attributes[index].type == fault->attribute) return true;
    return false;
}

static bool still_there(ulong_t id) {
    bool found = false;
    pthread_mutex_lock(&lock);
    refresh();
    for (int index = 0; index < control.count; index++) found |= control.faults[index].id == id;
    pthread_mutex_unlock(&lock);
    return found;
}

struct fault meet(int position, struct call call) {
    struct fault decisive = {0};
    ulong_t delay = 0;
    pthread_mutex_lock(&lock);
    refresh();
    __atomic_fetch_add(&counts[position], 1, __ATOMIC_RELAXED);
    for (int index = 0; index < control.count; index++) {
        const struct fault *fault = &control.faults[index];
        if (!meant(fault, position, &call)) continue;
        uint64_t number = __atomic_add_fetch(&counts[FUNCTIONS_COUNT + fault->id], 1, __ATOMIC_RELAXED);
        if (number < fault->from || number - fault->from >= fault->times) continue;
        delay += fault->delay;
        if (fault->has_returns || fault->hang || fault->crash || fault->exit) decisive = *fault;
    }
    pthread_mutex_unlock(&lock);
    if (delay) usleep((useconds_t)delay);
    if (decisive.crash) raise(SIGSEGV);
    if (decisive.exit) _exit(1);
    while (decisive.hang && still_there(decisive.id)) usleep(2000);
    return decisive;
}

