/*
 * A server that forks its workers before it serves: one limit for all of them, which
 * they keep together. Each request takes memory; a worker waits until there is room for
 * it, and answers 503 if there is none in time. A worker that dies is replaced.
 *
 *     make && ../../target/c/prefork_server 7000 8 400 60
 *     seq 40 | xargs -P 16 -I{} curl -s localhost:7000
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "highwater.h"

enum { MOST_WORKERS = 200, PATIENCE_MS = 10000 };

static volatile sig_atomic_t is_ending;

static void end(int signal) {
    (void)signal;
    is_ending = 1;
}

static void fail(const char *what) {
    fprintf(stderr, "prefork_server: %s: %s\n", what, hw_last_error());
    exit(1);
}

static int listening(uint16_t port) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 128) ||
        getsockname(fd, (struct sockaddr *)&address, &length)) {
        perror("prefork_server");
        exit(1);
    }
    printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void answer(int client, const char *status, const char *text) {
    char reply[1024];
    snprintf(reply, sizeof reply, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status,
             strlen(text), text);
    /* A client that has gone is no concern of ours. */
    if (send(client, reply, strlen(reply), MSG_NOSIGNAL) < 0)
        perror("send");
}

static void serve(hw_monitor *monitor, int client, size_t bytes) {
    char request[4096];
    if (recv(client, request, sizeof request, 0) <= 0)
        return;
    hw_work work = HW_WORK_INIT;
    work.memory_bytes = bytes;
    hw_permit *permit = hw_admit(monitor, &work, PATIENCE_MS);
    if (!permit) {
        answer(client, "503 Service Unavailable", hw_last_error());
        return;
    }
    /* volatile: else the compiler leaves out what nobody reads. */
    volatile char *memory = (volatile char *)malloc(bytes);
    for (size_t i = 0; memory && i < bytes; i += 4096)
        memory[i] = 1;
    /* All of it can be measured from now on: to hold the permit for longer would count it twice. */
    hw_permit_free(permit);
    const struct timespec work_time = {0, 50 * 1000 * 1000};
    nanosleep(&work_time, NULL);
    answer(client, "200 OK", "done\n");
    free((void *)memory);
}

static pid_t start_worker(hw_monitor *monitor, int listener, size_t bytes) {
    pid_t parent = getpid(), worker = fork();
    if (worker != 0)
        return worker;
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(0);
    /* The worker's own place in the ledger. */
    if (hw_monitor_start(monitor, 1000) != 0)
        fail("worker");
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0) {
            serve(monitor, client, bytes);
            close(client);
        }
    }
}

static uint64_t argument(int argc, char **argv, int number, uint64_t otherwise) {
    return argc > number ? strtoull(argv[number], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    int count = (int)argument(argc, argv, 2, 8);
    size_t bytes = argument(argc, argv, 4, 60) << 20;
    if (count < 1 || count > MOST_WORKERS) {
        fprintf(stderr, "usage: prefork_server [port [workers [limit-mb [request-mb]]]]\n");
        return 2;
    }
    hw_limits limits = HW_LIMITS_INIT;
    limits.max_memory_bytes = argument(argc, argv, 3, 400) << 20;
    hw_settings settings = HW_SETTINGS_INIT;
    settings.memory_scope = HW_SCOPE_TREE; /* on this process and its workers together */
    settings.refresh_after_ms = 20;
    settings.cpu_budget = 0.2; /* whoever waits is told of room by a check of the parent */
    hw_ledger *ledger = hw_ledger_create(); /* before the first fork */
    settings.ledger = ledger;
    hw_monitor *monitor = ledger ? hw_monitor_new_with(&limits, &settings) : NULL;
    if (!monitor || hw_monitor_start(monitor, 1000) != 0)
        fail("monitor");

    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = end; /* without SA_RESTART: it ends the wait */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    int listener = listening((uint16_t)argument(argc, argv, 1, 7000));
    pid_t workers[MOST_WORKERS];
    for (int i = 0; i < count; i++)
        workers[i] = start_worker(monitor, listener, bytes);
    while (!is_ending) {
        pid_t ended = wait(NULL);
        for (int i = 0; i < count && !is_ending; i++)
            if (ended > 0 && workers[i] == ended)
                workers[i] = start_worker(monitor, listener, bytes);
    }
    for (int i = 0; i < count; i++)
        kill(workers[i], SIGTERM);
    while (wait(NULL) > 0)
        ;
    hw_monitor_free(monitor);
    hw_ledger_free(ledger);
    return 0;
}
