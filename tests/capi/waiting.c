/* Waiting for room from C: who is served, what a cancelled or forked waiter leaves behind, whose the room is, and why
 * there is none. `waiting NAME` is one of these, `waiting` is all of them. C and C++. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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

#define FAILS(call, code) EXPECT((call) && hw_last_error_code() == (code))

/* A time to wait before a condition is looked at again. */
static void moment(void) {
    const struct timespec time = {0, 5 * 1000 * 1000};
    nanosleep(&time, NULL);
}

static hw_monitor *monitor;

/* A test makes its monitor of these. It is never stale, however slow the machine. */
static hw_limits limits;
static hw_settings settings;

static void set_defaults(void) {
    const hw_limits no_limits = HW_LIMITS_INIT;
    const hw_settings default_settings = HW_SETTINGS_INIT;
    limits = no_limits;
    limits.max_processes = 10;
    settings = default_settings;
    settings.max_age_ms = 3600000;
}

static void make_monitor(void) {
    monitor = hw_monitor_new_with(&limits, &settings);
    EXPECT(monitor);
}

static void start_monitor(void) {
    make_monitor();
    EXPECT(hw_monitor_start(monitor, 3600000) == 0);
}

static hw_work processes(uint64_t count) {
    hw_work work = HW_WORK_INIT;
    work.processes = count;
    return work;
}

static hw_permit *admit(uint64_t count, uint64_t timeout_ms) {
    const hw_work work = processes(count);
    return hw_admit(monitor, &work, timeout_ms);
}

static int holders(void) {
    return hw_holders(monitor, NULL, 0);
}

static void wait_for_waiters(uint64_t count) {
    while (hw_waiters(monitor) != count)
        moment();
}

/* A thread that waits for room, and its answer. */
struct waiter {
    pthread_t thread;
    uint64_t processes;
    uint64_t timeout_ms;
    hw_permit *permit;
    int code;
    char reason[400];
};

static void *wait_for_room(void *argument) {
    struct waiter *waiter = (struct waiter *)argument;
    waiter->permit = admit(waiter->processes, waiter->timeout_ms);
    if (!waiter->permit) {
        waiter->code = hw_last_error_code();
        snprintf(waiter->reason, sizeof waiter->reason, "%s", hw_last_error());
    }
    return NULL;
}

static void *wait_until_accepting(void *argument) {
    struct waiter *waiter = (struct waiter *)argument;
    if (hw_wait_until_accepting(monitor, waiter->timeout_ms) != 0)
        waiter->code = hw_last_error_code();
    return NULL;
}

static void begin(struct waiter *waiter, void *(*body)(void *), uint64_t count) {
    memset(waiter, 0, sizeof *waiter);
    waiter->processes = count;
    waiter->timeout_ms = HW_FOREVER;
    EXPECT(pthread_create(&waiter->thread, NULL, body, waiter) == 0);
}

static void *joined(const struct waiter *waiter) {
    void *result;
    EXPECT(pthread_join(waiter->thread, &result) == 0);
    return result;
}

static void a_waiter_is_served_by_a_finish_and_refused_at_its_deadline(void) {
    start_monitor();
    hw_work work = processes(9);
    work.label = "import";
    hw_permit *holder = hw_admit(monitor, &work, HW_FOREVER);
    EXPECT(holder);
    FAILS(!admit(5, 0), HW_REFUSED);
    EXPECT(!strstr(hw_last_error(), "waited"));
    FAILS(!admit(5, 20), HW_REFUSED);
    EXPECT(strstr(hw_last_error(), "; waited ") && strstr(hw_last_error(), "held by import: 9 for "));
    FAILS(!admit(40, HW_FOREVER), HW_NEVER_FITS);
    FAILS(hw_wait_until_accepting(monitor, 0) == -1, HW_REFUSED);
    FAILS(hw_wait_until_accepting(monitor, 10) == -1, HW_REFUSED);
    EXPECT(hw_waiters(monitor) == 0);

    struct waiter one, other;
    begin(&one, wait_for_room, 5);
    begin(&other, wait_until_accepting, 0);
    wait_for_waiters(2);
    hw_permit_finish(holder);
    joined(&one);
    joined(&other);
    EXPECT(one.permit && other.code == 0 && hw_waiters(monitor) == 0 && holders() == 1);
    hw_permit_finish(one.permit);
    EXPECT(holders() == 0 && hw_wait_until_accepting(monitor, 0) == 0);
    hw_monitor_free(monitor);
}

static void a_class_has_a_threshold_of_its_own(void) {
    limits.background_percent = 20;
    start_monitor();
    hw_permit *first = admit(2, 0);
    hw_work work = processes(0);
    work.work_class = HW_CLASS_BACKGROUND;
    FAILS(first && !hw_try_admit(monitor, &work), HW_REFUSED);
    EXPECT(strstr(hw_last_error(), "background threshold of 20 %"));
    hw_permit *second = admit(7, 0);
    FAILS(second && !admit(0, 0), HW_REFUSED);
    work.work_class = HW_CLASS_CRITICAL;
    hw_permit *critical = hw_admit(monitor, &work, 0);
    EXPECT(critical);
    work.work_class = 2;
    FAILS(!hw_admit(monitor, &work, 0), HW_INVALID);
    hw_permit_finish(critical);
    hw_permit_finish(second);
    hw_permit_finish(first);
    hw_monitor_free(monitor);
}

static void give_back(void *permit) {
    hw_permit_finish(*(hw_permit **)permit);
}

/* Works under permits until it is cancelled. */
static void *work_on(void *argument) {
    struct waiter *waiter = (struct waiter *)argument;
    for (;;) {
        hw_permit *permit = NULL;
        pthread_cleanup_push(give_back, &permit);
        permit = admit(waiter->processes, waiter->timeout_ms);
        pthread_testcancel();
        pthread_cleanup_pop(1);
    }
    return NULL;
}

static void *wait_with_a_cancellation_to_come(void *argument) {
    (void)argument;
    pthread_cancel(pthread_self());
    FAILS(!admit(7, 20), HW_REFUSED);
    pthread_testcancel();
    return NULL;
}

static void a_cancelled_waiter_loses_no_room_and_others_are_served(void) {
    start_monitor();
    hw_permit *holder = admit(9, 0);
    struct waiter cancelled, other;
    begin(&cancelled, work_on, 7);
    wait_for_waiters(1);
    begin(&other, wait_for_room, 7);
    wait_for_waiters(2);
    EXPECT(pthread_cancel(cancelled.thread) == 0);
    for (int look = 0; look < 10; look++) {
        /* A wait is no cancellation point. */
        EXPECT(pthread_tryjoin_np(cancelled.thread, NULL) == EBUSY && hw_waiters(monitor) == 2);
        moment();
    }
    hw_permit_finish(holder);
    EXPECT(joined(&cancelled) == PTHREAD_CANCELED);
    joined(&other);
    EXPECT(other.permit && holders() == 1 && hw_waiters(monitor) == 0);

    /* The same where the wait ends by a stop, and where by its deadline. */
    begin(&cancelled, work_on, 7);
    wait_for_waiters(1);
    EXPECT(pthread_cancel(cancelled.thread) == 0);
    hw_monitor_stop(monitor);
    EXPECT(joined(&cancelled) == PTHREAD_CANCELED && hw_waiters(monitor) == 0);
    EXPECT(hw_monitor_start(monitor, 3600000) == 0);
    EXPECT(pthread_create(&cancelled.thread, NULL, wait_with_a_cancellation_to_come, NULL) == 0);
    EXPECT(joined(&cancelled) == PTHREAD_CANCELED && hw_waiters(monitor) == 0);
    hw_permit_finish(other.permit);

    for (int round = 0; round < 50; round++) {
        struct waiter workers[4];
        for (int i = 0; i < 4; i++)
            begin(&workers[i], work_on, 7);
        const struct timespec time = {0, (round % 10) * 200000};
        nanosleep(&time, NULL);
        for (int i = 0; i < 4; i++)
            EXPECT(pthread_cancel(workers[i].thread) == 0);
        for (int i = 0; i < 4; i++)
            EXPECT(joined(&workers[i]) == PTHREAD_CANCELED);
        EXPECT(holders() == 0 && hw_waiters(monitor) == 0);
    }
    holder = admit(7, 0);
    EXPECT(holder);
    hw_permit_finish(holder);
    hw_monitor_free(monitor);
}

static void end(pid_t child) {
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

/* Ends a forked child that has used the library. Not by exit(): valgrind takes for lost what threads of the parent's
 * had. */
static void end_well(void) {
    execlp("true", "true", (char *)NULL);
    _exit(127);
}

static void a_forked_child_has_no_waiter_and_those_of_its_parent_are_served(void) {
    start_monitor();
    hw_permit *holder = admit(9, 0);
    struct waiter waiters[3];
    for (int i = 0; i < 3; i++)
        begin(&waiters[i], wait_for_room, 2);
    wait_for_waiters(3);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        EXPECT(hw_waiters(monitor) == 0 && holders() == 0);
        FAILS(!admit(1, HW_FOREVER), HW_REFUSED);
        EXPECT(strstr(hw_last_error(), "forked"));
        FAILS(hw_permit_attach(holder, getpid()) == -1, HW_FAILED);
        hw_permit_finish(holder);
        EXPECT(hw_check_now(monitor, NULL) == 0);
        hw_permit *own = admit(7, HW_FOREVER);
        EXPECT(own && holders() == 1);
        FAILS(!admit(7, 10), HW_REFUSED);
        hw_permit_free(own);
        hw_monitor_free(monitor);
        end_well();
    }
    end(child);
    EXPECT(hw_waiters(monitor) == 3 && holders() == 1);
    hw_permit_finish(holder);
    for (int i = 0; i < 3; i++) {
        joined(&waiters[i]);
        EXPECT(waiters[i].permit);
        hw_permit_finish(waiters[i].permit);
    }
    EXPECT(holders() == 0);
    hw_monitor_free(monitor);
}

/* A child that lives until it is killed, or this program ends. */
static pid_t sleeping_child(void) {
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(1);
        close(2);
        for (;;)
            pause();
    }
    return child;
}

static void kill_child(pid_t child) {
    int status;
    EXPECT(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void an_attached_child_is_measured_and_not_reserved(void) {
    /* Checked when this test says so, and never else. */
    settings.refresh_after_ms = 3600000;
    make_monitor();
    EXPECT(hw_check_now(monitor, NULL) == 0);
    hw_permit *permit = admit(3, 0);
    hw_work_usage usage = HW_WORK_USAGE_INIT;
    FAILS(hw_permit_usage(permit, &usage) == -1, HW_FAILED);
    FAILS(hw_permit_attach(permit, -1) == -1, HW_INVALID);
    FAILS(hw_permit_attach(permit, 0) == -1, HW_INVALID);
    FAILS(hw_permit_attach(permit, getppid()) == -1, HW_FAILED);
    pid_t child = sleeping_child();
    EXPECT(hw_permit_attach(permit, child) == 0);
    FAILS(hw_permit_attach(permit, child) == -1, HW_INVALID);
    FAILS(hw_permit_usage(permit, &usage) == -1, HW_FAILED);
    EXPECT(hw_check_now(monitor, NULL) == 0 && hw_permit_usage(permit, &usage) == 0);
    EXPECT(usage.processes == 1 && usage.peak_processes == 1 && usage.memory_bytes > 0);
    EXPECT(usage.peak_memory_bytes >= usage.memory_bytes && hw_permit_usage(permit, NULL) == 0);
    hw_holder holder = HW_HOLDER_INIT;
    EXPECT(hw_holders(monitor, &holder, 1) == 1 && holder.pid == child && holder.processes == 3);
    hw_reason reason = HW_REASON_INIT;
    EXPECT(hw_verdict_reason(monitor, &reason) == 0);
    EXPECT(reason.usage[HW_PROCESSES].measured == 1 && reason.usage[HW_PROCESSES].reserved == 2);

    /* Its exit status is still there for whoever waits for it. */
    EXPECT(kill(child, SIGKILL) == 0);
    siginfo_t ended;
    EXPECT(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) == 0);
    EXPECT(hw_check_now(monitor, NULL) == 0 && hw_verdict_reason(monitor, &reason) == 0);
    EXPECT(reason.usage[HW_PROCESSES].reserved == 0);
    int status;
    EXPECT(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
    EXPECT(hw_check_now(monitor, NULL) == 0 && hw_permit_usage(permit, &usage) == 0);
    EXPECT(usage.processes == 0 && usage.peak_processes == 1);
    hw_permit_finish(permit);
    EXPECT(holders() == 0);
    hw_monitor_free(monitor);
}

static void a_stop_ends_every_wait_and_permits_outlive_their_monitor(void) {
    start_monitor();
    hw_permit *holder = admit(9, 0);
    struct waiter waiters[3];
    for (int i = 0; i < 3; i++)
        begin(&waiters[i], i == 2 ? wait_until_accepting : wait_for_room, 5);
    wait_for_waiters(3);
    hw_monitor_stop(monitor);
    for (int i = 0; i < 3; i++) {
        joined(&waiters[i]);
        EXPECT(!waiters[i].permit && waiters[i].code == HW_REFUSED);
        EXPECT(i == 2 || strstr(waiters[i].reason, "the monitor is stopped; waited "));
    }
    FAILS(!admit(1, HW_FOREVER), HW_REFUSED);
    EXPECT(hw_monitor_start(monitor, 3600000) == 0);
    hw_permit *other = admit(0, 0);
    FAILS(!other, HW_REFUSED);
    hw_permit_finish(holder);
    other = admit(5, HW_FOREVER);
    EXPECT(other);
    hw_monitor_free(monitor);
    hw_permit_finish(other);
}

/* Asks until callers have taken a number of checks on their own threads. */
static void ask(hw_snapshots *snapshots) {
    int taken = 0;
    while (taken < 50) {
        errno = EXDEV;
        hw_is_accepting_work(monitor);
        EXPECT(errno == EXDEV);
        EXPECT(hw_pressure(monitor) >= 0 && errno == EXDEV);
        hw_permit *permit = admit(1, 1000);
        EXPECT(errno == EXDEV);
        hw_permit_finish(permit);
        EXPECT(permit && errno == EXDEV);
        while (hw_snapshots_wait(snapshots, 0, NULL) == 1)
            taken++;
        EXPECT(errno == EXDEV);
    }
}

static void *ask_with_a_cancellation_to_come(void *snapshots) {
    int state;
    pthread_cancel(pthread_self());
    ask((hw_snapshots *)snapshots);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    EXPECT(state == PTHREAD_CANCEL_ENABLE);
    /* Somebody who does not want to be cancelled now is not afterwards either. */
    ask((hw_snapshots *)snapshots);
    pthread_setcancelstate(state, &state);
    EXPECT(state == PTHREAD_CANCEL_DISABLE);
    pthread_testcancel();
    return NULL;
}

static void a_check_of_the_callers_own_changes_neither_errno_nor_cancellation(void) {
    settings.refresh_after_ms = HW_NONE;
    settings.inline_check_us = 1000000;
    settings.cpu_budget = 1;
    start_monitor();
    hw_snapshots *snapshots = hw_snapshots_new(monitor);
    ask(snapshots);
    pthread_t thread;
    void *result;
    EXPECT(pthread_create(&thread, NULL, ask_with_a_cancellation_to_come, snapshots) == 0);
    EXPECT(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    hw_snapshots_free(snapshots);
    hw_monitor_free(monitor);
}

static void wait_until_held(int count) {
    hw_holder all[4] = {HW_HOLDER_INIT};
    do {
        EXPECT(hw_holders(monitor, all, 4) == count);
        moment();
    } while (all[count - 1].held_for_ns == 0);
}

static void holders_are_listed_with_their_labels(void) {
    start_monitor();
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    hw_work work = HW_WORK_INIT;
    work.memory_bytes = 1;
    work.processes = 2;
    work.open_files = 3;
    work.label = text;
    work.work_class = HW_CLASS_CRITICAL;
    hw_permit *permits[3];
    permits[0] = hw_admit(monitor, &work, 0);
    wait_until_held(1);
    strcpy(text, "import");
    permits[1] = hw_try_admit(monitor, &work);
    wait_until_held(2);
    permits[2] = admit(1, 0);
    strcpy(text, "gone");

    hw_holder all[4] = {HW_HOLDER_INIT};
    memset(&all[2], 7, sizeof all[2]);
    EXPECT(hw_holders(monitor, all, 2) == 3 && all[2].pid == 0x0707070707070707);
    EXPECT(hw_holders(monitor, all, 4) == 3);
    EXPECT(strlen(all[0].label) == HW_LABEL_SIZE - 1 && strspn(all[0].label, "x") == HW_LABEL_SIZE - 1);
    EXPECT(all[0].memory_bytes == 1 && all[0].processes == 2 && all[0].open_files == 3 && all[0].pid == 0);
    EXPECT(all[0].work_class == HW_CLASS_CRITICAL && all[0].held_for_ns >= all[1].held_for_ns);
    EXPECT(strcmp(all[1].label, "import") == 0 && all[1].size == sizeof(hw_holder));
    EXPECT(all[2].label[0] == '\0' && all[2].processes == 1 && all[2].work_class == HW_CLASS_NORMAL);
    EXPECT(all[3].size == 0);
    all[0].size = 8;
    FAILS(hw_holders(monitor, all, 4) == -1, HW_INVALID);
    for (int i = 0; i < 3; i++)
        hw_permit_free(permits[i]);
    EXPECT(holders() == 0);

    /* More kinds than a program has. Other tests have had some already. */
    for (int i = 0; i < 300; i++) {
        snprintf(text, sizeof text, "label %d", i);
        hw_permit *permit = hw_admit(monitor, &work, HW_FOREVER);
        EXPECT(permit);
        all[0].size = sizeof all[0];
        EXPECT(hw_holders(monitor, all, 1) == 1);
        EXPECT((i >= 250 || strcmp(all[0].label, text) == 0) && (i < 256 || strcmp(all[0].label, "others") == 0));
        hw_permit_finish(permit);
    }
    hw_monitor_free(monitor);
}

static void a_reason_has_the_numbers_that_were_compared(void) {
    start_monitor();
    hw_reason reason = HW_REASON_INIT;
    FAILS(hw_last_refusal(&reason) == -1, HW_FAILED);
    hw_permit *holder = admit(6, 0);
    FAILS(!admit(5, 0), HW_REFUSED);
    EXPECT(hw_last_refusal(&reason) == 0 && hw_last_refusal(NULL) == 0);
    const hw_usage *usage = &reason.usage[HW_PROCESSES];
    EXPECT(reason.resource == HW_PROCESSES && !reason.could_never_fit && !reason.accepting && reason.waited_ns == 0);
    EXPECT(usage->measured == 0 && usage->reserved == 6 && usage->asked == 5 && usage->limit == 10);
    EXPECT(usage->floor == HW_NONE && reason.usage[HW_MACHINE_MEMORY].limit == HW_NONE);
    EXPECT(reason.usage[HW_MEMORY].measured > 0 && reason.usage[HW_MEMORY].measured != HW_NONE);
    EXPECT(reason.usage[HW_MEMORY].limit == HW_NONE && reason.usage[HW_MOST_RESOURCES - 1].measured == HW_NONE);
    FAILS(!admit(40, HW_FOREVER), HW_NEVER_FITS);
    EXPECT(hw_last_refusal(&reason) == 0 && reason.could_never_fit && usage->asked == 40);
    FAILS(!admit(5, 20), HW_REFUSED);
    EXPECT(hw_last_refusal(&reason) == 0 && !reason.could_never_fit && reason.waited_ns >= 20 * 1000 * 1000);
    EXPECT(reason.ahead == 0);

    EXPECT(hw_verdict_reason(monitor, &reason) == 0 && reason.accepting && reason.resource == -1);
    EXPECT(usage->reserved == 6 && usage->asked == 0 && hw_pressure(monitor) > 0.74 && hw_pressure(monitor) < 0.76);
    hw_permit *other = admit(2, 0);
    EXPECT(other && hw_verdict_reason(monitor, &reason) == 0 && !reason.accepting && reason.resource == HW_PROCESSES);
    EXPECT(hw_pressure(monitor) >= 1.0);
    EXPECT(hw_last_refusal(&reason) == 0 && reason.waited_ns > 0);
    hw_monitor_stop(monitor);
    EXPECT(hw_verdict_reason(monitor, &reason) == 0 && !reason.accepting && reason.resource == -1);
    hw_permit_finish(other);
    hw_permit_finish(holder);
    hw_monitor_free(monitor);
}

static hw_snapshot checked(void) {
    hw_snapshot snapshot = HW_SNAPSHOT_INIT;
    make_monitor();
    EXPECT(hw_check_now(monitor, &snapshot) == 0);
    hw_monitor_free(monitor);
    return snapshot;
}

static void settings_are_those_of_the_monitor(void) {
    pid_t child = sleeping_child();
    uint64_t own = checked().memory_bytes;
    settings.memory_scope = HW_SCOPE_TREE;
    EXPECT(checked().memory_bytes > own && checked().open_files != HW_NONE);
    settings.ignored = UINT64_C(1) << HW_OPEN_FILES;
    EXPECT(checked().open_files == HW_NONE);
    settings.ignored = UINT64_C(1) << HW_PROCESSES;
    FAILS(!hw_monitor_new_with(&limits, &settings), HW_INVALID);
    kill_child(child);

    /* Strict order, and as it is by default. */
    for (int strict = 0; strict < 2; strict++) {
        set_defaults();
        settings.overtaking_times = strict ? HW_NONE : 0;
        settings.overtaking_ms = 3600000;
        start_monitor();
        hw_permit *holder = admit(5, 0);
        struct waiter large;
        begin(&large, wait_for_room, 6);
        wait_for_waiters(1);
        hw_permit *small = admit(1, 0);
        EXPECT(strict ? !small : small != NULL);
        hw_permit_finish(small);
        hw_permit_finish(holder);
        joined(&large);
        hw_permit_finish(large.permit);
        hw_monitor_free(monitor);
    }

    set_defaults();
    settings.max_age_ms = 1;
    make_monitor();
    EXPECT(hw_check_now(monitor, NULL) == 0);
    while (hw_is_accepting_work(monitor))
        moment();
    char text[400];
    hw_verdict(monitor, text, sizeof text, NULL);
    EXPECT(strstr(text, "more than max_age 1 ms"));
    hw_monitor_free(monitor);
    monitor = hw_monitor_new_with(NULL, NULL);
    EXPECT(monitor);
    hw_monitor_free(monitor);
}

static void *add_and_take_off(void *gauge) {
    int round;
    for (round = 0; round < 1000; round++) {
        hw_gauge_add((hw_gauge *)gauge, 3);
        hw_gauge_sub((hw_gauge *)gauge, 3);
    }
    return NULL;
}

static void a_gauge_of_the_hosts_is_judged_like_what_is_read(void) {
    hw_gauge *connections, *others[HW_MOST_GAUGES];
    hw_work work = HW_WORK_INIT;
    hw_reason reason = HW_REASON_INIT;
    hw_holder holder = HW_HOLDER_INIT;
    hw_permit *permit;
    hw_monitor *another;
    struct waiter waiter;
    pthread_t threads[4];
    char name[16] = "connections";
    int i;

    make_monitor();
    EXPECT(hw_monitor_start(monitor, 3600000) == 0);
    connections = hw_gauge_new(monitor, name, 100);
    EXPECT(connections);
    memset(name, 'x', sizeof name - 1);
    hw_gauge_add(connections, 79);
    EXPECT(hw_is_accepting_work(monitor));
    hw_gauge_add(connections, 1);
    EXPECT(!hw_is_accepting_work(monitor) && hw_gauge_get(connections) == 80);
    EXPECT(hw_verdict_reason(monitor, &reason) == 0 && reason.resource == HW_GAUGE);
    EXPECT(reason.usage[HW_GAUGE].measured == 80 && reason.usage[HW_GAUGE].limit == 100);
    EXPECT(!hw_try_admit(monitor, NULL) && strstr(hw_last_error(), "connections 80 of 100 (80.0 %)"));

    hw_gauge_set(connections, 50);
    work.gauges[3].gauge = connections;
    work.gauges[3].amount = 30;
    work.gauges[7].gauge = connections;
    work.gauges[7].amount = 10;
    work.disk_bytes = 5;
    permit = hw_try_admit(monitor, &work);
    EXPECT(permit && !hw_is_accepting_work(monitor));
    EXPECT(hw_gauge_resource(connections) == HW_GAUGE);
    EXPECT(hw_holders(monitor, &holder, 1) == 1 && holder.gauges[0] == 40 && holder.gauges[1] == 0);
    EXPECT(holder.disk_bytes == 5);
    work.gauges[7].gauge = NULL;
    hw_permit_finish(permit);
    work.gauges[3].amount = 95;
    FAILS(!hw_try_admit(monitor, &work), HW_NEVER_FITS);

    /* Whoever waits is served by what is taken off. */
    hw_gauge_set(connections, 90);
    begin(&waiter, wait_until_accepting, 0);
    wait_for_waiters(1);
    hw_gauge_sub(connections, 80);
    EXPECT(!joined(&waiter) && waiter.code == 0);

    for (i = 0; i < 4; i++) {
        EXPECT(pthread_create(&threads[i], NULL, add_and_take_off, connections) == 0);
    }
    for (i = 0; i < 4; i++) {
        EXPECT(pthread_join(threads[i], NULL) == 0);
    }
    EXPECT(hw_gauge_get(connections) == 10);

    FAILS(!hw_gauge_new(monitor, "connections", 1), HW_INVALID);
    FAILS(!hw_gauge_new(monitor, "no name", 1), HW_INVALID);
    EXPECT(strstr(hw_last_error(), "gauge name \"no name\" must be 1 to 63 lower-case letters"));
    FAILS(!hw_gauge_new(monitor, "", 1), HW_INVALID);
    FAILS(!hw_gauge_new(monitor, "licences", 0), HW_INVALID);
    FAILS(!hw_gauge_new(monitor, NULL, 1), HW_INVALID);
    FAILS(!hw_gauge_new(NULL, "licences", 1), HW_INVALID);
    for (i = 1; i < HW_MOST_GAUGES; i++) {
        sprintf(name, "gauge_%d", i);
        others[i] = hw_gauge_new(monitor, name, 10);
        EXPECT(others[i] && hw_gauge_resource(others[i]) == HW_GAUGE + i);
    }
    FAILS(!hw_gauge_new(monitor, "ninth", 1), HW_INVALID);
    for (i = 1; i < HW_MOST_GAUGES; i++) {
        hw_gauge_free(others[i]);
    }

    /* It is no gauge of another monitor, counts for nobody once it was freed, and may outlive its monitor. */
    another = hw_monitor_new(NULL);
    EXPECT(another && hw_check_now(another, NULL) == 0);
    others[1] = hw_gauge_new(another, "connections", 1);
    EXPECT(others[1]);
    permit = hw_try_admit(another, &work);
    EXPECT(permit);
    hw_permit_finish(permit);
    hw_gauge_free(others[1]);
    hw_monitor_free(another);
    hw_gauge_set(connections, 90);
    EXPECT(!hw_is_accepting_work(monitor));
    hw_gauge_free(connections);
    EXPECT(hw_is_accepting_work(monitor));
    connections = hw_gauge_new(monitor, "connections", 100);
    hw_monitor_free(monitor);
    hw_gauge_add(connections, 1);
    hw_gauge_sub(connections, 1);
    hw_gauge_free(connections);
    hw_gauge_free(NULL);
    hw_gauge_add(NULL, 1);
    hw_gauge_sub(NULL, 1);
    hw_gauge_set(NULL, 1);
    EXPECT(hw_gauge_get(NULL) == 0 && hw_gauge_resource(NULL) == -1);
}

static void floors_and_thresholds_of_one_resource_are_limits(void) {
    hw_snapshot snapshot = HW_SNAPSHOT_INIT;
    hw_reason reason = HW_REASON_INIT;

    limits.disk_path = "/";
    limits.min_free_disk_bytes = 1;
    limits.warn_percent_of[HW_PROCESSES] = 50;
    limits.hard_percent_of[HW_PROCESSES] = 60;
    EXPECT(hw_limits_detect(&limits) == 0);
    make_monitor();
    EXPECT(hw_check_now(monitor, &snapshot) == 0);
    EXPECT(snapshot.disk_free_bytes <= snapshot.disk_total_bytes && snapshot.disk_total_bytes != HW_NONE);
    EXPECT(snapshot.machine_available_bytes <= snapshot.machine_total_bytes);
    EXPECT(hw_verdict_reason(monitor, &reason) == 0 && reason.usage[HW_DISK_SPACE].floor == 1);
    if (limits.min_available_memory_bytes > 0) {
        EXPECT(reason.usage[HW_MACHINE_MEMORY].floor == limits.min_available_memory_bytes);
        EXPECT(limits.min_available_memory_bytes == snapshot.machine_total_bytes / 10);
    }
    EXPECT(reason.usage[HW_CGROUP_MEMORY].floor == HW_NONE);
    {
        hw_work work = HW_WORK_INIT;
        work.disk_bytes = UINT64_MAX;
        FAILS(!hw_try_admit(monitor, &work), HW_NEVER_FITS);
        work.disk_bytes = 0;
        work.processes = 6;
        FAILS(!hw_try_admit(monitor, &work), HW_NEVER_FITS);
        EXPECT(strstr(hw_last_error(), "would reach the hard threshold of 60 %"));
    }
    limits.min_free_disk_bytes = UINT64_MAX;
    EXPECT(hw_update_limits(monitor, &limits) == 0 && !hw_is_accepting_work(monitor));
    limits.disk_path = "relative";
    FAILS(hw_update_limits(monitor, &limits) == -1, HW_INVALID);
    limits.disk_path = NULL;
    FAILS(hw_update_limits(monitor, &limits) == -1, HW_INVALID);
    hw_monitor_free(monitor);
}

static void processes_that_share_a_ledger_count_each_others_reservations(void) {
    FAILS(!hw_ledger_open(NULL), HW_INVALID);
    FAILS(!hw_ledger_open("/dev/null"), HW_FAILED);
    EXPECT(strstr(hw_last_error(), "ledger /dev/null: it is not a regular file"));
    hw_ledger *ledger = hw_ledger_create();
    EXPECT(ledger);
    limits.max_processes = 0;
    limits.max_memory_bytes = UINT64_C(4096) << 20;
    settings.memory_scope = HW_SCOPE_TREE;
    settings.ledger = ledger;
    start_monitor();
    hw_ledger_free(ledger);
    int told[2];
    EXPECT(pipe(told) == 0);
    pid_t child = fork();
    EXPECT(child >= 0);
    hw_work work = HW_WORK_INIT;
    work.memory_bytes = UINT64_C(3000) << 20;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        EXPECT(hw_monitor_start(monitor, 3600000) == 0);
        EXPECT(hw_try_admit(monitor, &work));
        EXPECT(write(told[1], "", 1) == 1);
        for (;;)
            pause();
    }
    char byte;
    EXPECT(read(told[0], &byte, 1) == 1);
    FAILS(!hw_try_admit(monitor, &work), HW_REFUSED);
    EXPECT(strstr(hw_last_error(), "3000.0 MB reserved by 1 other"));
    kill_child(child);
    EXPECT(hw_check_now(monitor, NULL) == 0);
    hw_permit *permit = hw_try_admit(monitor, &work);
    EXPECT(permit);
    hw_permit_finish(permit);
    hw_monitor_free(monitor);
    close(told[0]);
    close(told[1]);
}

static const struct {
    const char *name;
    void (*body)(void);
} tests[] = {
    {"reasons", a_reason_has_the_numbers_that_were_compared},
    {"served", a_waiter_is_served_by_a_finish_and_refused_at_its_deadline},
    {"classes", a_class_has_a_threshold_of_its_own},
    {"cancel", a_cancelled_waiter_loses_no_room_and_others_are_served},
    {"fork", a_forked_child_has_no_waiter_and_those_of_its_parent_are_served},
    {"attach", an_attached_child_is_measured_and_not_reserved},
    {"stop", a_stop_ends_every_wait_and_permits_outlive_their_monitor},
    {"own-check", a_check_of_the_callers_own_changes_neither_errno_nor_cancellation},
    {"holders", holders_are_listed_with_their_labels},
    {"settings", settings_are_those_of_the_monitor},
    {"gauges", a_gauge_of_the_hosts_is_judged_like_what_is_read},
    {"ledger", processes_that_share_a_ledger_count_each_others_reservations},
    {"floors", floors_and_thresholds_of_one_resource_are_limits},
};

int main(int argc, char **argv) {
    int found = 0;
    /* Whatever never comes: the test fails, and does not hang. */
    alarm(600);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (argc > 1 && strcmp(argv[1], tests[i].name) != 0)
            continue;
        set_defaults();
        tests[i].body();
        found = 1;
    }
    EXPECT(found);
    return 0;
}
