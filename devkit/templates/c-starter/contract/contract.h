/*
 * A small helper for contracts in C: one header, no library, POSIX only.
 *
 *   struct contract c;
 *   if (contract_begin(&c) != 0) return 1;
 *   for (size_t u = 0; u < c.user_count; u++)
 *       for (size_t i = 0; i < c.users[u].input_count; i++)
 *           contract_send(&c.users[u], c.users[u].inputs[i].data, c.users[u].inputs[i].size);
 *
 * It reads the JSON object on standard input, maps the users' inputs into
 * memory (each starts a page and is followed by a zero byte, so string
 * functions may be used on text), and frames outputs. Nothing needs to be freed:
 * the process ends with the ledger.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define CONTRACT_MAX_PACKET (128 * 1024) /* largest NPL message */

struct contract_input {
    const char *data;
    size_t size;
};

struct contract_user {
    char key[67]; /* hex */
    int fd;
    struct contract_input *inputs;
    size_t input_count;
};

struct contract {
    char key[67];      /* this node's public key, hex */
    char lcl_hash[65]; /* empty in a read request */
    uint64_t lcl_seq_no;
    uint64_t timestamp; /* milliseconds, 0 in a read request */
    int readonly;
    int npl_fd; /* -1 in a read request */
    int control_fd;
    struct contract_user *users;
    size_t user_count;
    char (*unl)[67];
    size_t unl_count;
};

/* --- reading JSON: just enough for what the node writes --- */

static const char *contract__skip(const char *p) {
    while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r') p++;
    return p;
}

/* Steps over one value. Returns NULL at the end of the text. */
static const char *contract__value(const char *p) {
    int depth = 0;
    p = contract__skip(p);
    for (; *p; p++) {
        if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                if (*p == '\\' && p[1]) p++;
            if (!*p) return NULL;
            if (depth == 0) return p + 1;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0) return p;
            if (--depth == 0) return p + 1;
        } else if (*p == ',' && depth == 0) {
            return p;
        }
    }
    return depth == 0 ? p : NULL;
}

/* Takes the next "key": of an object into key and returns where its value
   begins, or NULL at the object's end. *p moves behind the value. */
static const char *contract__member(const char **p, char *key, size_t size) {
    const char *q = contract__skip(*p), *end, *value;
    if (*q == ',' || *q == '{') q = contract__skip(q + 1);
    if (*q != '"' || !(end = contract__value(q))) return NULL;
    size_t n = (size_t)(end - q) - 2;
    if (n >= size) n = size - 1;
    memcpy(key, q + 1, n);
    key[n] = 0;
    q = contract__skip(end);
    if (*q != ':') return NULL;
    value = contract__skip(q + 1);
    if (!(*p = contract__value(value))) return NULL;
    return value;
}

static void contract__text(const char *value, char *out, size_t size) {
    size_t n = 0;
    if (*value++ == '"')
        while (*value && *value != '"' && n + 1 < size) out[n++] = *value++;
    out[n] = 0;
}

static int contract__read_users(struct contract *c, const char *p, const char *map) {
    size_t cap = 0;
    char key[67];
    const char *v;
    while ((v = contract__member(&p, key, sizeof key))) {
        if (c->user_count == cap) {
            cap = cap ? 2 * cap : 16;
            if (!(c->users = realloc(c->users, cap * sizeof *c->users))) return -1;
        }
        struct contract_user *u = &c->users[c->user_count++];
        memset(u, 0, sizeof *u);
        memcpy(u->key, key, sizeof key);
        char *q;
        u->fd = (int)strtol(v + 1, &q, 10);
        size_t icap = 0;
        while (*(q = (char *)contract__skip(q)) == ',') {
            q = strchr(q, '[');
            if (!q || !map) return -1;
            if (u->input_count == icap) {
                icap = icap ? 2 * icap : 4;
                if (!(u->inputs = realloc(u->inputs, icap * sizeof *u->inputs))) return -1;
            }
            struct contract_input *in = &u->inputs[u->input_count++];
            in->data = map + strtoull(q + 1, &q, 10);
            if (*q != ',') return -1;
            in->size = strtoull(q + 1, &q, 10);
            if (*q++ != ']') return -1;
        }
    }
    return 0;
}

static int contract__read_unl(struct contract *c, const char *p) {
    size_t cap = 0;
    char key[67];
    while (contract__member(&p, key, sizeof key)) {
        if (c->unl_count == cap) {
            cap = cap ? 2 * cap : 16;
            if (!(c->unl = realloc(c->unl, cap * sizeof *c->unl))) return -1;
        }
        memcpy(c->unl[c->unl_count++], key, sizeof key);
    }
    return 0;
}

/* Reads what the node tells. Returns 0, or -1 when there is no node. */
static int contract_begin(struct contract *c) {
    size_t cap = 1 << 16, len = 0;
    char *text, key[32];
    const char *p, *v, *users = NULL, *map = NULL;
    int in_fd = -1;

    memset(c, 0, sizeof *c);
    c->npl_fd = c->control_fd = -1;
    if (isatty(STDIN_FILENO) || !(text = malloc(cap + 1))) return -1;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, text + len, cap - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        len += (size_t)n;
        if (len == cap && !(text = realloc(text, (cap *= 2) + 1))) return -1;
    }
    text[len] = 0;

    p = text;
    while ((v = contract__member(&p, key, sizeof key))) {
        if (!strcmp(key, "public_key")) contract__text(v, c->key, sizeof c->key);
        else if (!strcmp(key, "lcl_hash")) contract__text(v, c->lcl_hash, sizeof c->lcl_hash);
        else if (!strcmp(key, "lcl_seq_no")) c->lcl_seq_no = strtoull(v, NULL, 10);
        else if (!strcmp(key, "timestamp")) c->timestamp = strtoull(v, NULL, 10);
        else if (!strcmp(key, "readonly")) c->readonly = *v == 't';
        else if (!strcmp(key, "npl_fd")) c->npl_fd = atoi(v);
        else if (!strcmp(key, "control_fd")) c->control_fd = atoi(v);
        else if (!strcmp(key, "user_in_fd")) in_fd = atoi(v);
        else if (!strcmp(key, "users")) users = v;
        else if (!strcmp(key, "unl") && contract__read_unl(c, v) != 0) return -1;
    }
    if (in_fd < 0 || !users) return -1;
    struct stat st;
    if (fstat(in_fd, &st) != 0) return -1;
    if (st.st_size > 0) {
        void *m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, in_fd, 0);
        if (m == MAP_FAILED) return -1;
        map = m;
    }
    return contract__read_users(c, users, map);
}

/* Sends one output to a user. Returns 0 on success. */
static int contract_send(const struct contract_user *u, const void *data, size_t size) {
    unsigned char head[4] = {(unsigned char)(size >> 24), (unsigned char)(size >> 16),
                             (unsigned char)(size >> 8), (unsigned char)size};
    struct iovec iov[2] = {{head, sizeof head}, {(void *)data, size}};
    int i = 0;
    while (i < 2) {
        ssize_t n = writev(u->fd, iov + i, 2 - i);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        while (i < 2 && (size_t)n >= iov[i].iov_len) n -= (ssize_t)iov[i++].iov_len;
        if (i < 2) {
            iov[i].iov_base = (char *)iov[i].iov_base + n;
            iov[i].iov_len -= (size_t)n;
        }
    }
    return 0;
}

/* Sends a message to all nodes of the UNL, this one included. */
static inline int contract_npl_send(const struct contract *c, const void *data, size_t size) {
    return write(c->npl_fd, data, size) == (ssize_t)size ? 0 : -1;
}

/* Waits for the next message and its sender. data must have room for
   CONTRACT_MAX_PACKET bytes. Returns its size, 0 at the end, -1 on error. */
static inline ssize_t contract_npl_receive(const struct contract *c, char sender[67], void *data) {
    ssize_t n = read(c->npl_fd, sender, 66);
    if (n <= 0) return n;
    sender[n] = 0;
    return read(c->npl_fd, data, CONTRACT_MAX_PACKET);
}

#endif
