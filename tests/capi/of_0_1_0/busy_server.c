/*
 * A blocking server that knows when it is full: an accept loop, and a thread
 * for each connection. Whatever is started, a thread or the memory of a request,
 * is admitted by hw_try_admit() first.
 *
 *     make && ../../target/c/busy_server 7000 256
 *     (echo 64 2000; sleep 3) | nc 127.0.0.1 7000
 *
 * A client sends one line, "<megabytes> <milliseconds>": the server holds that
 * much memory for that long, or until the client hangs up, and answers "done".
 * A request that would take it near its limit is answered "busy" and the
 * reason, at once. SIGTERM lets the connections end and then stops.
 */
#define _DEFAULT_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "highwater.h"

#define MOST_MEGABYTES (1ul << 20)
#define MOST_MILLISECONDS (3600ul * 1000)

/* A thread's stack, as far as it is used here, and what the C library keeps for it. */
#define THREAD_BYTES (256u << 10)

/* What the thread of a connection is given. */
struct connection {
    int client;
    hw_permit *permit;
};

static hw_monitor *monitor;
static int listener;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static int connections;

static void count_connection(int change)
{
    pthread_mutex_lock(&lock);
    connections += change;
    if (connections == 0)
        pthread_cond_signal(&idle);
    pthread_mutex_unlock(&lock);
}

/* Reads up to a newline, or nothing when none comes. */
static void read_line(int client, char *line, size_t size)
{
    size_t length = 0;
    while (length + 1 < size) {
        ssize_t got = read(client, line + length, size - length - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
        line[length] = '\0';
        if (strchr(line, '\n'))
            return;
    }
    line[0] = '\0';
}

static void hold(int client, size_t bytes, int milliseconds, hw_permit *permit)
{
    void *held = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (held != MAP_FAILED)
        memset(held, 1, bytes);
    /* What was declared is there now, for the next check to see. */
    hw_permit_free(permit);
    if (held == MAP_FAILED) {
        dprintf(client, "busy: %s\n", strerror(errno));
        return;
    }
    struct pollfd gone = {client, POLLIN, 0};
    poll(&gone, 1, milliseconds);
    munmap(held, bytes);
    dprintf(client, "done\n");
}

static void answer(int client, const char *line)
{
    unsigned long megabytes, milliseconds;
    if (sscanf(line, "%lu %lu", &megabytes, &milliseconds) != 2 || megabytes < 1 || megabytes > MOST_MEGABYTES || milliseconds > MOST_MILLISECONDS) {
        dprintf(client, "expected: <megabytes> <milliseconds>\n");
        return;
    }
    hw_work work = HW_WORK_INIT;
    work.memory_bytes = (uint64_t)megabytes << 20;
    hw_permit *permit = hw_try_admit(monitor, &work);
    if (permit)
        hold(client, (size_t)work.memory_bytes, (int)milliseconds, permit);
    else
        dprintf(client, "busy: %s\n", hw_last_error());
}

static void *serve(void *argument)
{
    struct connection connection = *(struct connection *)argument;
    int client = connection.client;
    char line[64];
    /* No silent client keeps a thread. */
    struct timeval patience = {10, 0};
    free(argument);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    read_line(client, line, sizeof line);
    /* This thread and its stack are there now; the request is admitted by itself. */
    hw_permit_free(connection.permit);
    answer(client, line);
    close(client);
    count_connection(-1);
    return NULL;
}

/* Answers without having read: what has come by now is thrown away, because
 * closing a socket with something unread resets the connection. */
static void refuse(int client, const char *reason)
{
    char unread[256];
    dprintf(client, "busy: %s\n", reason);
    shutdown(client, SHUT_WR);
    while (recv(client, unread, sizeof unread, MSG_DONTWAIT) > 0)
        ;
    close(client);
}

static void start_thread(int client, hw_permit *permit)
{
    pthread_t thread;
    struct connection *connection = (struct connection *)malloc(sizeof *connection);
    if (connection) {
        connection->client = client;
        connection->permit = permit;
        count_connection(1);
        if (pthread_create(&thread, NULL, serve, connection) == 0) {
            pthread_detach(thread);
            return;
        }
        count_connection(-1);
        free(connection);
    }
    hw_permit_free(permit);
    refuse(client, "no thread");
}

static void *accept_loop(void *argument)
{
    const struct timespec pause = {0, 10 * 1000 * 1000};
    (void)argument;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) {
            if (errno == EINVAL) /* shut down */
                return NULL;
            /* Out of something, most likely of descriptors: it passes. */
            nanosleep(&pause, NULL);
            continue;
        }
        /*
         * A server that is full says so at once, before anything is read. To
         * ask hw_is_accepting_work() here and then start the thread would let
         * a burst in: its answer is that of the last check, which has seen
         * none of the burst. It is for a page that shows whether the server
         * is ready.
         */
        hw_work thread = HW_WORK_INIT;
        thread.memory_bytes = THREAD_BYTES;
        hw_permit *permit = hw_try_admit(monitor, &thread);
        if (permit)
            start_thread(client, permit);
        else
            refuse(client, hw_last_error());
    }
}

static int listen_at(unsigned short port)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0
        || getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        return -1;
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return 0;
}

/* A number of the command line, or -1 when it is none or more than that. */
static long number(const char *text, unsigned long most)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && value <= most ? (long)value : -1;
}

static void log_line(void *user, int level, const char *line)
{
    (void)user;
    (void)level;
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    long port = argc > 1 ? number(argv[1], 65535) : 0;
    long megabytes = argc > 2 ? number(argv[2], MOST_MEGABYTES) : 0;
    if (port < 0 || megabytes < 0 || argc > 3) {
        fprintf(stderr, "usage: busy_server [port [megabytes]]\n");
        return 2;
    }

    /* Every thread inherits this; sigwait() takes it below. */
    sigset_t termination;
    sigemptyset(&termination);
    sigaddset(&termination, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &termination, NULL);
    signal(SIGPIPE, SIG_IGN);

    hw_limits limits = HW_LIMITS_INIT;
    limits.max_memory_bytes = (uint64_t)megabytes << 20;
    hw_set_log(log_line, NULL, HW_LOG_WARN);
    if (hw_limits_detect(&limits) != 0 || !(monitor = hw_monitor_new(&limits))
        || hw_monitor_start(monitor, 1000) != 0) {
        fprintf(stderr, "no monitor: %s\n", hw_last_error());
        hw_monitor_free(monitor);
        return 1;
    }

    pthread_t acceptor;
    int received;
    if (listen_at((unsigned short)port) != 0 || pthread_create(&acceptor, NULL, accept_loop, NULL) != 0) {
        perror("busy_server");
        hw_monitor_free(monitor);
        return 1;
    }
    sigwait(&termination, &received);
    shutdown(listener, SHUT_RDWR);
    pthread_join(acceptor, NULL);
    close(listener);
    pthread_mutex_lock(&lock);
    while (connections > 0)
        pthread_cond_wait(&idle, &lock);
    pthread_mutex_unlock(&lock);
    hw_monitor_free(monitor);
    return 0;
}
