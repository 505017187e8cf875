/* A contract that misbehaves in the way its first argument says. */
#define _GNU_SOURCE
#include "contract.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

static void nap(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0) {}
}

static void text(const struct contract_user *u, const char *s) { contract_send(u, s, strlen(s)); }

static void *read_npl(void *arg) {
    struct contract *c = arg;
    static char sender[67], data[CONTRACT_MAX_PACKET];
    while (contract_npl_receive(c, sender, data) > 0) {}
    _exit(0);
}

int main(int argc, char **argv) {
    struct contract c;
    const char *what = argc > 1 ? argv[1] : "";
    if (contract_begin(&c) != 0) return 1;
    struct contract_user *u = c.user_count ? &c.users[0] : NULL;

    if (!strcmp(what, "crash")) {
        text(u, "before");
        write(u->fd, "\0\0\0\5ab", 6); /* a message cut short */
        raise(SIGSEGV);
    } else if (!strcmp(what, "hang")) {
        text(u, "before");
        for (;;) pause();
    } else if (!strcmp(what, "spin")) {
        for (;;) {}
    } else if (!strcmp(what, "stop")) {
        raise(SIGSTOP);
    } else if (!strcmp(what, "half-header")) {
        text(u, "whole");
        write(u->fd, "\0\0\0", 3);
    } else if (!strcmp(what, "bytewise")) {
        const char frame[] = "\0\0\0\3abc\0\0\0\0\0\0\0\1x";
        for (size_t i = 0; i + 1 < sizeof frame; i++) {
            write(u->fd, frame + i, 1);
            nap(2);
        }
    } else if (!strcmp(what, "huge-header")) {
        write(u->fd, "\xff\xff\xff\xff" "abc", 7);
    } else if (!strcmp(what, "flood")) { /* argument: how many MiB */
        static char mib[1 << 20];
        for (int i = atoi(argv[2]); i > 0; i--)
            if (contract_send(u, mib, sizeof mib) != 0) return 2;
    } else if (!strcmp(what, "empty-flood")) {
        static char zeros[1 << 20];
        for (int i = atoi(argv[2]); i > 0; i--)
            if (write(u->fd, zeros, sizeof zeros) < 0) return 2;
    } else if (!strcmp(what, "close-all")) {
        text(u, "before");
        close_range(0, ~0U, 0);
        nap(200);
        creat("survived", 0644);
    } else if (!strcmp(what, "shutdown")) {
        text(u, "before");
        for (size_t i = 0; i < c.user_count; i++) shutdown(c.users[i].fd, SHUT_WR);
        shutdown(c.npl_fd, SHUT_WR);
        shutdown(c.control_fd, SHUT_WR);
        nap(200);
    } else if (!strcmp(what, "child")) { /* a child that outlives its parent */
        if (fork() == 0) {
            nap(300);
            creat("late", 0644);
            return 0;
        }
        text(u, "parent");
    } else if (!strcmp(what, "ignore-term-child")) {
        if (fork() == 0) {
            signal(SIGTERM, SIG_IGN);
            signal(SIGINT, SIG_IGN);
            for (;;) text(u, "spam"), nap(1);
        }
        nap(20);
    } else if (!strcmp(what, "leave-group")) { /* tries to escape a kill of the group */
        setpgid(0, getpgid(getppid()));
        for (;;) pause();
    } else if (!strcmp(what, "daemon")) { /* a session of its own, sockets open */
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                for (int i = 0; i < 40; i++) {
                    nap(50);
                    if (contract_send(u, "daemon", 6) != 0) break;
                }
                return 0;
            }
            return 0;
        }
        text(u, "parent");
        nap(20);
    } else if (!strcmp(what, "npl-flood")) { /* sends much and never reads */
        static char big[CONTRACT_MAX_PACKET];
        for (int i = atoi(argv[2]); i > 0; i--)
            if (contract_npl_send(&c, big, sizeof big) != 0) return 2;
        text(u, "sent");
    } else if (!strcmp(what, "npl-odd")) {
        static char big[CONTRACT_MAX_PACKET + 1];
        send(c.npl_fd, "", 0, 0);
        send(c.npl_fd, big, sizeof big, 0);
        send(c.npl_fd, "fine", 4, 0);
        send(c.npl_fd, "", 0, 0);
        send(c.npl_fd, "last", 4, 0);
    } else if (!strcmp(what, "control-odd")) {
        static char big[CONTRACT_MAX_PACKET + 1];
        const char *messages[] = {"{", "[]", "{\"type\":5}", "{\"type\":\"contract_end\"}",
            "{\"type\":\"peer_changeset\"}", "{\"type\":\"peer_changeset\",\"add\":[\"a:1\"],\"remove\":\"+\"}",
            "{\"type\":\"peer_changeset\",\"add\":[\"a\"],\"remove\":[]}",
            "{\"type\":\"peer_changeset\",\"add\":[\"good:1\"],\"remove\":\"*\"}"};
        send(c.control_fd, "", 0, 0);
        send(c.control_fd, big, sizeof big, 0);
        for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
            send(c.control_fd, messages[i], strlen(messages[i]), 0);
    } else if (!strcmp(what, "control-flood")) {
        for (int i = 0; i < 1000; i++) send(c.control_fd, "nonsense", 8, 0);
    } else if (!strcmp(what, "control-echo")) { /* sends back what the node says */
        char b[100];
        ssize_t n = read(c.control_fd, b, sizeof b);
        contract_send(u, b, (size_t)n);
    } else if (!strcmp(what, "npl-reader")) { /* waits for one message without a limit */
        static char sender[67], data[CONTRACT_MAX_PACKET];
        ssize_t n = contract_npl_receive(&c, sender, data);
        if (n > 0) {
            text(u, sender);
            contract_send(u, data, (size_t)n);
        }
    } else if (!strcmp(what, "npl-thread")) { /* like the Node.js library, without libuv */
        pthread_t t;
        if (pthread_create(&t, NULL, read_npl, &c) != 0) return 2;
        struct epoll_event e;
        epoll_wait(epoll_create1(0), &e, 1, -1);
    } else if (!strcmp(what, "descriptors")) { /* tells which are open */
        char list[4096] = "", path[32], target[256];
        for (int fd = 0; fd < 1024; fd++) {
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(path, target, sizeof target - 1);
            if (n < 0) continue;
            target[n] = 0;
            if (strchr(target, '[')) *strchr(target, '[') = 0;
            snprintf(list + strlen(list), sizeof list - strlen(list), "%d=%s\n", fd, fd < 3 && fd > 0 ? "" : target);
        }
        text(u, list);
    } else if (!strcmp(what, "about")) {
        extern char **environ;
        char b[4096];
        struct rlimit cpu, data, files;
        getrlimit(RLIMIT_CPU, &cpu);
        getrlimit(RLIMIT_DATA, &data);
        getrlimit(RLIMIT_NOFILE, &files);
        struct sigaction act;
        int handled = 0;
        sigset_t mask;
        sigprocmask(SIG_BLOCK, NULL, &mask);
        for (int s = 1; s < 32; s++) {
            sigaction(s, NULL, &act);
            if (act.sa_handler != SIG_DFL || sigismember(&mask, s)) handled++;
        }
        snprintf(b, sizeof b, "args=%d env=%s,%s uid=%d gid=%d groups=%d leader=%d cpu=%ld data=%ld files=%ld signals=%d", argc,
                 environ[0] ? environ[0] : "", environ[0] && environ[1] ? environ[1] : "", getuid(), getgid(),
                 getgroups(0, NULL), getpgrp() == getpid(), (long)cpu.rlim_cur, (long)data.rlim_cur, (long)files.rlim_cur, handled);
        text(u, b);
    } else if (!strcmp(what, "memory")) { /* argument: how many MiB */
        size_t n = (size_t)atoi(argv[2]) << 20;
        char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        text(u, p == MAP_FAILED ? "refused" : "granted");
    } else if (!strcmp(what, "seek")) { /* changes the input file and its position */
        int fd = 3;
        lseek(fd, 100, SEEK_SET);
        ftruncate(fd, 0);
        text(u, "done");
    } else if (!strcmp(what, "print")) { /* argument: how many MiB */
        static char line[1 << 20];
        memset(line, 'o', sizeof line);
        for (int i = atoi(argv[2]); i > 0; i--) write(1, line, sizeof line);
        write(2, "error\n", 6);
    } else if (!strcmp(what, "exit")) {
        return atoi(argv[2]);
    } else if (!strcmp(what, "interrupt")) {
        text(u, "done");
        kill(getpid(), SIGINT);
        for (;;) pause();
    }
    return 0;
}
