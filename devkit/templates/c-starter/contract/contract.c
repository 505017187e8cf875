/* The contract of _projname_: it keeps one text, the same on every node.
 *
 * The node runs this program once for every ledger and once for every read
 * request, in the folder that holds the replicated state. Files written here
 * must get the same bytes on every node: no random numbers, no clock but
 * c.timestamp. */
#include "contract.h"

#define FILE_NAME "data.txt"

static int reply(const struct contract_user *user, const char *text) {
    return contract_send(user, text, strlen(text));
}

static int get(const struct contract_user *user) {
    FILE *f = fopen(FILE_NAME, "rb");
    if (!f) return reply(user, "nothing is set");
    char *text = NULL;
    size_t size = 0, room = 0, n;
    do {
        if (size == room && !(text = realloc(text, room = room ? 2 * room : 4096))) return -1;
        n = fread(text + size, 1, room - size, f);
        size += n;
    } while (n > 0);
    fclose(f);
    int result = contract_send(user, text, size);
    free(text);
    return result;
}

static int set(const struct contract *c, const struct contract_user *user, const char *text, size_t size) {
    if (c->readonly) return reply(user, "a read request cannot set anything; send this as an input");
    FILE *f = fopen(FILE_NAME, "wb");
    if (!f || fwrite(text, 1, size, f) != size || fclose(f) != 0) return reply(user, "the text cannot be written");
    return reply(user, "ok");
}

static int stat_(const struct contract *c, const struct contract_user *user) {
    char line[80];
    if (c->readonly) return reply(user, "asked in a read request");
    snprintf(line, sizeof line, "ledger %llu, %zu users", (unsigned long long)c->lcl_seq_no, c->user_count);
    return reply(user, line);
}

int main(void) {
    struct contract c;
    if (contract_begin(&c) != 0) {
        fputs("_projname_: this program is run by a node; try: evernode dev deploy dist\n", stderr);
        return 1;
    }
    for (size_t u = 0; u < c.user_count; u++) {
        const struct contract_user *user = &c.users[u];
        for (size_t i = 0; i < user->input_count; i++) {
            const char *in = user->inputs[i].data;
            size_t size = user->inputs[i].size;
            int result;
            if (size == 3 && !memcmp(in, "get", 3)) result = get(user);
            else if (size >= 4 && !memcmp(in, "set ", 4)) result = set(&c, user, in + 4, size - 4);
            else if (size == 4 && !memcmp(in, "stat", 4)) result = stat_(&c, user);
            else result = reply(user, "unknown command; there are: get, set TEXT, stat");
            if (result != 0) return 1;
        }
    }
    return 0;
}
