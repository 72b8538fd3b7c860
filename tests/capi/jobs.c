/* Programs that are run as jobs from C: how each ends, what a bad argument leaves behind, and what a forked child or a
 * cancelled thread may do. `jobs NAME...` is these, `jobs` is all of them. C and C++. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "highwater.h"

static hw_monitor *monitor;
static hw_jobs *jobs;

#define EXPECT(condition)                                                                                            \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "line %d: not %s; last error: %s\n", __LINE__, #condition, hw_last_error());             \
            hw_jobs_cancel_all(jobs);                                                                                \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

#define FAILS(call, code) EXPECT((call) == -1 && hw_last_error_code() == (code))

/* A time to wait before a condition is looked at again. */
static void moment(void) {
    const struct timespec time = {0, 5 * 1000 * 1000};
    nanosleep(&time, NULL);
}

/* What a test makes its jobs of, and what it runs them with. */
static hw_limits limits;
static hw_jobs_settings settings;
static hw_job_options options;

static void set_defaults(void) {
    const hw_limits no_limits = HW_LIMITS_INIT;
    const hw_jobs_settings default_settings = HW_JOBS_SETTINGS_INIT;
    const hw_job_options no_options = HW_JOB_OPTIONS_INIT;
    limits = no_limits;
    limits.max_processes = 20;
    settings = default_settings;
    settings.width = UINT64_MAX;
    options = no_options;
}

static void begin(void) {
    hw_settings tree = HW_SETTINGS_INIT;
    tree.memory_scope = HW_SCOPE_TREE;
    tree.max_age_ms = 3600000;
    monitor = hw_monitor_new_with(&limits, &tree);
    EXPECT(monitor);
    jobs = hw_jobs_new(monitor, &settings);
    EXPECT(jobs);
    EXPECT(hw_monitor_start(monitor, 200) == 0);
}

static void end(void) {
    hw_jobs_free(jobs);
    jobs = NULL;
    hw_monitor_free(monitor);
    /* They have left nothing behind. */
    EXPECT(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

typedef int give(hw_jobs *, char *const *, const hw_job_options *, uint64_t *);

static uint64_t given(give *how, const char *program, const char *first, const char *second) {
    char *argv[] = {(char *)program, (char *)first, (char *)second, NULL};
    uint64_t id = 0;
    EXPECT(how(jobs, argv, &options, &id) == 0 && id > 0);
    return id;
}

static uint64_t spawn_sh(const char *script) {
    return given(hw_jobs_spawn, "/bin/sh", "-c", script);
}

static hw_outcome ended(uint64_t id) {
    hw_outcome outcome = HW_OUTCOME_INIT;
    EXPECT(hw_jobs_wait(jobs, id, 120000, &outcome) == 1);
    return outcome;
}

static void a_job_ends_with_its_code_or_its_signal_and_is_told_once(void) {
    begin();
    hw_outcome outcome = ended(spawn_sh("exit 0"));
    EXPECT(outcome.kind == HW_OUTCOME_ENDED && outcome.exit_code == 0 && outcome.signal == 0 && outcome.tries == 1);
    EXPECT(outcome.size == sizeof outcome && outcome.error_number == 0);
    const uint64_t id = spawn_sh("exit 7");
    outcome = ended(id);
    EXPECT(outcome.kind == HW_OUTCOME_ENDED && outcome.exit_code == 7);
    EXPECT(strcmp(outcome.text, "exit status: 7") == 0);
    FAILS(hw_jobs_wait(jobs, id, 0, &outcome), HW_INVALID);
    EXPECT(strstr(hw_last_error(), "its end has been told"));
    FAILS(hw_jobs_cancel(jobs, id), HW_INVALID);
    outcome = ended(spawn_sh("kill -9 $$"));
    EXPECT(outcome.kind == HW_OUTCOME_ENDED && outcome.exit_code == -1 && outcome.signal == SIGKILL);
    /* Its number is wanted by nobody. */
    char *argv[] = {(char *)"true", NULL};
    EXPECT(hw_jobs_submit(jobs, argv, NULL, NULL) == 0);
    EXPECT(hw_jobs_wait(jobs, spawn_sh("exit 0"), HW_FOREVER, NULL) == 1);
    end();
}

static void a_job_has_the_folder_the_environment_and_the_output_that_it_was_given(void) {
    begin();
    int ends[2];
    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    /* Names that the host changes at once: they were copied. */
    char kind[] = "kind";
    char name[] = "NAME=one=1";
    char *environment[] = {name, (char *)"NAME=two", (char *)"PATH=/usr/bin:/bin", NULL};
    hw_work work = HW_WORK_INIT;
    work.processes = 2;
    options.kind = kind;
    options.folder = "/usr";
    options.environment = environment;
    options.work = &work;
    options.stdout_fd = options.stderr_fd = ends[1];
    options.tries = options.timeout_ms = HW_FOREVER;
    const uint64_t id = given(hw_jobs_submit, "sh", "-c", "pwd; echo \"$NAME-$HOST\" >&2; cat; exit 3");
    kind[0] = name[0] = 'x';
    close(ends[1]);
    EXPECT(ended(id).exit_code == 3);
    char text[100] = "";
    size_t length = 0;
    for (ssize_t more; (more = read(ends[0], text + length, sizeof text - 1 - length)) > 0; length += (size_t)more)
        ;
    EXPECT(strcmp(text, "/usr\none=1-\n") == 0);
    close(ends[0]);

    /* Without one it is the host's, as it was then. */
    set_defaults();
    setenv("HOST", "before", 1);
    const uint64_t before = given(hw_jobs_submit, "/bin/sh", "-c", "test $HOST = before");
    setenv("HOST", "after", 1);
    EXPECT(ended(before).exit_code == 0);
    unsetenv("HOST");
    end();
}

static void a_status_that_the_host_has_not_kept_is_lost(void) {
    begin();
    signal(SIGCHLD, SIG_IGN);
    const hw_outcome outcome = ended(spawn_sh("exit 3"));
    EXPECT(outcome.kind == HW_OUTCOME_LOST && outcome.error_number == ECHILD && outcome.exit_code == -1);
    signal(SIGCHLD, SIG_DFL);
    end();
}

static void what_cannot_be_started_says_why_and_the_others_run(void) {
    begin();
    hw_outcome outcome = ended(given(hw_jobs_spawn, "/no/such/program", NULL, NULL));
    EXPECT(outcome.kind == HW_OUTCOME_NOT_STARTED && outcome.error_number == ENOENT && outcome.tries == 0);
    EXPECT(strstr(outcome.text, "could not be started: ") && outcome.exit_code == -1);
    outcome = ended(given(hw_jobs_spawn, "/", NULL, NULL));
    EXPECT(outcome.kind == HW_OUTCOME_NOT_STARTED && outcome.error_number == EACCES);
    outcome = ended(given(hw_jobs_spawn, "", NULL, NULL));
    EXPECT(outcome.kind == HW_OUTCOME_NOT_STARTED && outcome.error_number == ENOENT);
    options.folder = "/no/such/folder";
    outcome = ended(spawn_sh("exit 0"));
    EXPECT(outcome.kind == HW_OUTCOME_NOT_STARTED && outcome.error_number == ENOENT);
    options.folder = NULL;
    EXPECT(ended(spawn_sh("exit 0")).exit_code == 0);
    end();
}

static void a_job_that_takes_too_long_is_ended_and_killed_if_it_is_deaf(void) {
    settings.grace_ms = 100;
    begin();
    options.timeout_ms = 200;
    const hw_outcome outcome = ended(spawn_sh("trap '' TERM; while :; do sleep 0.05; done"));
    EXPECT(outcome.kind == HW_OUTCOME_TIMED_OUT && outcome.exit_code == -1 && outcome.signal == 0);
    EXPECT(strstr(outcome.text, "200ms"));
    end();
}

static void jobs_are_cancelled_one_by_one_or_all_whether_they_run_or_wait(void) {
    settings.width = 1;
    begin();
    const uint64_t first = spawn_sh("exec sleep 1000");
    const uint64_t second = given(hw_jobs_submit, "/bin/sh", "-c", "exec sleep 1000");
    EXPECT(hw_jobs_running(jobs) == 1 && hw_jobs_waiting(jobs) == 1);
    hw_outcome outcome = HW_OUTCOME_INIT;
    EXPECT(hw_jobs_wait(jobs, first, 0, &outcome) == 0 && outcome.kind == 0);
    EXPECT(hw_jobs_wait(jobs, second, 20, &outcome) == 0);
    EXPECT(hw_jobs_cancel(jobs, second) == 0);
    outcome = ended(second);
    EXPECT(outcome.kind == HW_OUTCOME_CANCELLED && outcome.tries == 0 && strcmp(outcome.text, "cancelled") == 0);
    EXPECT(hw_jobs_cancel(jobs, first) == 0);
    outcome = ended(first);
    EXPECT(outcome.kind == HW_OUTCOME_CANCELLED && outcome.tries == 1);
    EXPECT(hw_jobs_running(jobs) == 0 && hw_jobs_waiting(jobs) == 0);

    uint64_t all[4];
    for (int i = 0; i < 4; i++)
        all[i] = given(hw_jobs_submit, "/bin/sleep", "1000", NULL);
    EXPECT(hw_jobs_cancel_all(jobs) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(ended(all[i]).kind == HW_OUTCOME_CANCELLED);
    EXPECT(ended(spawn_sh("exit 0")).exit_code == 0);
    /* The end of the jobs is that of each. */
    spawn_sh("exec sleep 1000");
    end();
}

static void a_job_that_is_too_large_never_fits_or_is_given_up_with_its_numbers(void) {
    limits.max_memory_bytes = UINT64_C(120) << 20;
    settings.grace_ms = 200;
    begin();
    hw_work work = HW_WORK_INIT;
    work.processes = 20;
    options.work = &work;
    hw_outcome outcome = ended(spawn_sh("exit 0"));
    EXPECT(outcome.kind == HW_OUTCOME_NEVER_FITS && outcome.tries == 0 && strstr(outcome.text, "it could never fit"));
    options.work = NULL;
    outcome = ended(spawn_sh("x=$(head -c 130M /dev/zero | tr '\\0' x); while :; do sleep 0.02; done"));
    EXPECT(outcome.kind == HW_OUTCOME_SHED && outcome.tries == 1 && outcome.signal == 0);
    EXPECT(outcome.peak_memory_bytes > UINT64_C(50) << 20 && outcome.peak_processes >= 1);
    EXPECT(strstr(outcome.text, "memory critical"));
    end();
}

static void a_bad_argument_is_an_error_and_runs_nothing(void) {
    begin();
    char *argv[] = {(char *)"true", NULL};
    char *nothing[] = {NULL};
    uint64_t id = 42;
    give *const how[] = {hw_jobs_spawn, hw_jobs_submit};
    for (int i = 0; i < 2; i++) {
        FAILS(how[i](NULL, argv, NULL, &id), HW_INVALID);
        FAILS(how[i](jobs, NULL, NULL, &id), HW_INVALID);
        FAILS(how[i](jobs, nothing, NULL, &id), HW_INVALID);
        EXPECT(strcmp(hw_last_error(), "argv names no program: it is empty") == 0);

        set_defaults();
        options.size = 0;
        FAILS(how[i](jobs, argv, &options, &id), HW_INVALID);
        set_defaults();
        options.kind = "caf\xe9";
        FAILS(how[i](jobs, argv, &options, &id), HW_INVALID);
        set_defaults();
        char *const bad[][2] = {{(char *)"NAME", NULL}, {(char *)"=value", NULL}, {(char *)"", NULL}};
        for (int entry = 0; entry < 3; entry++) {
            options.environment = bad[entry];
            FAILS(how[i](jobs, argv, &options, &id), HW_INVALID);
        }
        set_defaults();
        const int closed[] = {1000000, -2, INT32_MIN};
        for (int descriptor = 0; descriptor < 3; descriptor++) {
            options.stdout_fd = closed[descriptor];
            FAILS(how[i](jobs, argv, &options, &id), HW_INVALID);
            options.stdout_fd = -1;
            options.stderr_fd = closed[descriptor];
            FAILS(how[i](jobs, argv, &options, &id), HW_INVALID);
            EXPECT(strstr(hw_last_error(), "stderr_fd "));
            options.stderr_fd = -1;
        }
        hw_work work = HW_WORK_INIT;
        work.work_class = 7;
        options.work = &work;
        FAILS(how[i](jobs, argv, &options, &id), HW_INVALID);
        set_defaults();
    }
    EXPECT(id == 42);

    hw_outcome outcome = HW_OUTCOME_INIT;
    FAILS(hw_jobs_wait(NULL, 1, 0, &outcome), HW_INVALID);
    FAILS(hw_jobs_wait(jobs, 1, 0, &outcome), HW_INVALID);
    FAILS(hw_jobs_wait(jobs, 0, HW_FOREVER, NULL), HW_INVALID);
    FAILS(hw_jobs_cancel(NULL, 1), HW_INVALID);
    FAILS(hw_jobs_cancel(jobs, UINT64_MAX), HW_INVALID);
    FAILS(hw_jobs_cancel_all(NULL), HW_INVALID);
    EXPECT(hw_jobs_running(NULL) == 0 && hw_jobs_waiting(NULL) == 0);
    hw_jobs_free(NULL);
    EXPECT(!hw_jobs_new(NULL, NULL) && hw_last_error_code() == HW_INVALID);
    settings.size = 0;
    EXPECT(!hw_jobs_new(monitor, &settings) && hw_last_error_code() == HW_INVALID);

    /* None of these was a job, and an end for which there is no place is not told. */
    EXPECT(hw_jobs_running(jobs) == 0 && hw_jobs_waiting(jobs) == 0);
    id = spawn_sh("exit 5");
    EXPECT(id == 1);
    outcome.size = 1;
    FAILS(hw_jobs_wait(jobs, id, HW_FOREVER, &outcome), HW_INVALID);
    EXPECT(ended(id).exit_code == 5);
    end();
}

static void a_forked_child_has_no_jobs_and_those_of_its_parent_run_on(void) {
    begin();
    const uint64_t id = spawn_sh("exec sleep 1000");
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        alarm(60);
        char *argv[] = {(char *)"true", NULL};
        uint64_t other = 42;
        hw_outcome outcome = HW_OUTCOME_INIT;
        FAILS(hw_jobs_spawn(jobs, argv, NULL, &other), HW_FAILED);
        FAILS(hw_jobs_submit(jobs, argv, NULL, &other), HW_FAILED);
        FAILS(hw_jobs_wait(jobs, id, HW_FOREVER, &outcome), HW_FAILED);
        FAILS(hw_jobs_cancel(jobs, id), HW_FAILED);
        FAILS(hw_jobs_cancel_all(jobs), HW_FAILED);
        EXPECT(strstr(hw_last_error(), "forked") && other == 42);
        EXPECT(hw_jobs_running(jobs) == 0 && hw_jobs_waiting(jobs) == 0);
        hw_jobs_free(jobs);
        hw_monitor_free(monitor);
        /* It has its own, under a monitor of its own. */
        set_defaults();
        begin();
        EXPECT(ended(spawn_sh("exit 0")).exit_code == 0);
        end();
        _exit(0);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    EXPECT(hw_jobs_running(jobs) == 1);
    EXPECT(hw_jobs_cancel(jobs, id) == 0 && ended(id).kind == HW_OUTCOME_CANCELLED);
    end();
}

/* A thread that waits for a job, and whether its wait returned. */
struct waiter {
    pthread_t thread;
    uint64_t id;
    int has_returned;
};

static void *wait_for_job(void *argument) {
    struct waiter *waiter = (struct waiter *)argument;
    hw_outcome outcome = HW_OUTCOME_INIT;
    EXPECT(hw_jobs_wait(jobs, waiter->id, HW_FOREVER, &outcome) == 1 && outcome.kind == HW_OUTCOME_CANCELLED);
    waiter->has_returned = 1;
    pthread_testcancel();
    return NULL;
}

static void a_cancelled_thread_ends_after_its_wait_and_errno_stays(void) {
    begin();
    struct waiter waiters[2];
    const uint64_t id = spawn_sh("exec sleep 1000");
    for (int i = 0; i < 2; i++) {
        waiters[i].id = id;
        waiters[i].has_returned = 0;
        EXPECT(pthread_create(&waiters[i].thread, NULL, wait_for_job, &waiters[i]) == 0);
    }
    /* Both are in the wait soon, and if they are not, the cancellation has less to hold back. */
    for (int i = 0; i < 20; i++)
        moment();
    EXPECT(pthread_cancel(waiters[0].thread) == 0);
    moment();
    errno = EXDEV;
    EXPECT(hw_jobs_wait(jobs, id, 0, NULL) == 0 && errno == EXDEV);
    EXPECT(hw_jobs_wait(jobs, 42, 0, NULL) == -1 && errno == EXDEV);
    EXPECT(hw_jobs_cancel(jobs, id) == 0 && errno == EXDEV);
    for (int i = 0; i < 2; i++) {
        void *result;
        EXPECT(pthread_join(waiters[i].thread, &result) == 0 && waiters[i].has_returned);
        EXPECT((result == PTHREAD_CANCELED) == (i == 0));
    }
    FAILS(hw_jobs_wait(jobs, id, 0, NULL), HW_INVALID);
    errno = EXDEV;
    spawn_sh("exit 0");
    EXPECT(errno == EXDEV && hw_jobs_cancel_all(jobs) == 0 && errno == EXDEV);
    EXPECT(hw_jobs_running(jobs) <= 1 && errno == EXDEV);
    hw_jobs_free(jobs);
    jobs = NULL;
    EXPECT(errno == EXDEV);
    hw_monitor_free(monitor);
}

static void *spawn_one_more(void *argument) {
    *(uint64_t *)argument = spawn_sh("exec sleep 1000");
    return NULL;
}

static void a_spawn_waits_for_its_start_and_ends_when_all_are_cancelled(void) {
    settings.width = 1;
    begin();
    const uint64_t first = spawn_sh("exec sleep 1000");
    uint64_t second = 0;
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, spawn_one_more, &second) == 0);
    while (hw_jobs_waiting(jobs) == 0)
        moment();
    EXPECT(hw_jobs_cancel_all(jobs) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(ended(first).kind == HW_OUTCOME_CANCELLED && ended(second).kind == HW_OUTCOME_CANCELLED);
    end();
}

static void costs_are_kept_in_a_file_and_jobs_outlive_their_monitor(void) {
    char path[] = "/tmp/highwater-jobs-XXXXXX";
    const int file = mkstemp(path);
    EXPECT(file >= 0);
    settings.costs_file = path;
    settings.sole_parent = 1;
    begin();
    options.kind = "import";
    EXPECT(ended(spawn_sh("exit 0")).exit_code == 0);
    const uint64_t id = spawn_sh("exec sleep 1000");
    hw_monitor_free(monitor);
    EXPECT(hw_jobs_cancel(jobs, id) == 0 && ended(id).kind == HW_OUTCOME_CANCELLED);
    /* Nobody admits it any more. */
    EXPECT(hw_jobs_wait(jobs, given(hw_jobs_submit, "/bin/true", NULL, NULL), 50, NULL) == 0);
    hw_jobs_free(jobs);
    jobs = NULL;
    char text[400] = "";
    EXPECT(read(file, text, sizeof text - 1) > 0 && strstr(text, "import"));
    close(file);
    unlink(path);
}

static const struct {
    const char *name;
    void (*body)(void);
} tests[] = {
    {"ended", a_job_ends_with_its_code_or_its_signal_and_is_told_once},
    {"options", a_job_has_the_folder_the_environment_and_the_output_that_it_was_given},
    {"lost", a_status_that_the_host_has_not_kept_is_lost},
    {"not-started", what_cannot_be_started_says_why_and_the_others_run},
    {"timeout", a_job_that_takes_too_long_is_ended_and_killed_if_it_is_deaf},
    {"cancel", jobs_are_cancelled_one_by_one_or_all_whether_they_run_or_wait},
    {"large", a_job_that_is_too_large_never_fits_or_is_given_up_with_its_numbers},
    {"arguments", a_bad_argument_is_an_error_and_runs_nothing},
    {"fork", a_forked_child_has_no_jobs_and_those_of_its_parent_run_on},
    {"cancelled-thread", a_cancelled_thread_ends_after_its_wait_and_errno_stays},
    {"spawn", a_spawn_waits_for_its_start_and_ends_when_all_are_cancelled},
    {"costs", costs_are_kept_in_a_file_and_jobs_outlive_their_monitor},
};

int main(int argc, char **argv) {
    int found = 0;
    /* Whatever never comes: the test fails, and does not hang. */
    alarm(600);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        int is_named = argc == 1;
        for (int name = 1; name < argc; name++)
            is_named |= strcmp(argv[name], tests[i].name) == 0;
        if (!is_named)
            continue;
        set_defaults();
        tests[i].body();
        found = 1;
    }
    EXPECT(found);
    return 0;
}
