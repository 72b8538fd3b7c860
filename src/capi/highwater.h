/*
 * highwater.h: how much more work can this process take?
 *
 * A monitor watches the process it lives in, from a thread of its own, and any
 * thread may ask it whether to take on more work:
 *
 *     hw_limits limits = HW_LIMITS_INIT;
 *     limits.max_memory_bytes = UINT64_C(512) << 20;
 *     hw_monitor *monitor = hw_monitor_new(&limits);
 *     if (!monitor || hw_monitor_start(monitor, 15000) != 0)
 *         fprintf(stderr, "%s\n", hw_last_error());
 *     ...
 *     if (hw_is_accepting_work(monitor))
 *         take_next();
 *     ...
 *     hw_monitor_free(monitor);
 *
 * Threads. Every function may be called from any thread, at the same time as
 * any other, but for the one that frees a handle: that must be the last call
 * with it. No function may be called from a signal handler.
 *
 * Errors. A function that returns int returns 0, or -1 and leaves a text for
 * hw_last_error(); one that returns a pointer returns NULL and does the same.
 * Nothing ever aborts or throws. NULL in place of a monitor is one that
 * accepts no work.
 *
 * Ownership. What a function returns as a pointer to a handle is the caller's
 * to free with the function that its comment names. Strings and structs that
 * are passed in are copied and stay the caller's.
 *
 * Structs. Each begins with its size, set by the caller (the INIT macros do):
 * a later version may have more fields at its end, and a program that was
 * compiled against this one goes on working.
 *
 * fork(). In a forked child the gate is closed until the child calls
 * hw_check_now() or hw_monitor_start() itself; every handle is good there, and
 * is the child's own to free. No thread, lock or descriptor of the parent's is
 * used. hw_snapshots of the parent's have ended there.
 *
 * Signals. The threads of the library block every signal but the synchronous
 * faults; callbacks run under the signal mask of the thread that set them. No
 * signal handler is installed, and no child is ever waited for.
 */
#ifndef HIGHWATER_H
#define HIGHWATER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In a snapshot: it could not be read, or there is no such limit here. */
#define HW_NONE UINT64_MAX

/* Watched quantities, as callbacks name them. */
enum {
    HW_MEMORY = 0,
    HW_PROCESSES = 1,
    HW_CGROUP_MEMORY = 2,
    HW_CGROUP_PIDS = 3,
    HW_OPEN_FILES = 4,
    HW_MEMORY_PRESSURE = 5
};

/* ---- errors ------------------------------------------------------------ */

/*
 * Why the last call that failed on this thread has failed. Never NULL; empty
 * when none has. The text is the library's, and good until the next call on
 * this thread that fails.
 */
const char *hw_last_error(void);

/* ---- limits ------------------------------------------------------------ */

/* Limits. A limit of 0 is none. */
typedef struct hw_limits {
    size_t size;                       /* sizeof(hw_limits) */
    uint64_t max_memory_bytes;         /* resident memory of this process */
    uint64_t max_processes;            /* descendants at any depth */
    uint64_t max_open_files;           /* RLIMIT_NOFILE holds in any case */
    uint32_t max_pressure_percent;     /* memory pressure, some avg10 */
    uint32_t warn_percent;             /* the gate closes there; 0 means 80 */
    uint32_t hard_percent;             /* work is shed there; 0 means 95 */
    uint32_t resume_percent;           /* hysteresis; 0 means none */
} hw_limits;

#define HW_LIMITS_INIT {sizeof(hw_limits), 0, 0, 0, 0, 0, 0, 0}

/*
 * Fills every limit that is 0 and that the surroundings have: control groups,
 * the machine's memory, rlimits. Reads a few files.
 */
int hw_limits_detect(hw_limits *limits);

/* ---- the monitor ------------------------------------------------------- */

typedef struct hw_monitor hw_monitor;

/* A monitor with these limits, or with none for NULL. Nothing is started yet.
 * To be freed with hw_monitor_free(). */
hw_monitor *hw_monitor_new(const hw_limits *limits);

/* Stops the monitor and frees it. NULL is fine. Permits and snapshots that it
 * has given stay good and are freed on their own. */
void hw_monitor_free(hw_monitor *monitor);

/*
 * Takes the first check on the calling thread, then starts the thread that
 * checks every interval_ms milliseconds, and sooner when callers ask. A first
 * check that failed is no error: the gate is closed, and the thread keeps
 * trying. A second start does nothing. Fails for 0, or without a thread.
 */
int hw_monitor_start(hw_monitor *monitor, uint64_t interval_ms);

/* Closes the gate, and ends the threads. It waits at most 100 ms for a callback
 * that is running. Any number of times. */
void hw_monitor_stop(hw_monitor *monitor);

/* Replaces the limits; the gate follows at once. On an error the old ones
 * stay. */
int hw_update_limits(hw_monitor *monitor, const hw_limits *limits);

/* ---- the gate ---------------------------------------------------------- */

/*
 * Whether new work should be accepted: a few loads and a clock read. It never
 * blocks. False for NULL, before the first check, after one that
 * failed, when the last is too old, after a stop, and in a forked child.
 */
bool hw_is_accepting_work(const hw_monitor *monitor);

/*
 * The state of the gate and its reason, with the numbers that were compared,
 * as a text of at most size bytes with its NUL, cut off where it must be.
 * Returns the length that the whole text has, like snprintf(); with a size of
 * 0, buffer may be NULL. *accepting, unless it is NULL, is the answer of the
 * same reading.
 */
size_t hw_verdict(const hw_monitor *monitor, char *buffer, size_t size, bool *accepting);

/* What a piece of work will add. */
typedef struct hw_work {
    size_t size; /* sizeof(hw_work) */
    uint64_t memory_bytes;
    uint64_t processes;
    uint64_t open_files;
} hw_work;

#define HW_WORK_INIT {sizeof(hw_work), 0, 0, 0}

typedef struct hw_permit hw_permit;

/*
 * Admits a piece of work, or returns NULL with the reason in hw_last_error().
 * Its cost is reserved until the first check after the permit was freed: free
 * it with hw_permit_free() when all that was declared can be seen (forked,
 * allocated), or when the work has ended. It may take a check, which reads files.
 */
hw_permit *hw_try_admit(hw_monitor *monitor, const hw_work *work);

/* Gives a permit back. NULL is fine; after hw_monitor_free(), too. */
void hw_permit_free(hw_permit *permit);

/* ---- snapshots --------------------------------------------------------- */

/* What a check found. HW_NONE: it could not be read, or is not there. */
typedef struct hw_snapshot {
    size_t size;                        /* sizeof(hw_snapshot) */
    uint64_t memory_bytes;              /* resident */
    uint64_t processes;                 /* descendants, zombies included */
    uint64_t zombies;                   /* ended, and nobody has waited */
    uint64_t running_jobs;              /* as the callbacks said */
    uint64_t active_jobs;
    uint64_t threads;                   /* of this process */
    uint64_t cgroup_memory_bytes;       /* as judged */
    uint64_t cgroup_memory_raw_bytes;   /* with what would be dropped */
    uint64_t cgroup_memory_limit_bytes;
    uint64_t cgroup_pids;
    uint64_t cgroup_pids_limit;
    uint64_t open_files;
    uint64_t open_files_limit;
    double pressure_some_avg10;         /* percent; negative: not known */
    double pressure_full_avg10;
    uint64_t age_ns;                    /* since the reading was complete */
    uint64_t check_duration_ns;         /* how long the reading took */
    uint64_t lateness_ns;               /* how late it began */
} hw_snapshot;

#define HW_SNAPSHOT_INIT {sizeof(hw_snapshot), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, 0, 0}

/* Takes a check on the calling thread and publishes it. Needs no start. */
int hw_check_now(hw_monitor *monitor, hw_snapshot *snapshot);

/* The last snapshot that was published. Fails before the first. */
int hw_latest(const hw_monitor *monitor, hw_snapshot *snapshot);

typedef struct hw_snapshots hw_snapshots;

/* Every snapshot from now on. To be freed with hw_snapshots_free(). A reader
 * that falls 64 behind loses the oldest; no check waits for it. */
hw_snapshots *hw_snapshots_new(hw_monitor *monitor);

/*
 * Waits for the next snapshot, at most timeout_ms milliseconds. Returns 1 when
 * there was one, 0 when the time was over, -1 when the monitor is gone, or the
 * process was forked. One thread at a time waits at one handle.
 */
int hw_snapshots_wait(hw_snapshots *snapshots, uint64_t timeout_ms, hw_snapshot *snapshot);

/* How many were lost because this reader was slow. */
uint64_t hw_snapshots_missed(const hw_snapshots *snapshots);

void hw_snapshots_free(hw_snapshots *snapshots);

/* ---- shedding ---------------------------------------------------------- */

/*
 * The host's jobs. The functions are called from a thread of the library's,
 * one at a time; the two counts also from the thread that calls
 * hw_monitor_start() or hw_check_now(), which must not hold a lock that they
 * take. They may block and may call back into the library. Each may be NULL.
 * They must not throw or longjmp.
 */
typedef struct hw_callbacks {
    size_t size; /* sizeof(hw_callbacks) */
    void *user;  /* handed to each of them, and used by nothing else */
    uint64_t (*running_count)(void *user);
    uint64_t (*active_job_count)(void *user);
    /* Writes the name of the job to shed first, in UTF-8 and with its NUL, into
     * size bytes. Returns 0, or something else when there is no job. */
    int (*oldest_running_job)(void *user, char *job_id, size_t size);
    /* Both return 0, or something else when it cannot be done: after a pause
     * that cannot be done the job is cancelled. resource is HW_MEMORY, ... */
    int (*pause_job)(void *user, const char *job_id, int resource);
    int (*cancel_job)(void *user, const char *job_id, int resource);
    /* Everything is normal again after a shed. */
    void (*pressure_cleared)(void *user);
    /* None of them will be called again: user may be freed. Not called in a
     * forked child, for callbacks that were set before the fork. */
    void (*dropped)(void *user);
} hw_callbacks;

#define HW_CALLBACKS_INIT {sizeof(hw_callbacks), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/* Sets the callbacks, before or after a start, in place of those before. */
int hw_set_callbacks(hw_monitor *monitor, const hw_callbacks *callbacks);

#ifdef __cplusplus
}
#endif

#endif
