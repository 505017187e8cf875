/* Sends every input back to the user it came from. */
#include "contract.h"

int main(void) {
    struct contract c;
    if (contract_begin(&c) != 0) {
        fputs("echo: this program is run by a HotPocket node\n", stderr);
        return 1;
    }
    for (size_t u = 0; u < c.user_count; u++) {
        const struct contract_user *user = &c.users[u];
        for (size_t i = 0; i < user->input_count; i++)
            if (contract_send(user, user->inputs[i].data, user->inputs[i].size) != 0) return 1;
    }
    return 0;
}
