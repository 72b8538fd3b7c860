/* What a guest must not do to its host: end it by a signal, be caught in the middle by a cancellation, change `errno`.
 * Each is a program of its own: `guest NAME`. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "highwater.h"

#define EXPECT(condition)                                                                                            \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "line %d: not %s; last error: %s\n", __LINE__, #condition, hw_last_error());             \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

static hw_monitor *monitor;

static hw_monitor *with_limits(void) {
    hw_limits limits = HW_LIMITS_INIT;
    limits.max_processes = 1000;
    hw_monitor *made = hw_monitor_new(&limits);
    EXPECT(made);
    return made;
}

/* SIGPIPE ends this program, as it does any program in C that has not chosen otherwise. */
static void *hang_up(void *listener) {
    for (;;) {
        int peer = accept(*(int *)listener, NULL, NULL);
        if (peer < 0)
            return NULL;
        close(peer);
    }
}

static void socket_that_hangs_up(void) {
    static int listener;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[] = "/tmp/highwater-guest-XXXXXX";
    EXPECT(mkdtemp(path));
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 16) == 0);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, hang_up, &listener) == 0);
    setenv("MEMORY_PRESSURE_WATCH", address.sun_path, 1);
    setenv("MEMORY_PRESSURE_WRITE", "aGVhcmQ=", 1);
    for (int round = 0; round < 200; round++) {
        monitor = with_limits();
        EXPECT(hw_monitor_start(monitor, 3600000) == 0);
        hw_monitor_free(monitor);
    }
    unlink(address.sun_path);
    rmdir(path);
}

/* Which function a cancelled thread calls, over and over. */
static void *call(void *which) {
    for (;;) {
        switch (*(const char *)which) {
        case 'c': {
            hw_snapshot snapshot = HW_SNAPSHOT_INIT;
            hw_check_now(monitor, &snapshot);
            break;
        }
        case 's':
            hw_monitor_start(monitor, 1000);
            hw_monitor_stop(monitor);
            break;
        case 'i':
            hw_is_accepting_work(monitor);
            break;
        case 'a': {
            hw_work work = HW_WORK_INIT;
            work.processes = 1;
            hw_permit_free(hw_try_admit(monitor, &work));
            break;
        }
        default: {
            char text[256];
            hw_verdict(monitor, text, sizeof text, NULL);
        }
        }
        /* Between two calls, and nowhere else. */
        pthread_testcancel();
    }
    return NULL;
}

static atomic_int state_in_callback = -1;

static uint64_t counts(void *user) {
    (void)user;
    int state;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    pthread_setcancelstate(state, NULL);
    atomic_store(&state_in_callback, state);
    return 0;
}

static void cancelled_threads(void) {
    monitor = with_limits();
    hw_callbacks callbacks = HW_CALLBACKS_INIT;
    callbacks.running_count = counts;
    EXPECT(hw_set_callbacks(monitor, &callbacks) == 0);
    EXPECT(hw_monitor_start(monitor, 1000) == 0);
    EXPECT(atomic_load(&state_in_callback) == PTHREAD_CANCEL_ENABLE);
    for (int round = 0; round < 100; round++) {
        pthread_t threads[5];
        for (int i = 0; i < 5; i++)
            EXPECT(pthread_create(&threads[i], NULL, call, (void *)&"csiav"[i]) == 0);
        struct timespec moment = {.tv_nsec = (round % 10) * 200000};
        nanosleep(&moment, NULL);
        for (int i = 0; i < 5; i++)
            EXPECT(pthread_cancel(threads[i]) == 0);
        for (int i = 0; i < 5; i++) {
            void *result;
            EXPECT(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED);
        }
    }
    /* No lock was left held, and the monitor works. */
    EXPECT(hw_monitor_start(monitor, 1000) == 0);
    hw_snapshot snapshot = HW_SNAPSHOT_INIT;
    EXPECT(hw_check_now(monitor, &snapshot) == 0 && hw_is_accepting_work(monitor));
    hw_permit *permit = hw_try_admit(monitor, NULL);
    EXPECT(permit);
    hw_permit_free(permit);
    hw_monitor_free(monitor);
}

#define KEEPS_ERRNO(call)                                                                                            \
    do {                                                                                                             \
        errno = EXDEV;                                                                                               \
        (void)(call);                                                                                                \
        EXPECT(errno == EXDEV);                                                                                      \
    } while (0)

static void errno_is_the_callers(void) {
    hw_limits limits = HW_LIMITS_INIT;
    hw_snapshot snapshot = HW_SNAPSHOT_INIT;
    hw_work work = HW_WORK_INIT;
    work.memory_bytes = UINT64_MAX;
    limits.max_memory_bytes = 1;
    char text[64];
    errno = EXDEV;
    monitor = hw_monitor_new(&limits);
    EXPECT(errno == EXDEV && monitor);
    KEEPS_ERRNO(hw_verdict(monitor, text, sizeof text, NULL));
    KEEPS_ERRNO(hw_latest(monitor, &snapshot));
    KEEPS_ERRNO(hw_monitor_start(monitor, 1));
    for (int i = 0; i < 20000; i++)
        KEEPS_ERRNO(hw_is_accepting_work(monitor));
    KEEPS_ERRNO(hw_check_now(monitor, &snapshot));
    KEEPS_ERRNO(hw_try_admit(monitor, &work));
    KEEPS_ERRNO(hw_update_limits(monitor, &limits));
    KEEPS_ERRNO(hw_last_error());
    KEEPS_ERRNO(hw_monitor_start(NULL, 0));
    KEEPS_ERRNO(hw_monitor_stop(monitor));
    errno = EXDEV;
    hw_monitor_free(monitor);
    EXPECT(errno == EXDEV);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "socket") == 0)
        socket_that_hangs_up();
    else if (strcmp(name, "cancel") == 0)
        cancelled_threads();
    else if (strcmp(name, "errno") == 0)
        errno_is_the_callers();
    else
        EXPECT(!"a known name");
    return 0;
}
