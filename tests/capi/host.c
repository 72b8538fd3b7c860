/*
 * A host in C that uses all of the interface but the gate's everyday use, which examples/c shows: callbacks, hot
 * reload, waiting for snapshots, fork, and handles that outlive their monitor.
 */
#define _DEFAULT_SOURCE

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

#define CHILDREN 19

#define require(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, hw_last_error());                               \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static void forget(pid_t *children)
{
    for (int i = 0; i < CHILDREN; i++)
        kill(children[i], SIGKILL);
    for (int i = 0; i < CHILDREN; i++)
        waitpid(children[i], NULL, 0);
}

static void spawn(pid_t *children)
{
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        require(children[i] >= 0);
        if (children[i] == 0) {
            /* Ends with this program, and keeps nobody waiting for its output. */
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(1);
            close(2);
            for (;;)
                pause();
        }
    }
}

/* Ends a forked child that has used the library. Not by exit(): valgrind takes for lost what threads of the parent's
 * had. */
static void end_well(void)
{
    execlp("true", "true", (char *)NULL);
    _exit(127);
}

/* What the callbacks have seen. */
struct jobs {
    pthread_mutex_t lock;
    pid_t children[CHILDREN];
    int running;
    int asked_to_reclaim;
    int asked_to_pause;
    int cancelled;
    int cleared;
    int dropped;
    bool wrong;
};

static uint64_t running_count(void *user)
{
    struct jobs *jobs = (struct jobs *)user;
    pthread_mutex_lock(&jobs->lock);
    uint64_t running = (uint64_t)jobs->running;
    pthread_mutex_unlock(&jobs->lock);
    return running;
}

static uint64_t active_job_count(void *user)
{
    return running_count(user) * 3;
}

static int oldest_running_job(void *user, char *job_id, size_t size)
{
    struct jobs *jobs = (struct jobs *)user;
    if (running_count(user) == 0)
        return 1;
    jobs->wrong |= size != HW_JOB_ID_SIZE;
    snprintf(job_id, size, "j\xc3\xb6" "b\n%d", 7);
    return 0;
}

static int reclaim(void *user, int resource)
{
    struct jobs *jobs = (struct jobs *)user;
    jobs->wrong |= resource != HW_PROCESSES || jobs->asked_to_pause != 0;
    jobs->asked_to_reclaim++;
    return 1;
}

static int pause_job(void *user, const char *job_id, int resource)
{
    struct jobs *jobs = (struct jobs *)user;
    jobs->wrong |= strcmp(job_id, "j\xc3\xb6" "b\n7") != 0 || resource != HW_PROCESSES || jobs->asked_to_reclaim != 1;
    jobs->asked_to_pause++;
    return 1;
}

static int cancel_job(void *user, const char *job_id, int resource)
{
    struct jobs *jobs = (struct jobs *)user;
    jobs->wrong |= strcmp(job_id, "j\xc3\xb6" "b\n7") != 0 || resource != HW_PROCESSES || jobs->asked_to_pause != 1;
    forget(jobs->children);
    pthread_mutex_lock(&jobs->lock);
    jobs->running = 0;
    jobs->cancelled++;
    pthread_mutex_unlock(&jobs->lock);
    return 0;
}

static void pressure_cleared(void *user)
{
    struct jobs *jobs = (struct jobs *)user;
    pthread_mutex_lock(&jobs->lock);
    jobs->cleared++;
    pthread_mutex_unlock(&jobs->lock);
}

static void dropped(void *user)
{
    struct jobs *jobs = (struct jobs *)user;
    pthread_mutex_lock(&jobs->lock);
    jobs->dropped++;
    pthread_mutex_unlock(&jobs->lock);
}

static int count(struct jobs *jobs, const int *what)
{
    pthread_mutex_lock(&jobs->lock);
    int value = *what;
    pthread_mutex_unlock(&jobs->lock);
    return value;
}

static void moment(void)
{
    const struct timespec time = {0, 5 * 1000 * 1000};
    nanosleep(&time, NULL);
}

static void wait_for(struct jobs *jobs, const int *what, int value)
{
    while (count(jobs, what) < value)
        moment();
    require(count(jobs, what) == value);
}

/* Not one question: on a machine that stands still for a while the answer is that the last check is stale. */
static void wait_until_open(hw_monitor *monitor)
{
    while (!hw_is_accepting_work(monitor))
        moment();
}

static void write_line(void *user, int level, const char *line)
{
    (void)user;
    if (strstr(line, "event=monitor."))
        printf("%d %s\n", level, line);
}

static hw_monitor *unstarted(uint64_t max_processes)
{
    hw_limits limits = HW_LIMITS_INIT;
    limits.max_processes = max_processes;
    hw_monitor *monitor = hw_monitor_new(&limits);
    require(monitor);
    return monitor;
}

static hw_monitor *started(uint64_t max_processes)
{
    hw_monitor *monitor = unstarted(max_processes);
    require(hw_monitor_start(monitor, 50) == 0);
    return monitor;
}

static void sheds_through_the_callbacks(void)
{
    static struct jobs jobs = {.lock = PTHREAD_MUTEX_INITIALIZER, .running = 1};
    spawn(jobs.children);
    hw_monitor *monitor = unstarted(CHILDREN + 1);
    hw_callbacks callbacks = HW_CALLBACKS_INIT;
    callbacks.user = &jobs;
    callbacks.running_count = running_count;
    callbacks.active_job_count = active_job_count;
    callbacks.oldest_running_job = oldest_running_job;
    callbacks.pause_job = pause_job;
    callbacks.cancel_job = cancel_job;
    callbacks.pressure_cleared = pressure_cleared;
    callbacks.dropped = dropped;
    callbacks.reclaim = reclaim;
    require(hw_set_callbacks(monitor, &callbacks) == 0);

    hw_snapshot snapshot = HW_SNAPSHOT_INIT;
    require(hw_check_now(monitor, &snapshot) == 0);
    require(snapshot.size == sizeof snapshot && snapshot.memory_bytes > 0 && snapshot.memory_bytes != HW_NONE);
    require(snapshot.running_jobs == 1 && snapshot.active_jobs == 3);
    require(hw_monitor_start(monitor, 50) == 0);
    wait_for(&jobs, &jobs.cancelled, 1);
    wait_for(&jobs, &jobs.cleared, 1);
    require(!jobs.wrong && jobs.asked_to_pause == 1);

    /* Replaced by themselves, and then taken away. */
    require(hw_set_callbacks(monitor, &callbacks) == 0);
    wait_for(&jobs, &jobs.dropped, 1);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        hw_monitor_free(monitor);
        require(jobs.dropped == 1);
        end_well();
    }
    int status;
    require(waitpid(child, &status, 0) == child && status == 0);
    require(hw_set_callbacks(monitor, NULL) == 0);
    wait_for(&jobs, &jobs.dropped, 2);

    /* What is refused is not kept, and so not let go. */
    callbacks.size = 0;
    require(hw_set_callbacks(monitor, &callbacks) == -1 && strstr(hw_last_error(), "hw_callbacks"));
    callbacks.size = sizeof callbacks;
    require(hw_set_callbacks(monitor, &callbacks) == 0);
    hw_monitor_free(monitor);
    wait_for(&jobs, &jobs.dropped, 3);
}

static void limits_are_reloaded_and_snapshots_waited_for(void)
{
    pid_t children[CHILDREN];
    spawn(children);
    hw_monitor *monitor = started(0);
    wait_until_open(monitor);
    hw_limits limits = HW_LIMITS_INIT;
    limits.max_processes = CHILDREN + 1;
    require(hw_update_limits(monitor, &limits) == 0 && !hw_is_accepting_work(monitor));
    char text[400];
    bool accepting = true;
    do {
        size_t length = hw_verdict(monitor, text, sizeof text, &accepting);
        require(!accepting && length == strlen(text));
    } while (strstr(text, "stale"));
    require(strstr(text, "processes 19 of 20 (95.0 %)"));
    limits.warn_percent = 96;
    limits.hard_percent = 90;
    require(hw_update_limits(monitor, &limits) == -1 && strstr(hw_last_error(), "96"));
    require(hw_update_limits(monitor, NULL) == -1 && !hw_is_accepting_work(monitor));

    hw_snapshots *snapshots = hw_snapshots_new(monitor);
    struct {
        hw_snapshot known;
        uint64_t later;
    } snapshot = {HW_SNAPSHOT_INIT, 5};
    snapshot.known.size = sizeof snapshot;
    require(hw_snapshots_wait(snapshots, 600000, &snapshot.known) == 1);
    require(snapshot.known.processes == CHILDREN && snapshot.later == 5);
    hw_monitor_stop(monitor);
    while (hw_snapshots_wait(snapshots, 0, NULL) == 1)
        ;
    require(hw_snapshots_wait(snapshots, 1, NULL) == 0);
    limits.hard_percent = limits.warn_percent = 0;
    limits.max_processes = 0;
    require(hw_update_limits(monitor, &limits) == 0 && !hw_is_accepting_work(monitor));
    require(hw_monitor_start(monitor, 50) == 0);
    wait_until_open(monitor);
    require(hw_snapshots_wait(snapshots, 600000, NULL) == 1);

    hw_work work = HW_WORK_INIT;
    work.processes = 3;
    hw_permit *permit = hw_try_admit(monitor, &work);
    require(permit && !hw_try_admit(NULL, &work) && hw_last_error_code() == HW_INVALID);
    limits.max_processes = CHILDREN + 9;
    require(hw_update_limits(monitor, &limits) == 0 && hw_last_error_code() == HW_INVALID);
    work.processes = 40;
    require(!hw_try_admit(monitor, &work) && hw_last_error_code() == HW_NEVER_FITS);
    work.processes = 9;
    require(!hw_try_admit(monitor, &work) && hw_last_error_code() == HW_REFUSED);
    hw_monitor_free(monitor);
    while (hw_snapshots_wait(snapshots, 0, NULL) == 1)
        ;
    require(hw_snapshots_wait(snapshots, 0, NULL) == -1 && hw_last_error_code() == HW_ENDED);
    hw_snapshots_free(snapshots);
    hw_permit_free(permit);
    forget(children);
}

static void a_forked_child_has_a_monitor_of_its_own(void)
{
    hw_monitor *monitor = started(10);
    hw_snapshots *snapshots = hw_snapshots_new(monitor);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        require(!hw_is_accepting_work(monitor));
        require(hw_snapshots_wait(snapshots, 0, NULL) == -1);
        hw_snapshot snapshot = HW_SNAPSHOT_INIT;
        require(hw_check_now(monitor, &snapshot) == 0 && snapshot.processes == 0);
        require(hw_monitor_start(monitor, 50) == 0);
        wait_until_open(monitor);
        hw_snapshots_free(snapshots);
        hw_monitor_free(monitor);
        end_well();
    }
    int status;
    require(waitpid(child, &status, 0) == child && status == 0);
    wait_until_open(monitor);
    hw_snapshots_free(snapshots);
    hw_monitor_free(monitor);
}

int main(void)
{
    /* Whatever never comes: the test fails, and does not hang. */
    alarm(600);
    require(hw_set_log(NULL, NULL, HW_LOG_INFO) == -1 && hw_set_log(write_line, NULL, 0) == -1);
    require(hw_set_log(write_line, NULL, HW_LOG_INFO) == 0 && hw_set_log(write_line, NULL, HW_LOG_INFO) == -1);
    sheds_through_the_callbacks();
    limits_are_reloaded_and_snapshots_waited_for();
    a_forked_child_has_a_monitor_of_its_own();
    return 0;
}
