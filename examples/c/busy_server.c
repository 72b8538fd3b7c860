/*
 * A blocking server that knows when it is full: an accept loop, and a thread
 * for each connection.
 *
 *     make && ./busy_server 7000 256
 *     printf '64 2000\n' | nc 127.0.0.1 7000
 *
 * A client sends one line, "<megabytes> <milliseconds>": the server holds that
 * much memory for that long and answers "done". A request that would take it
 * near its limit is answered "busy" and the reason, at once. SIGTERM lets the
 * connections end and then stops.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "highwater.h"

static hw_monitor *monitor;
static volatile sig_atomic_t stopping;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static int connections;

static void stop(int signal)
{
    (void)signal;
    stopping = 1;
}

/* Reads up to a newline. */
static int read_line(int client, char *line, size_t size)
{
    size_t length = 0;
    while (length + 1 < size) {
        ssize_t got = read(client, line + length, size - length - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        length += (size_t)got;
        line[length] = '\0';
        if (strchr(line, '\n'))
            return 0;
    }
    return -1;
}

static void answer(int client)
{
    char line[64];
    unsigned long megabytes, milliseconds;
    if (read_line(client, line, sizeof line) != 0 || sscanf(line, "%lu %lu", &megabytes, &milliseconds) != 2) {
        dprintf(client, "expected: <megabytes> <milliseconds>\n");
        return;
    }

    hw_work work = HW_WORK_INIT;
    work.memory_bytes = (uint64_t)megabytes << 20;
    hw_permit *permit = hw_try_admit(monitor, &work);
    if (!permit) {
        dprintf(client, "busy: %s\n", hw_last_error());
        return;
    }
    char *held = (char *)malloc((size_t)work.memory_bytes + 1);
    if (held)
        memset(held, 1, (size_t)work.memory_bytes + 1);
    /* What was declared is there now, for the next check to see. */
    hw_permit_free(permit);
    if (!held) {
        dprintf(client, "busy: out of memory\n");
        return;
    }
    struct timespec time = {(time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000L};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
    free(held);
    dprintf(client, "done\n");
}

static void *serve(void *argument)
{
    int client = (int)(intptr_t)argument;
    answer(client);
    close(client);
    pthread_mutex_lock(&lock);
    if (--connections == 0)
        pthread_cond_signal(&idle);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void start_thread(int client)
{
    pthread_t thread;
    pthread_mutex_lock(&lock);
    connections++;
    pthread_mutex_unlock(&lock);
    if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) == 0) {
        pthread_detach(thread);
        return;
    }
    dprintf(client, "busy: no thread\n");
    close(client);
    pthread_mutex_lock(&lock);
    connections--;
    pthread_mutex_unlock(&lock);
}

static int listen_at(unsigned short port)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0
        || getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        perror("listen");
        exit(1);
    }
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv)
{
    unsigned short port = (unsigned short)(argc > 1 ? atoi(argv[1]) : 0);
    hw_limits limits = HW_LIMITS_INIT;
    if (argc > 2)
        limits.max_memory_bytes = strtoull(argv[2], NULL, 10) << 20;
    else if (hw_limits_detect(&limits) != 0)
        fprintf(stderr, "no limits found: %s\n", hw_last_error());

    monitor = hw_monitor_new(&limits);
    if (!monitor || hw_monitor_start(monitor, 1000) != 0) {
        fprintf(stderr, "no monitor: %s\n", hw_last_error());
        hw_monitor_free(monitor);
        return 1;
    }

    /* Without SA_RESTART: accept() is to return. */
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);

    int listener = listen_at(port);
    while (!stopping) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        /* A closed gate is known at once, before anything is read. */
        if (hw_is_accepting_work(monitor)) {
            start_thread(client);
        } else {
            char reason[256];
            hw_verdict(monitor, reason, sizeof reason, NULL);
            dprintf(client, "busy: %s\n", reason);
            close(client);
        }
    }

    close(listener);
    pthread_mutex_lock(&lock);
    while (connections > 0)
        pthread_cond_wait(&idle, &lock);
    pthread_mutex_unlock(&lock);
    hw_monitor_free(monitor);
    return 0;
}
