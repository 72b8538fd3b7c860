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
 *     hw_permit *permit = hw_admit(monitor, &work, 2000);
 *     if (permit) {
 *         serve();
 *         hw_permit_finish(permit);
 *     } else {
 *         answer_busy(hw_last_error());
 *     }
 *     ...
 *     hw_monitor_free(monitor);
 *
 * hw_admit() waits for room, hw_try_admit() does not; both count what they have
 * admitted. hw_is_accepting_work() is the answer of the last check, which cannot
 * have seen what was started since. It is for readiness probes, and for a program
 * that starts one thing at a time.
 *
 * Linking. cc program.c libhighwater.a -lpthread -ldl -lm, or -lhighwater. The
 * shared library must not be unloaded again. Valgrind calls some 50 bytes
 * possibly lost when the first thread has waited in the library, which are Rust's
 * record of that thread: --errors-for-leak-kinds=definite,indirect.
 *
 * Threads. Every function may be called from any thread, at the same time as
 * any other, but for the one that frees a handle: that must be the last call
 * with it. So before a monitor is freed, hw_monitor_stop() ends every wait in
 * hw_admit(), and the threads that waited are to have returned. No function may
 * be called from a signal handler.
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
 * until it is freed; jobs keep one for each that runs, and those of their output.
 *
 * fork(). In a forked child the gate is closed until the child calls
 * hw_check_now() or hw_monitor_start() itself. Every handle is good there, and
 * is the child's own to free; limits, settings, log and callbacks are those of
 * the fork, what the parent's permits had reserved is not, nobody waits, and
 * hw_snapshots of the parent's have ended. A permit of the parent's stands for
 * nothing in the child, however it is given back there. No thread, lock or
 * descriptor of the parent's is used.
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
 * and must still see /proc and the control groups then. At the end: stop the
 * monitor, join the threads that wait, give the permits back, free the monitor.
 *
 * Cancellation. No function is a cancellation point, whatever it calls: a
 * thread is cancelled before or after it. A callback runs with the cancelability
 * of the thread that it is called on, and must not be cancelled in the middle:
 * one that prints, reads or waits disables cancellation around that. errno is
 * left as it was. Nor is a wait in hw_admit() or hw_jobs_wait() such a point: the thread is
 * cancelled once it has returned, be it by room, the timeout or a stop. A permit
 * that it holds then is given back by a cleanup handler, and no room is lost:
 *
 *     static void give_back(void *permit) { hw_permit_finish(*(hw_permit **)permit); }
 *     ...
 *     hw_permit *permit = NULL;
 *     pthread_cleanup_push(give_back, &permit);
 *     permit = hw_admit(monitor, &work, 2000);
 *     ...
 *     pthread_cleanup_pop(1);
 *
 * So a thread that others cancel and join waits with a timeout, and not with
 * HW_FOREVER. A thread with PTHREAD_CANCEL_ASYNCHRONOUS calls no function at all.
 *
 * Environment. MEMORY_PRESSURE_WATCH and MEMORY_PRESSURE_WRITE are read when a
 * monitor is made; in a program that was given privileges
 * (set-user-ID, file capabilities) not at all. A job without an environment of its
 * own gets a copy of the host's. Nothing else is read.
 *
 * Signals. No function raises one in this process; jobs are ended by signals. The threads of the library block every signal but the synchronous
 * faults. Callbacks run under the signal mask of the thread that last called
 * hw_monitor_start() or hw_set_callbacks(). No signal handler is installed, and
 * no child is ever waited for but those of hw_jobs.
 */
#ifndef HIGHWATER_H
#define HIGHWATER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In a snapshot or a reason: it could not be read, or there is no such limit
 * here. In settings: zero, where 0 is the default. */
#define HW_NONE UINT64_MAX

/* As a timeout: none. */
#define HW_FOREVER UINT64_MAX

/* Watched quantities, as callbacks and reasons name them. Later versions may have
 * more, but no more than HW_MOST_RESOURCES. */
enum {
    HW_MEMORY = 0,
    HW_PROCESSES = 1,
    HW_CGROUP_MEMORY = 2,
    HW_CGROUP_PIDS = 3,
    HW_OPEN_FILES = 4,
    HW_MEMORY_PRESSURE = 5,
    HW_CPU_PRESSURE = 6,
    HW_IO_PRESSURE = 7,
    HW_MACHINE_MEMORY = 8,
    HW_DISK_SPACE = 9,
    HW_GAUGE = 24 /* the first of eight: the host's own, see hw_gauge_new() */
};

#define HW_MOST_RESOURCES 32

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
    HW_REFUSED = 3,    /* an admission: not now */
    HW_NEVER_FITS = 4, /* an admission: never, under these limits */
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
 * reached at or above it; resume < warn < hard <= 100. A floor is what is to be
 * left of all that there is, whoever uses the rest: it is the warning threshold
 * of its resource, half of it is the hard one, and there are no percentages. */
typedef struct hw_limits {
    size_t size;                       /* sizeof(hw_limits) */
    uint64_t max_memory_bytes;         /* resident memory of this process */
    uint64_t max_processes;            /* descendants at any depth */
    uint64_t max_open_files;           /* RLIMIT_NOFILE holds in any case */
    uint32_t max_pressure_percent;     /* memory pressure, some avg10 */
    uint32_t warn_percent;             /* the gate closes there; 0 means 80 */
    uint32_t hard_percent;             /* work is shed there; 0 means 95 */
    uint32_t resume_percent;           /* once closed, open below it; 0: none */
    uint64_t background_percent;       /* HW_CLASS_BACKGROUND is refused there;
                                          0: 20 below warn_percent */
    const char *disk_path;             /* an absolute path, copied, into the file
                                          system that has a floor */
    uint64_t min_free_disk_bytes;      /* that floor; 0: the path means nothing */
    uint64_t min_available_memory_bytes; /* the floor of the machine's memory:
                                          MemAvailable of /proc/meminfo */
    uint64_t max_cpu_pressure_percent; /* of the time since an earlier check, at
                                          least half a second ago, in which some
                                          task waited for a CPU */
    uint64_t max_io_pressure_percent;  /* the same, for a block device */
    /* Thresholds of one resource, by its number: warn_percent_of[HW_PROCESSES]. Of
     * a gauge: of whichever has that number. 0: that of all resources, above. */
    uint8_t warn_percent_of[HW_MOST_RESOURCES];
    uint8_t hard_percent_of[HW_MOST_RESOURCES];
} hw_limits;

#define HW_LIMITS_INIT {sizeof(hw_limits), 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, 0, {0}, {0}}

/*
 * Fills every limit that is 0 and that the surroundings have: control groups,
 * the machine's memory, of which a tenth is to stay available, rlimits. Reads a few files. On an error the struct is
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

/* The processes whose resident memory is held against max_memory_bytes. */
enum {
    HW_SCOPE_OWN = 0, /* this process alone */
    HW_SCOPE_TREE = 1 /* with every descendant */
};

/*
 * Reservations that several processes of one container share, so that what each of
 * them promises counts in the admission of all: the workers of a server that forks
 * them, or programs that open the same file. At most 256 processes share one. From
 * the first check of its monitor on a process has a place in it; when it ends,
 * however it does, its part is free within one check of any other.
 *
 * A ledger that cannot be used, because it is full, damaged, or its descriptor was
 * closed, keeps the gate closed, and the verdict says why. To open and close its
 * file beside the library gives the place of the process away.
 */
typedef struct hw_ledger hw_ledger;

/* A ledger without a name, for this process and those forked from it. NULL: failed. */
hw_ledger *hw_ledger_create(void);

/* The ledger at this path, made if nothing is there, for this user alone. NULL: failed; what
 * is there is no ledger, damaged, of another version, another user's, or others may
 * write it. */
hw_ledger *hw_ledger_open(const char *path);

/* NULL is fine. Monitors that were given it keep it. */
void hw_ledger_free(hw_ledger *ledger);

/* The settings that are fixed for the life of a monitor. Of each number 0 is the
 * default, and HW_NONE is zero. Strings are copied. */
typedef struct hw_settings {
    size_t size;               /* sizeof(hw_settings) */
    uint64_t max_age_ms;       /* a check that is older closes the gate; 0: see
                                  hw_is_accepting_work() */
    uint64_t refresh_after_ms; /* a caller who finds the last check older has one
                                  taken; 0: 100. HW_NONE: as often as cpu_budget
                                  allows */
    uint64_t settle_ms;        /* what a shed is given to take effect, and how long
                                  a level has been normal before the log says so;
                                  0: one interval */
    uint64_t inline_check_us;  /* CPU time of a check that a caller takes by itself
                                  at the most; 0: 1000. HW_NONE: takes none */
    uint64_t overtaking_times; /* so often is one that waits passed by work that
                                  fits; 0: 16. HW_NONE: never */
    uint64_t overtaking_ms;    /* and for so long; 0: 5000 */
    uint64_t memory_scope;     /* HW_SCOPE_OWN, HW_SCOPE_TREE */
    uint64_t ignored;          /* resources that are neither read nor judged, such as
                                  UINT64_C(1) << HW_CGROUP_PIDS; not HW_MEMORY
                                  and HW_PROCESSES */
    double cpu_budget;         /* share of one core that checking may take, at most
                                  1; 0: 0.01 */
    const char *proc_root;     /* NULL: "/proc" */
    const char *cgroup_root;   /* NULL: "/sys/fs/cgroup" */
    uint64_t return_freed_memory; /* 1: from the first start on, glibc's allocator
                                  gives freed blocks of 1 MiB or more back to the
                                  system, in the whole process, by mallopt(3) of
                                  M_MMAP_THRESHOLD and M_TRIM_THRESHOLD. Without
                                  it, blocks of up to 32 MiB stay with the thread
                                  that freed them, and count as used. No effect
                                  under another allocator */
    const hw_ledger *ledger;   /* NULL: none; the monitor keeps it, freed or not.
                                  A monitor in HW_SCOPE_TREE watches over the
                                  others: its limit is theirs, and its closed gate
                                  closes those of the processes below it */
} hw_settings;

#define HW_SETTINGS_INIT {sizeof(hw_settings), 0, 0, 0, 0, 0, 0, 0, 0, 0.0, NULL, NULL, 0, NULL}

/* As hw_monitor_new(), with these settings, or the defaults for NULL. */
hw_monitor *hw_monitor_new_with(const hw_limits *limits, const hw_settings *settings);

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

/* Closes the gate until the next start, ends every wait for room, and ends the
 * threads. It waits at most 100 ms for a callback that is running. Any number of
 * times. */
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

/*
 * How full it is: the largest share of its warning threshold that a resource,
 * measured and reserved, has reached. 1.0 and more is closed; infinity is not
 * known, as for NULL. As young as the answer of hw_is_accepting_work(), and as
 * cheap.
 */
double hw_pressure(const hw_monitor *monitor);

/* The amounts that stand against the limit of one resource: bytes, counts, or
 * hundredths of a percent. */
typedef struct hw_usage {
    uint64_t measured; /* by the last check; HW_NONE: it was not read */
    uint64_t reserved; /* by permits, beyond what is measured */
    uint64_t asked;    /* by work that was refused as too much */
    uint64_t limit;    /* HW_NONE: none, or another resource's is judged for it */
    uint64_t floor;    /* that is to be left of the limit, which is then all that
                          there is; HW_NONE: thresholds are percentages */
} hw_usage;

/* A verdict as numbers. */
typedef struct hw_reason {
    size_t size;              /* sizeof(hw_reason) */
    uint32_t accepting;       /* 1 or 0 */
    uint32_t could_never_fit; /* 1: waiting does not help */
    int64_t resource;         /* HW_MEMORY, ...: what closed the gate, or what the
                                 work would have exhausted; -1: anything else, such as
                                 a stop, a stale check, or others that wait */
    uint64_t waited_ns;       /* in vain, by hw_admit() */
    uint64_t ahead;           /* would have been served before it */
    hw_usage usage[HW_MOST_RESOURCES]; /* by resource: usage[HW_MEMORY], ... */
} hw_reason;

#define HW_REASON_INIT {sizeof(hw_reason), 0, 0, -1, 0, 0, {{0, 0, 0, 0, 0}}}

/* The state of the gate as numbers, as hw_verdict() has it as a text. */
int hw_verdict_reason(const hw_monitor *monitor, hw_reason *reason);

/* Why work was last refused on this thread, as hw_last_error() said it; a success
 * changes nothing. Fails before the first refusal. NULL is filled with nothing. */
int hw_last_refusal(hw_reason *reason);

/* ---- admission --------------------------------------------------------- */

/* The importance of work: which is refused first, and which of those that wait is
 * served first. */
enum {
    HW_CLASS_BACKGROUND = -1, /* refused from background_percent on */
    HW_CLASS_NORMAL = 0,      /* refused from warn_percent on */
    HW_CLASS_CRITICAL = 1     /* refused from hard_percent on only */
};

#define HW_MOST_GAUGES 8

/*
 * A quantity that only the host knows, such as connections or licences: pushed by
 * the host, and judged like what is read, by the thresholds of all resources. Any
 * thread may update it; an update is one atomic operation, and the gate sees it at
 * once. It outlives its monitor, and then counts for nothing, as it does in a forked
 * child: that makes another. NULL has no value, and to update it does nothing.
 */
typedef struct hw_gauge hw_gauge;

/* A gauge with a limit, both in a unit of the host's. It begins at 0. Fails if the
 * name is not of 1 to 63 lower-case letters, digits and underscores, or is another
 * gauge's or a resource's, if the gauge would be the monitor's ninth, or if the limit
 * is 0. The name is copied once and kept: a process can have 256 different ones. To be
 * freed with hw_gauge_free(). */
hw_gauge *hw_gauge_new(hw_monitor *monitor, const char *name, uint64_t limit);

/* Takes it out of the judgement. NULL is fine; after hw_monitor_free(), too. */
void hw_gauge_free(hw_gauge *gauge);

/* Adds to it. It may go beyond its limit. */
void hw_gauge_add(const hw_gauge *gauge, uint64_t amount);

/* Takes off what was added, and serves those that wait for it. More than there is
 * makes the value 0 until as much was added again: of two threads, either may come
 * first. */
void hw_gauge_sub(const hw_gauge *gauge, uint64_t amount);

/* Replaces the value, at most 2^48 - 1. */
void hw_gauge_set(const hw_gauge *gauge, uint64_t value);

uint64_t hw_gauge_get(const hw_gauge *gauge);

/* Its number in reasons, snapshots and callbacks, HW_GAUGE to HW_GAUGE + 7; -1 for
 * NULL. The number of a gauge that was freed may become another's. */
int hw_gauge_resource(const hw_gauge *gauge);

/* What a piece of work will add to a gauge, which stays reserved while the permit
 * lives, attached or not. */
typedef struct hw_gauge_amount {
    const hw_gauge *gauge; /* not freed; NULL: none. Another monitor's counts for
                              nothing */
    uint64_t amount;
} hw_gauge_amount;

/* Room for a label, with its NUL. */
#define HW_LABEL_SIZE 64

/* What a piece of work will add, and whose it is. */
typedef struct hw_work {
    size_t size; /* sizeof(hw_work) */
    uint64_t memory_bytes;
    uint64_t processes;
    uint64_t open_files;
    /* The name of its kind in verdicts, in the log and among the holders, such as
     * "thumbnail"; NULL for none. Copied once and kept: a program has few. A text
     * of more than HW_LABEL_SIZE - 1 bytes is cut off, and after 256 labels every
     * new one is "others". */
    const char *label;
    int64_t work_class; /* HW_CLASS_NORMAL, ... */
    uint64_t disk_bytes; /* what it will write where disk_path of the limits leads;
                            reserved while the permit lives, attached or not */
    hw_gauge_amount gauges[HW_MOST_GAUGES]; /* in any order; amounts of the same one
                                               add up */
} hw_work;

#define HW_WORK_INIT {sizeof(hw_work), 0, 0, 0, NULL, 0, 0, {{NULL, 0}}}

/*
 * Leave for a piece of work. Its cost is reserved until the permit is given back,
 * by one of two calls which say different things:
 *
 *     hw_permit_finish()  the work has ended, and nothing of it is left: a
 *                         request, whose memory is freed. Its room is free at
 *                         once.
 *     hw_permit_free()    all that was declared can be seen by a check from now
 *                         on: memory that is touched, and will be for long. It
 *                         is reserved until the first good check after that.
 *
 * A permit that is held longer counts its work twice, measured and reserved,
 * unless the work is a process that it is attached to.
 */
typedef struct hw_permit hw_permit;

/*
 * Admits a piece of work, or returns NULL with the reason in hw_last_error() and
 * hw_last_refusal(): HW_REFUSED and HW_NEVER_FITS are answers, everything else is
 * a mistake. It is admitted if the gate is open to its class and the work, on top
 * of what is measured and reserved, stays below the hard threshold of every
 * limit, and if it passes nobody that waits and may not be passed. NULL for the
 * work is work that adds nothing.
 * When the last check is more than 100 ms old (or what a hundredth of one core
 * makes of it), this takes one on the calling thread, or waits for another
 * thread's. Before the first check everything is refused.
 */
hw_permit *hw_try_admit(hw_monitor *monitor, const hw_work *work);

/*
 * As hw_try_admit(), but waits until the work is admitted, for at most timeout_ms
 * milliseconds: 0 is hw_try_admit(), HW_FOREVER waits as long as it takes.
 * First come, first served within a class, the more important class first. Work
 * that fits may pass work that does not, until that has been passed 16 times or
 * has waited for 5 s. Whatever makes room hands it over to those that fit, and
 * wakes exactly them.
 * Refused at once, or as soon as it is so, where waiting cannot help: it could
 * never fit, or does not any more under new limits; the monitor is stopped, or
 * was never started and has never checked; this process was forked. The reason
 * of a refusal at the deadline says who holds the room.
 */
hw_permit *hw_admit(hw_monitor *monitor, const hw_work *work, uint64_t timeout_ms);

/* Waits until the gate is open, as hw_admit() does for work that adds nothing, and
 * keeps nothing. 0, or -1 with HW_REFUSED. */
int hw_wait_until_accepting(hw_monitor *monitor, uint64_t timeout_ms);

/* Gives a permit back; see hw_permit. NULL is fine; after hw_monitor_free(), too. */
void hw_permit_free(hw_permit *permit);

/* Gives a permit back, and its room at once; see hw_permit. NULL is fine; after
 * hw_monitor_free(), too. */
void hw_permit_finish(hw_permit *permit);

/*
 * Says that the work is the process pid, a descendant of this one, and everything
 * below it. From now on reserved is what was declared beyond what a check has
 * measured of them, in memory and in processes: the permit may live as long as
 * the work, and nothing counts twice. Once the process has ended nothing is
 * reserved; its exit status is left for whoever waits for it. Fails, and leaves
 * the permit as it was, for a process that is not there, is no descendant, or has
 * another permit, and for a permit that is attached already.
 */
int hw_permit_attach(hw_permit *permit, pid_t pid);

/* What the process that a permit is attached to, and everything below it, uses. */
typedef struct hw_work_usage {
    size_t size;                /* sizeof(hw_work_usage) */
    uint64_t memory_bytes;      /* resident; shared pages count for each */
    uint64_t processes;         /* zombies included */
    uint64_t peak_memory_bytes; /* the largest that a check saw */
    uint64_t peak_processes;
} hw_work_usage;

#define HW_WORK_USAGE_INIT {sizeof(hw_work_usage), 0, 0, 0, 0}

/* As the last check saw it. Fails before one has, and for a permit that is not
 * attached. NULL is filled with nothing. */
int hw_permit_usage(const hw_permit *permit, hw_work_usage *usage);

/* A permit that lives. */
typedef struct hw_holder {
    size_t size;                /* sizeof(hw_holder) */
    uint64_t memory_bytes;      /* as it was declared */
    uint64_t processes;
    uint64_t open_files;
    int64_t work_class;
    uint64_t held_for_ns;
    int64_t pid;                /* that it is attached to; 0: none */
    char label[HW_LABEL_SIZE];  /* empty: none */
    uint64_t disk_bytes;
    uint64_t gauges[HW_MOST_GAUGES]; /* by hw_gauge_resource() - HW_GAUGE */
} hw_holder;

/*
 * Every permit that lives, the one held longest first: who holds the room, and
 * since when. Fills at most length of them, an array whose first element has its
 * size set: HW_HOLDER_INIT will do for all of it. Returns how many there are, which
 * may be more. With a length of 0, holders may be NULL.
 */
int hw_holders(const hw_monitor *monitor, hw_holder *holders, size_t length);

#define HW_HOLDER_INIT {sizeof(hw_holder), 0, 0, 0, 0, 0, 0, {0}, 0, {0}}

/* How many threads wait in hw_admit() now. */
uint64_t hw_waiters(const hw_monitor *monitor);

/* ---- snapshots --------------------------------------------------------- */

/* What a check found. HW_NONE: it could not be read, or is not there, as the
 * fields of a control group without any limit. */
typedef struct hw_snapshot {
    size_t size;                        /* sizeof(hw_snapshot) */
    uint64_t memory_bytes;              /* resident, in the scope of the settings */
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
    double cpu_pressure_percent;        /* of the time since an earlier check;
                                           negative: not known */
    double io_pressure_percent;         /* of disks, in the same way */
    uint64_t machine_available_bytes;   /* MemAvailable, whoever uses the rest */
    uint64_t machine_total_bytes;
    uint64_t disk_free_bytes;           /* of the file system with a floor */
    uint64_t disk_total_bytes;
    int64_t full_resource;              /* HW_MEMORY, ...: used up first, as things
                                           go; -1: nothing grows */
    uint64_t full_soonest_ns;           /* at the fastest rate of late */
    uint64_t full_at_mean_ns;           /* at the mean one */
} hw_snapshot;

#define HW_SNAPSHOT_INIT {sizeof(hw_snapshot), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, 0, 0, 0.0, 0.0, 0, 0, 0, 0, -1, HW_NONE, HW_NONE}

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
 * is reached. First reclaim() is asked for what the host can spare. Then the
 * oldest job is paused; if that did not help after one interval, or cannot be
 * done, it is cancelled; then the next one, an interval later, until usage is
 * below the hard threshold, or three in a row have not brought it down by a
 * hundredth of the limit. So a paused job stays the oldest one until it has
 * ended. When every limit is below its warning threshold again,
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
    /* Gives back what the host can spare of resource: caches, idle connections,
     * memory that an allocator keeps. Asked once before the first job is shed
     * for it, until every limit is below its warning threshold again. Returns 1
     * if that takes effect: nothing is shed for one settle time. Returns 0 if
     * there was nothing to give back. */
    int (*reclaim)(void *user, int resource);
} hw_callbacks;

#define HW_CALLBACKS_INIT {sizeof(hw_callbacks), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/* Sets the callbacks, before or after a start, in place of those before; NULL
 * takes them away. */
int hw_set_callbacks(hw_monitor *monitor, const hw_callbacks *callbacks);

/* ---- jobs -------------------------------------------------------------- */

/*
 * Programs that are run under the limits of a monitor, as many at a time as fit:
 * each is admitted by what it declares or by what others of its kind have cost,
 * whichever is more, and has a permit for as long as anything of it is left. One
 * that is shed, or killed by the kernel for want of memory, is run again, alone.
 *
 *     hw_settings settings = HW_SETTINGS_INIT;
 *     settings.memory_scope = HW_SCOPE_TREE;
 *     hw_monitor *monitor = hw_monitor_new_with(&limits, &settings);
 *     hw_jobs *jobs = hw_jobs_new(monitor, NULL);
 *     ...
 *     char *argv[] = {"cc", "-c", "a.c", NULL};
 *     uint64_t id;
 *     hw_outcome outcome = HW_OUTCOME_INIT;
 *     if (hw_jobs_spawn(jobs, argv, NULL, &id) == 0 && hw_jobs_wait(jobs, id, HW_FOREVER, &outcome) == 1)
 *         printf("%s after %d tries\n", outcome.text, (int)outcome.tries);
 *     ...
 *     hw_jobs_free(jobs);
 *     hw_monitor_free(monitor);
 *
 * They are the callbacks of their monitor: those of hw_set_callbacks() are taken
 * away, and are not to be set again. A monitor has one hw_jobs. Nothing is
 * started before the monitor has checked, or while it is stopped.
 *
 * Processes. The process becomes a child subreaper: what a job leaves behind, and
 * what other children of the host leave behind, become children of the host; those
 * of a job are told to end. Jobs have one thread, and a descriptor for each that
 * runs. A host that waits for any child, by waitpid(-1) or by ignoring SIGCHLD,
 * takes the exit statuses of its jobs: HW_OUTCOME_LOST.
 *
 * Threads. As for all handles: any of them, at the same time. Before the jobs are
 * freed, hw_jobs_cancel_all() ends every wait, and the threads that waited are to
 * have returned.
 *
 * fork(). In a forked child each of these functions fails, but for the counts,
 * which are 0, and hw_jobs_free(), which leaves the jobs to the parent. A child
 * makes a monitor and jobs of its own.
 */
typedef struct hw_jobs hw_jobs;

/* Of each number 0 is the default. The string is copied. */
typedef struct hw_jobs_settings {
    size_t size;            /* sizeof(hw_jobs_settings) */
    const char *costs_file; /* what is known of the cost of each kind: read now,
                               written by hw_jobs_free(). NULL: none. One that cannot
                               be read is said in the log, and replaced */
    uint64_t grace_ms;      /* between SIGTERM and SIGKILL; 0: 5000. HW_NONE: zero */
    uint64_t width;         /* the most jobs that run at once; UINT64_MAX: as many as
                               the limits allow. 0: as many as there are CPUs, and
                               more while some are idle */
    uint64_t sole_parent;   /* 1: every child of this process is a job, or was left
                               behind by one, so whatever has ended is reaped. 0: what
                               was never seen alive is left to the host */
} hw_jobs_settings;

#define HW_JOBS_SETTINGS_INIT {sizeof(hw_jobs_settings), NULL, 0, 0, 0}

/*
 * Jobs under the limits of a monitor, started before or later, with these
 * settings, or the defaults for NULL. Fails when the process cannot become a
 * subreaper, or when there can be no thread or no descriptor for them. To be freed
 * with hw_jobs_free().
 */
hw_jobs *hw_jobs_new(hw_monitor *monitor, const hw_jobs_settings *settings);

/* Ends the jobs, waits until nothing of them is left, which takes the grace and a
 * moment at most, and frees them. NULL is fine; after hw_monitor_free(), too. */
void hw_jobs_free(hw_jobs *jobs);

/* How a job is run, and what is known of its cost. Strings are copied; of each
 * number, but for descriptors, 0 is the default. */
typedef struct hw_job_options {
    size_t size;              /* sizeof(hw_job_options) */
    const char *kind;         /* the jobs that it is like, in UTF-8; NULL: the name of
                                 the program, without its folder */
    const char *folder;       /* its working directory; NULL: the host's */
    char *const *environment; /* NAME=VALUE each, and NULL at the end; NULL: that of
                                 the host, as it is now */
    const hw_work *work;      /* what it adds at its peak, its own process included;
                                 NULL: one process */
    int32_t stdout_fd;        /* where its output goes: a descriptor, which is
                                 duplicated until the job has ended; -1: the host's */
    int32_t stderr_fd;
    uint64_t tries;           /* how often it is started at most, if it is shed or
                                 killed for want of memory; 0: 3 */
    uint64_t timeout_ms;      /* of one try, the time in which it is paused included;
                                 then it is ended. 0, HW_FOREVER: none */
} hw_job_options;

#define HW_JOB_OPTIONS_INIT {sizeof(hw_job_options), NULL, NULL, NULL, NULL, -1, -1, 0, 0}

/*
 * Has the program argv[0] run with the arguments argv, which ends with a NULL, as
 * soon as there is room for it, and returns at once. NULL for the options is a job
 * without any. *id becomes its number, for hw_jobs_wait(), which is to be called
 * for it at some time; with NULL for id nobody asks for its end, and nothing is
 * kept of it.
 * A name without a slash is looked for in the PATH of the job's environment; a
 * host with much memory names the path, and spares itself a fork(2).
 * The job gets /dev/null as its input, a process group of its own, an empty signal
 * mask, the default disposition of each signal that is not ignored, and
 * HIGHWATER_JOB in its environment.
 * Fails with HW_INVALID, and nothing is run and *id is as it was, for an argv that
 * is NULL or empty, a kind that is not UTF-8, an entry of the environment without
 * a name or "=", a descriptor that is not open, and bad work. A program that cannot
 * be started is an outcome.
 */
int hw_jobs_submit(hw_jobs *jobs, char *const *argv, const hw_job_options *options, uint64_t *id);

/*
 * As hw_jobs_submit(), but returns once the job was started, or never will be: so
 * a host makes jobs no faster than they are run. It waits as long as it takes, and
 * is no cancellation point; hw_jobs_cancel_all() of another thread ends it.
 */
int hw_jobs_spawn(hw_jobs *jobs, char *const *argv, const hw_job_options *options, uint64_t *id);

/* The end of a job. Later versions may have more. */
enum {
    HW_OUTCOME_ENDED = 1,             /* by itself, or by a signal of somebody else's */
    HW_OUTCOME_NOT_STARTED = 2,       /* error_number says why: ENOENT, EACCES, E2BIG */
    HW_OUTCOME_NEVER_FITS = 3,        /* within the limits, even alone */
    HW_OUTCOME_SHED = 4,              /* as often as it may be */
    HW_OUTCOME_KILLED_FOR_MEMORY = 5, /* by the kernel, as often as it may be */
    HW_OUTCOME_TIMED_OUT = 6,
    HW_OUTCOME_CANCELLED = 7,         /* by the host, or by hw_jobs_free() */
    HW_OUTCOME_LOST = 8,              /* ended, and the host has taken its status; or it may not be
                                         signalled, and goes on: the text says which */
    HW_OUTCOME_WANTS_TERMINAL = 9,    /* which no job has, and was ended */
    HW_OUTCOME_OTHER = 255            /* one without a number: the text says it */
};

#define HW_OUTCOME_TEXT_SIZE 512

typedef struct hw_outcome {
    size_t size;                /* sizeof(hw_outcome) */
    int64_t kind;               /* HW_OUTCOME_ENDED, ... */
    int64_t exit_code;          /* -1: it has none, as after a signal */
    int64_t signal;             /* the one that HW_OUTCOME_ENDED is due to; 0: none */
    int64_t error_number;       /* why it was not started, as in errno; ECHILD if its status was
                                   lost; 0: none */
    uint64_t tries;             /* how often it was started */
    uint64_t peak_memory_bytes; /* of the last try and all below it, as checks saw it;
                                   0: none did */
    uint64_t peak_processes;
    char text[HW_OUTCOME_TEXT_SIZE]; /* the same for people, cut off where it must be */
} hw_outcome;

#define HW_OUTCOME_INIT {sizeof(hw_outcome), 0, -1, 0, 0, 0, 0, 0, {0}}

/*
 * Waits for the end of a job, at most timeout_ms milliseconds: 0 asks, HW_FOREVER
 * waits as long as it takes. Returns 1 when it has ended and nothing of it is
 * left, 0 when the time was over. The end is told once, and its number is then
 * unknown, as after waitpid(2); threads that wait for it at that time are all told.
 * NULL for the outcome is filled with nothing. HW_INVALID for a number that is
 * unknown. It is no cancellation point.
 */
int hw_jobs_wait(hw_jobs *jobs, uint64_t id, uint64_t timeout_ms, hw_outcome *outcome);

/*
 * Ends a job: one that waits at once, one that runs by SIGTERM, and by SIGKILL when
 * its grace is over. Does not wait for that, and a job that has ended stays as it
 * is. HW_INVALID for a number that is unknown.
 */
int hw_jobs_cancel(hw_jobs *jobs, uint64_t id);

/* The same for all jobs that there are; those that come later are run. */
int hw_jobs_cancel_all(hw_jobs *jobs);

/* How many jobs run, paused ones included; 0 for NULL. */
uint64_t hw_jobs_running(const hw_jobs *jobs);

/* How many wait to be started, for the first time or again; 0 for NULL. */
uint64_t hw_jobs_waiting(const hw_jobs *jobs);

#ifdef __cplusplus
}
#endif

#endif
