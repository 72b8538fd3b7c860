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
 *     hw_work work = HW_WORK_INIT;
 *     work.memory_bytes = UINT64_C(16) << 20;
 *     hw_permit *permit = hw_try_admit(monitor, &work);
 *     if (permit)
 *         start_next(permit); // hw_permit_free() once its memory is touched
 *     ...
 *     hw_monitor_free(monitor);
 *
 * hw_try_admit() counts what it has admitted; hw_is_accepting_work() is the
 * answer of the last check, which cannot have seen what was started since. It is
 * for readiness probes, and for a program that starts one thing at a time.
 *
 * Linking. cc program.c libhighwater.a -lpthread -ldl -lm, or -lhighwater. The
 * shared library must not be unloaded again. Valgrind calls some 50 bytes
 * possibly lost when the first thread has waited in the library, which are Rust's
 * record of that thread: --errors-for-leak-kinds=definite,indirect.
 *
 * Threads. Every function may be called from any thread, at the same time as
 * any other, but for the one that frees a handle: that must be the last call
 * with it. No function may be called from a signal handler.
 *
 * Errors. A function that returns int returns -1 when it fails, and one that
 * returns a pointer returns NULL; both leave a text for hw_last_error(). 0, or
 * more where its comment says so, is success. NULL in place of a monitor is one
 * that accepts no work: to ask it is no error, to do something with it is one,
 * and to stop or free it does nothing. Nothing throws, and nothing aborts but
 * for want of memory.
 *
 * Ownership. What a function returns as a pointer to a handle is the caller's
 * to free with the function that its comment names. Strings and structs that
 * are passed in are copied and stay the caller's.
 *
 * Structs. Each begins with its size, set by the caller (the INIT macros do),
 * and grows at its end: a program that was compiled against this version works
 * with later ones. With an earlier one, a field that it does not know must be
 * zero, or the call fails, and is left as it is where the library fills it. A
 * size that cannot be right, like 0, fails.
 *
 * Descriptors. A monitor keeps at most 16, close-on-exec, from its first check
 * until it is freed.
 *
 * fork(). In a forked child the gate is closed until the child calls
 * hw_check_now() or hw_monitor_start() itself. Every handle is good there, and
 * is the child's own to free; limits, log and callbacks are those of the fork,
 * what the parent's permits had reserved is not, and hw_snapshots of the
 * parent's have ended. No thread, lock or descriptor of the parent's is used.
 * Inherited callbacks shed the parent's jobs: a child that is to start the
 * monitor sets its own, or none, before. Of an inherited monitor, memory and
 * descriptors stay until the process ends, freed or not, because a thread of
 * the parent's may have held them; a child that lives on and forks in its turn
 * makes a monitor of its own.
 *
 * Order. A program that does all of it calls daemon(), then
 * hw_monitor_start(), then chroot(), then setuid(): what the first check opens
 * is kept, and stays readable behind another root and for another user. If
 * daemon() comes after the start, the child has to start the monitor once more,
 * and must still see /proc and the control groups then.
 *
 * Cancellation. No function is a cancellation point, whatever it calls: a
 * thread is cancelled before or after it. A callback runs with the cancelability
 * of the thread that it is called on, and must not be cancelled in the middle:
 * one that prints, reads or waits disables cancellation around that. errno is
 * left as it was.
 *
 * Environment. MEMORY_PRESSURE_WATCH and MEMORY_PRESSURE_WRITE are read by
 * hw_monitor_new(), and by nothing else; in a program that was given privileges
 * (set-user-ID, file capabilities) not at all.
 *
 * Signals. No function raises one. The threads of the library block every signal but the synchronous
 * faults. Callbacks run under the signal mask of the thread that last called
 * hw_monitor_start() or hw_set_callbacks(). No signal handler is installed, and
 * no child is ever waited for.
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

/* Watched quantities, as callbacks name them. Later versions may have more. */
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
 * Why the last call that failed on this thread has failed; a success changes
 * nothing. Never NULL; empty when none has. The text is in one place for as
 * long as the thread lives, and overwritten by its next failure.
 */
const char *hw_last_error(void);

enum {
    HW_FAILED = 1,     /* something could not be done or read */
    HW_INVALID = 2,    /* an argument that makes no sense */
    HW_REFUSED = 3,    /* hw_try_admit(): not now */
    HW_NEVER_FITS = 4, /* hw_try_admit(): never, under these limits */
    HW_ENDED = 5       /* hw_snapshots_wait(): there will be no more */
};

/* The same as a number; 0 when none has failed. */
int hw_last_error_code(void);

/* ---- the log ----------------------------------------------------------- */

enum { HW_LOG_ERROR = 1, HW_LOG_WARN = 2, HW_LOG_INFO = 3, HW_LOG_DEBUG = 4, HW_LOG_TRACE = 5 };

/*
 * Where the library's log goes, which is nowhere until this was called: to
 * write(), once per line, with user, the level, and a text without a newline: a
 * message and then key=value pairs, of which the first is event=monitor.started
 * and so on. Lines above level are left out. It is called from any thread, from
 * several at once, and may call any function of the library but one that frees
 * the monitor, which may be what writes the line; it must not throw, longjmp, or
 * end the thread. Once per process, and for as long as that lives; fails when
 * the log is set already.
 */
int hw_set_log(void (*write)(void *user, int level, const char *line), void *user, int level);

/* ---- limits ------------------------------------------------------------ */

/* Limits. A limit of 0 is none. Thresholds are in percent of each limit, and
 * reached at or above it; resume < warn < hard <= 100. */
typedef struct hw_limits {
    size_t size;                       /* sizeof(hw_limits) */
    uint64_t max_memory_bytes;         /* resident memory of this process */
    uint64_t max_processes;            /* descendants at any depth */
    uint64_t max_open_files;           /* RLIMIT_NOFILE holds in any case */
    uint32_t max_pressure_percent;     /* memory pressure, some avg10 */
    uint32_t warn_percent;             /* the gate closes there; 0 means 80 */
    uint32_t hard_percent;             /* work is shed there; 0 means 95 */
    uint32_t resume_percent;           /* once closed, open below it; 0: none */
} hw_limits;

#define HW_LIMITS_INIT {sizeof(hw_limits), 0, 0, 0, 0, 0, 0, 0}

/*
 * Fills every limit that is 0 and that the surroundings have: control groups,
 * the machine's memory, rlimits. Reads a few files. On an error the struct is
 * as it was; what cannot be read is left at 0, and it is one only when nothing
 * can be read. The limits of control groups hold whether or not this was called:
 * max_memory_bytes that is the limit of a group is held against what is charged
 * to the group, and not against resident memory, in which the pages of mapped
 * files count; and so it is with max_processes and the tasks of a group.
 */
int hw_limits_detect(hw_limits *limits);

/* ---- the monitor ------------------------------------------------------- */

typedef struct hw_monitor hw_monitor;

/* A monitor with these limits, or with none for NULL. Nothing is started yet.
 * To be freed with hw_monitor_free(). */
hw_monitor *hw_monitor_new(const hw_limits *limits);

/*
 * Stops the monitor and frees it. NULL is fine. Permits and snapshots that it
 * has given stay good and are freed on their own. A callback may still be
 * running afterwards, see hw_callbacks.
 */
void hw_monitor_free(hw_monitor *monitor);

/*
 * Takes the first check on the calling thread, then starts the thread that
 * checks every interval_ms milliseconds; sooner when usage climbs towards a
 * limit, and within 100 ms when somebody asks the gate. But checking takes at
 * most a hundredth of one core: after a check that took 5 ms of it, as one of a
 * deep tree of thousands does, the next comes 500 ms later. Before the first
 * check every process on the machine is read once, some 10 us each.
 * A first check that failed is no error: the gate is closed, and the thread
 * keeps trying. Does nothing when it runs; after a stop it starts anew. Fails
 * for an interval of 0, or when there can be no thread.
 */
int hw_monitor_start(hw_monitor *monitor, uint64_t interval_ms);

/* Closes the gate until the next start, and ends the threads. It waits at most
 * 100 ms for a callback that is running. Any number of times. */
void hw_monitor_stop(hw_monitor *monitor);

/* Replaces the limits; the gate follows at once. On an error, which NULL is,
 * the old ones stay. */
int hw_update_limits(hw_monitor *monitor, const hw_limits *limits);

/* ---- the gate ---------------------------------------------------------- */

/*
 * Whether new work should be accepted: a few loads and a clock read. It waits
 * for nobody. Of the callers that find the last check older than 100 ms, or what
 * a hundredth of one core makes of it, one takes the next on its own thread, if
 * the last cost at most 1 ms: what a rare caller is told is true now.
 * False when usage, with what permits reserve, is at the warning threshold of
 * any limit; for NULL, before the first check that succeeded, after one that
 * failed, after a stop, in a forked child; and when the last check is older than
 * 2 s and three times what there is between checks at the most: the interval, or
 * what a hundredth of one core makes of it.
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
 * Admits a piece of work, or returns NULL with the reason in hw_last_error():
 * HW_REFUSED and HW_NEVER_FITS are answers, everything else is a mistake. It is
 * admitted if the gate is open and the work, on top of what is measured and
 * reserved, stays below the hard threshold of every limit. NULL for the work is
 * work that adds nothing.
 * The cost is reserved until the first good check after the permit was freed:
 * free it with hw_permit_free() when all that was declared can be seen (forked,
 * allocated), or when the work has ended. Until that check it may be counted
 * twice, measured and reserved.
 * When the last check is more than 100 ms old (or what a hundredth of one core
 * makes of it), this takes one on the calling thread, or waits for another
 * thread's. Before the first check everything is refused.
 */
hw_permit *hw_try_admit(hw_monitor *monitor, const hw_work *work);

/* Gives a permit back. NULL is fine; after hw_monitor_free(), too. */
void hw_permit_free(hw_permit *permit);

/* ---- snapshots --------------------------------------------------------- */

/* What a check found. HW_NONE: it could not be read, or is not there, as the
 * fields of a control group without any limit. */
typedef struct hw_snapshot {
    size_t size;                        /* sizeof(hw_snapshot) */
    uint64_t memory_bytes;              /* resident */
    uint64_t processes;                 /* descendants, zombies included */
    uint64_t zombies;                   /* ended, and nobody has waited */
    uint64_t running_jobs;              /* as the callbacks said */
    uint64_t active_jobs;
    uint64_t threads;                   /* of this process */
    uint64_t cgroup_memory_bytes;       /* of the group with least room left */
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

/* In what follows, NULL for the snapshot is fine: nothing is told of it. */

/*
 * Takes a check on the calling thread and publishes it. Needs no start: the gate
 * follows it for 2 s at least. After a stop it opens no gate. A check that found something
 * unreadable is no error of this function: the fields say HW_NONE, and the
 * verdict says why.
 */
int hw_check_now(hw_monitor *monitor, hw_snapshot *snapshot);

/* The last snapshot that was published. Fails before the first. */
int hw_latest(const hw_monitor *monitor, hw_snapshot *snapshot);

typedef struct hw_snapshots hw_snapshots;

/*
 * Every snapshot from now on, each after the gate has followed it. To be freed
 * with hw_snapshots_free(). A reader that falls 64 behind loses the oldest; no
 * check waits for it. To wait is not to ask the gate: it brings no check
 * forward. For what is so now, and not what was, take hw_latest().
 */
hw_snapshots *hw_snapshots_new(hw_monitor *monitor);

/*
 * Waits for the next snapshot, at most timeout_ms milliseconds. Returns 1 when
 * there was one, 0 when the time was over, -1 with HW_ENDED when the monitor was
 * freed and nothing is left to be read, or the process was forked. After a stop
 * it waits. Of several threads that wait at one handle, one gets each snapshot.
 */
int hw_snapshots_wait(hw_snapshots *snapshots, uint64_t timeout_ms, hw_snapshot *snapshot);

/* How many were lost because this reader was slow. */
uint64_t hw_snapshots_missed(const hw_snapshots *snapshots);

/* NULL is fine; after hw_monitor_free(), too. */
void hw_snapshots_free(hw_snapshots *snapshots);

/* ---- shedding ---------------------------------------------------------- */

/* Room for the name of a job, with its NUL. */
#define HW_JOB_ID_SIZE 256

/*
 * The host's jobs, for a started monitor to shed when a limit's hard threshold
 * is reached: the oldest is paused; if that did not help after one interval, or
 * cannot be done, it is cancelled; then the next one, an interval later, until
 * usage is below the hard threshold. So a paused job stays the oldest one until
 * it has ended. When every limit is below its warning threshold again,
 * pressure_cleared() is called: let paused jobs go on there.
 *
 * The functions are called from a thread of the library's, one at a time; the
 * two counts also from the thread that calls hw_monitor_start() or
 * hw_check_now(), and dropped() from whichever thread lets go last, which may be
 * one in hw_set_callbacks() or hw_monitor_free(): none of these may hold a lock
 * that they take. Each may be NULL.
 * They may block, and may call any function of the library, with these
 * exceptions: the counts must not free the monitor, and dropped() must not use
 * it. They must not throw, longjmp, or end the thread.
 *
 * One that is running when the callbacks are replaced, or the monitor is freed,
 * runs on. So free what user points to in dropped() and nowhere else; and where
 * callbacks use the monitor, take them away and wait for dropped() before
 * freeing it.
 */
typedef struct hw_callbacks {
    size_t size; /* sizeof(hw_callbacks) */
    void *user;  /* handed to each of them, and used by nothing else */
    /* Jobs that run, and units of work in them: for snapshots, and no more. */
    uint64_t (*running_count)(void *user);
    uint64_t (*active_job_count)(void *user);
    /* Writes the name of the job to shed first, in UTF-8 and with its NUL, into
     * job_id, which has HW_JOB_ID_SIZE bytes. Returns 0, or something else when
     * there is no job; what is no such name is no job either. */
    int (*oldest_running_job)(void *user, char *job_id, size_t size);
    /* Both return 0, or something else when it cannot be done, as when pausing
     * would free nothing of resource, which is HW_MEMORY, ... */
    int (*pause_job)(void *user, const char *job_id, int resource);
    int (*cancel_job)(void *user, const char *job_id, int resource);
    /* Everything is normal again after a shed. */
    void (*pressure_cleared)(void *user);
    /* None of them is running or will be called again. Once for all callbacks
     * that hw_set_callbacks() has set, but not in a forked child for those that
     * were set before the fork. */
    void (*dropped)(void *user);
} hw_callbacks;

#define HW_CALLBACKS_INIT {sizeof(hw_callbacks), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/* Sets the callbacks, before or after a start, in place of those before; NULL
 * takes them away. */
int hw_set_callbacks(hw_monitor *monitor, const hw_callbacks *callbacks);

#ifdef __cplusplus
}
#endif

#endif
