#!/usr/bin/env bash
# What job runners do where it matters: the rows of the page "Which job runner?" that can be tried, each with every runner
# that is installed, and a line about what happened. It judges nothing; the page does.
#
#     cargo build --release --example job_runner
#     benches/job_runners.sh             every row
#     benches/job_runners.sh ROW...      these rows
#     benches/job_runners.sh --list      the rows
#     RUNNERS='xargs make' benches/job_runners.sh ...    beside these
#
# Tried are `job_runner`, and xargs, GNU parallel, make, task-spooler and pueue where they are found. The rows on memory
# and tasks need the first user, and control groups of version 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
job_runner=${JOB_RUNNER:-$PWD/target/release/examples/job_runner}

work=$(mktemp -d)
chmod 755 "$work"
export TS_SOCKET=$work/tsp.socket TS_SAVELIST=$work/tsp.list PUEUE_CONFIG_PATH=$work/pueue.yml
export TMPDIR=$work MARK=$work
# GNU parallel asks once to be cited.
export PARALLEL_HOME=$work/parallel
mkdir "$PARALLEL_HOME" && touch "$PARALLEL_HOME/will-cite"
group=

# Ends all that was started here, which carries this mark.
end_all() {
    local environment
    for environment in /proc/[0-9]*/environ; do
        [[ $environment == /proc/$$/* || $environment == /proc/$BASHPID/* ]] && continue
        grep -qsz "^MARK=$work\$" "$environment" 2>/dev/null && kill -KILL "$(cut -d / -f 3 <<<"$environment")"
    done 2>/dev/null
    wait 2>/dev/null
}

leave() {
    end_all
    [[ -z $group ]] || until rmdir "$group" 2>/dev/null; do sleep 0.1; done
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT TERM

names=()
declare -A about
row() {
    names+=("$1")
    about[$1]=$2
}

runners=()
for each in ${RUNNERS-xargs parallel make tsp pueue}; do
    command -v "$each" >/dev/null && runners+=("$each")
done
[[ -x $job_runner ]] && runners+=(job_runner)

has() { [[ " ${runners[*]} " == *" $1 "* ]]; }

say() { printf '    %-11s %s\n' "$1" "$2"; }

# Runs the lines of standard input as jobs: `run RUNNER OPTION...`. A width of `-j N` is told to each in its own way.
run() {
    local runner=$1 width='' line number=0
    shift
    if [[ ${1-} == -j ]]; then
        width=$2
        shift 2
    fi
    case $runner in
    xargs) xargs -d '\n' -n 1 ${width:+-P "$width"} "$@" sh -c ;;
    parallel) parallel ${width:+-j "$width"} "$@" ;;
    make)
        while IFS= read -r line; do
            number=$((number + 1))
            printf 'all: job-%d\njob-%d:\n\t@%s\n' "$number" "$number" "${line//\$/\$\$}"
        done >"$work/makefile"
        make -k ${width:+-j "$width"} "$@" -f "$work/makefile"
        ;;
    tsp)
        [[ -z $width ]] || tsp -S "$width"
        while IFS= read -r line; do tsp sh -c "$line"; done >"$work/ids"
        while read -r number; do
            tsp -w "$number" || width=failed
            tsp -c "$number"
        done <"$work/ids"
        [[ $width != failed ]]
        ;;
    pueue)
        # Begun anew each time, and apart from that of whoever runs this.
        rm -rf "$work/pueue" && mkdir "$work/pueue"
        printf 'shared: {pueue_directory: %s, runtime_directory: %s}\n' "$work"/pueue{,} >"$PUEUE_CONFIG_PATH"
        pueued -d >/dev/null 2>&1
        until pueue status >/dev/null 2>&1; do sleep 0.1; done
        [[ -z $width ]] || pueue parallel "$width" >/dev/null
        while IFS= read -r line; do pueue add -- "$line"; done >/dev/null
        pueue wait >/dev/null
        ! pueue status --json | grep -q Failed
        ;;
    # It runs as many as it will.
    job_runner) "$job_runner" "$@" ;;
    esac
}

# The same, with what the runner writes kept, and everything ended afterwards. Sets `status` and `seconds`.
try() {
    local began=${EPOCHREALTIME/./}
    : >"$work/log"
    (cd "$work" && run "$@") >"$work/out" 2>"$work/err" && status=0 || status=$?
    seconds=$(((${EPOCHREALTIME/./} - began) / 100000))
    seconds=$((seconds / 10)).$((seconds % 10))
    end_all
    rm -f "$work"/job-* "$TS_SOCKET"
}

# A job that tells of its start and of its end.
told() { printf 'echo + >> %s/log; %s && echo - >> %s/log\n' "$work" "$1" "$work"; }

# The most jobs of the last run that ran at once; how many have ended with success; how often one was started.
widest() { awk '{ now += $1 == "+" ? 1 : -1; if (now > most) most = now } END { print most + 0 }' "$work/log"; }
done_jobs() { grep -c '^-' "$work/log"; }
starts() { grep -c '^+' "$work/log"; }

# A job that takes so many MB at once and keeps them for so many seconds. It fails if it is killed for that.
holding() {
    # shellcheck disable=SC2016 # for the shell of the job
    printf '{ dd if=/dev/zero bs=%sM count=1 status=none || kill -KILL $$; } | { sleep %s; cat >/dev/null; }' "$1" "$2"
}

# A control group of version 1 with so many MB, for `in_group COMMAND...`.
limit_group() {
    local own
    own=$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
    group=/sys/fs/cgroup/memory${own%/}/highwater-$$
    mkdir "$group" 2>/dev/null && echo "$(($1 << 20))" >"$group/memory.limit_in_bytes" && return
    rmdir "$group" 2>/dev/null
    group=
    echo '    skipped: no control group of version 1 with the memory controller can be made'
    return 1
}
in_group() { (echo "$BASHPID" >"$group/cgroup.procs" && "$@"); }
kills() { sed -n 's/^oom_kill //p' "$group/memory.oom_control"; }
forget_group() {
    end_all
    until rmdir "$group" 2>/dev/null; do sleep 0.1; done
    group=
}

# Tries a run in a group of so many MB, with the jobs of a file.
try_in_group() {
    local mb=$1
    shift
    limit_group "$mb" || return 1
    : >"$work/log"
    in_group try_and_keep "$@" 2>/dev/null
    read -r status seconds <"$work/kept"
    killed=$(kills)
    forget_group
}
try_and_keep() {
    local began=${EPOCHREALTIME/./}
    (cd "$work" && run "$@") >"$work/out" 2>"$work/err" <"$work/jobs" && status=0 || status=$?
    echo "$status $(((${EPOCHREALTIME/./} - began) / 1000000))" >"$work/kept"
    rm -f "$TS_SOCKET"
}

row width 'how many run at once without any option: 12 jobs that wait, 12 that compute'
row_width() {
    local each waiting
    for each in "${runners[@]}"; do
        try "$each" < <(for _ in {1..12}; do told 'sleep 0.7'; done)
        waiting=$(widest)
        # shellcheck disable=SC2016 # for the shell of the job
        try "$each" < <(for _ in {1..12}; do told 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; done)
        say "$each" "$waiting that wait, $(widest) that compute, on $(nproc) CPUs"
    done
}

row unknown 'memory that nobody knows: 12 jobs of 100 MB in a group of 512 MB, twelve at a time or, job_runner, as it will'
row_unknown() {
    local each
    for _ in {1..12}; do told "$(holding 100 1)"; done >"$work/jobs"
    in_groups 512 12
}

row outlier 'two jobs of 300 MB among 30 of 5 MB in a group of 512 MB, eight at a time or, job_runner, as it will'
row_outlier() {
    for each in 5 5 5 5 300 300 {1..26}; do
        ((each == 300)) || each=5
        told "$(holding "$each" 0.5)"
    done >"$work/jobs"
    in_groups 512 8
}

# The jobs of the file with each runner; the peers are told a width, and parallel to run again what fails.
in_groups() {
    local each options
    for each in "${runners[@]}"; do
        options=(-j "$2")
        [[ $each != job_runner ]] || options=()
        try_in_group "$1" "$each" "${options[@]}" || return
        say "$each" "$(done_jobs) of $(wc -l <"$work/jobs") done, $killed killed by the kernel, exit status $status, $seconds s"
        [[ $each == parallel ]] || continue
        try_in_group "$1" parallel -j "$2" --retries 3
        say "  --retries 3" "$(done_jobs) done, $killed killed, exit status $status, $seconds s"
        try_in_group "$1" parallel -j "$2" --memfree 200M
        say "  --memfree" "$(done_jobs) done, $killed killed, exit status $status, $seconds s"
    done
}

row again 'two jobs that are too large together, after a small one: 300 MB each in a group of 512 MB, at any width'
row_again() {
    local each options
    { told "$(holding 1 0.1)" && told "$(holding 300 1)" && told "$(holding 300 1)"; } >"$work/jobs"
    for each in "${runners[@]}"; do
        options=(-j 8)
        # Only memory keeps it from running all at once.
        [[ $each != job_runner ]] || options+=(--max-processes 100)
        try_in_group 512 "$each" "${options[@]}" || return
        say "$each" "$(done_jobs) of 3 done in $(starts) starts, $killed killed by the kernel, exit status $status"
    done
}

row neighbour 'another program has 450 of 512 MB for 6 s, and four jobs of 100 MB are to run, two at a time'
row_neighbour() {
    local each options other
    for _ in {1..4}; do told "$(holding 100 0.2)"; done >"$work/jobs"
    for each in "${runners[@]}"; do
        options=(-j 2)
        [[ $each != job_runner ]] || options=()
        limit_group 512 || return
        : >"$work/log"
        (echo "$BASHPID" >"$group/cgroup.procs" && exec sh -c "$(holding 450 6) && echo lives >> $work/neighbour") 2>/dev/null &
        other=$!
        until (($(cat "$group/memory.usage_in_bytes") > 450 << 20)); do sleep 0.1; done
        in_group try_and_keep "$each" "${options[@]}" 2>/dev/null
        read -r status seconds <"$work/kept"
        wait "$other" 2>/dev/null
        killed=$(kills)
        say "$each" "$(done_jobs) of 4 done, $killed killed, the neighbour $(cat "$work/neighbour" 2>/dev/null || echo was killed), exit status $status, $seconds s"
        rm -f "$work/neighbour"
        [[ $each != job_runner ]] || grep -o 'holding back: .*' "$work/err" | head -n 1 | sed 's/^/                /'
        forget_group
    done
}

row eagain 'a user who has 45 of 60 tasks: 60 jobs, 30 at a time'
row_eagain() {
    local each options user=$((100000 + $$)) runner=$job_runner
    if ((EUID)); then
        echo '    skipped: only the first user can be another one'
        return
    fi
    cp "$job_runner" "$work/program"
    job_runner=$work/program
    for _ in {1..60}; do told 'sleep 0.2'; done >"$work/jobs"
    for each in "${runners[@]}"; do
        options=(-j 30)
        [[ $each != job_runner ]] || options+=(--max-processes 100)
        rm -f "$work"/{out,err,makefile,ids}
        : >"$work/log"
        mkdir "$work/home"
        chown "$user" "$work" "$work/home" "$work/log" "$PARALLEL_HOME"
        # shellcheck disable=SC2016 # for the other shell
        HOME=$work/home setpriv --clear-groups --reuid="$user" bash -c '
            for _ in {1..45}; do sleep 1000 & done
            ulimit -u 60
            cd "$work" && run "$@" < jobs > out 2> err' bash "$each" "${options[@]}"
        status=$?
        say "$each" "$(done_jobs) of 60 done, exit status $status"
        end_all
        chown 0 "$work"
        rm -rf "$TS_SOCKET" "${work:?}"/{home,out,err,makefile,ids}
    done
    job_runner=$runner
}

row lines 'two jobs that write parts of lines at the same time'
row_lines() {
    local each
    job() { printf 'for i in 1 2 3; do printf %s; sleep 0.2; done; echo\n' "$1"; }
    for each in "${runners[@]}"; do
        try "$each" -j 4 < <(job b && job c)
        say "$each" "$(grep -E '^[bc]+$' "$work/out" | xargs)"
        [[ $each == make ]] || continue
        try make -j 4 -O < <(job b && job c)
        say '  -O' "$(grep -E '^[bc]+$' "$work/out" | xargs)"
    done
}

row resume 'killed by SIGKILL after two of 20 jobs, and started again with what it offers for that'
row_resume() {
    local each options runner
    for number in {1..20}; do
        # A file for make, which leaves out what is there.
        echo "echo $number >> $work/log; sleep 0.2; touch $work/job-$number"
    done >"$work/jobs"
    for each in parallel make job_runner; do
        has "$each" || continue
        options=(-j 2)
        [[ $each == make ]] || options+=(--joblog "$work/joblog")
        : >"$work/log"
        (cd "$work" && exec setsid bash -c 'run "$@" < jobs' bash "$each" "${options[@]}") >/dev/null 2>&1 &
        runner=$!
        until (($(wc -l <"$work/log") >= 4)); do sleep 0.05; done
        kill -KILL -- -"$runner"
        end_all
        [[ $each == make ]] || options+=(--resume)
        (cd "$work" && run "$each" "${options[@]}") <"$work/jobs" >/dev/null 2>&1
        say "$each" "$(sort -u "$work/log" | wc -l) of 20 run, $(sort "$work/log" | uniq -d | wc -l) of them twice"
        rm -f "$work"/job-* "$work/joblog"
    done
}

row timeout 'a job of 1,000 s that may take one second'
row_timeout() {
    local each
    for each in parallel job_runner; do
        has "$each" || continue
        try "$each" --timeout 1 < <(echo 'sleep 1000; :')
        say "$each" "exit status $status after $seconds s"
    done
}

row retries 'a job that fails twice, and may three times'
row_retries() {
    local each count
    for each in parallel job_runner; do
        has "$each" || continue
        # parallel counts runs, job_runner those after the first.
        count=3
        [[ $each == parallel ]] || count=2
        try "$each" --retries "$count" < <(echo "echo + >> $work/log; [ \$(wc -l < $work/log) -ge 3 ]")
        say "$each" "exit status $status after $(starts) runs"
    done
}

# Runs jobs with a runner below a shell at a terminal of its own, which `type_keys` types at and `hang_up` takes away.
at_terminal() {
    # The shell in between hands on no functions.
    printf '#!/bin/bash\n%s\ncd %s; run %s -j 2 < jobs\n' "$(declare -f run)" "$work" "$1" >"$work/start"
    chmod +x "$work/start"
    rm -f "$work/keys"
    mkfifo "$work/keys"
    # In the background of a script, SIGINT is ignored.
    env --default-signal=INT,QUIT script -qefc 'dash -i' /dev/null <"$work/keys" >/dev/null 2>&1 &
    terminal=$!
    exec {keys}>"$work/keys"
    type_keys "$work/start\n"
}
type_keys() {
    printf '%b' "$1" >&"$keys"
    sleep 2
}
hang_up() {
    kill -KILL "$terminal"
    exec {keys}>&-
    wait "$terminal"
} 2>/dev/null

# How many of the jobs `sleep 1234` there are, in this state or in any.
sleepers() {
    local stat
    for stat in /proc/[0-9]*/stat; do
        grep -qs "(sleep) ${1-[A-Z]} " "$stat" && grep -qsz "^MARK=$work\$" "${stat%stat}environ" && echo "$stat"
    done | wc -l
}

row terminal 'at a terminal: two jobs; Ctrl-Z, fg, Ctrl-C; what is stopped, goes on, and is left'
row_terminal() {
    local each stopped continued
    printf 'sleep 1234; :\nsleep 1234; :\n' >"$work/jobs"
    for each in "${runners[@]}"; do
        at_terminal "$each"
        sleep 1
        type_keys '\x1a'
        stopped=$(sleepers T)
        type_keys 'fg\n'
        continued=$(sleepers S)
        type_keys '\x03'
        sleep 2
        say "$each" "$stopped stopped by Ctrl-Z, $continued go on after fg, $(sleepers) left after Ctrl-C"
        hang_up
        end_all
        rm -f "$TS_SOCKET"
    done
}

row hangup 'under nohup, and SIGHUP comes'
row_hangup() {
    local each runner
    for each in xargs parallel make job_runner; do
        has "$each" || continue
        : >"$work/log"
        for _ in 1 2; do told 'sleep 2'; done >"$work/jobs"
        (cd "$work" && exec setsid nohup bash -c 'run "$@" < jobs' bash "$each" -j 1) >/dev/null 2>&1 &
        runner=$!
        until (($(starts))); do sleep 0.05; done
        kill -HUP -- -"$runner"
        wait "$runner"
        say "$each" "exit status $?, $(done_jobs) of 2 done"
        end_all
    done
}

row logout 'the terminal hangs up while a job runs: does the queue go on?'
row_logout() {
    local each
    for _ in 1 2 3; do told 'sleep 3'; done >"$work/jobs"
    for each in "${runners[@]}"; do
        : >"$work/log"
        at_terminal "$each"
        until (($(starts))); do sleep 0.1; done
        hang_up
        sleep 8
        say "$each" "$(done_jobs) of 3 done"
        end_all
        rm -f "$TS_SOCKET"
    done
}

row order 'one at a time: a first job, then a second and an urgent third; then one that needs what has failed'
row_order() {
    : >"$work/log"
    if has tsp; then
        for job in 'sleep 1' second third; do tsp sh -c "$job; echo $job >> $work/log" 2>/dev/null; done >"$work/ids"
        tsp -u && tsp -w "$(tail -n 1 "$work/ids")" >/dev/null
        tsp -w "$(sed -n 2p "$work/ids")" >/dev/null
        tsp false >/dev/null
        tsp -w "$(tsp -d sh -c "echo dependent >> $work/log")"
        say tsp "$(xargs <"$work/log"); a dependent one would be last"
        end_all
    fi
    if has make; then
        printf 'all: dependent\ndependent: failed\n\t@echo dependent\nfailed:\n\t@false\n' >"$work/makefile"
        say make "by its rules: $(make -f "$work/makefile" 2>/dev/null || echo the dependent one is not run)"
    fi
    if has pueue; then
        pueued -d >/dev/null 2>&1
        until pueue status >/dev/null 2>&1; do sleep 0.1; done
        : >"$work/log"
        for job in '0 sleep 1' '0 second' '9 third'; do
            pueue add --priority "${job%% *}" -- "${job#* }; echo ${job#* } >> $work/log"
        done >/dev/null
        pueue add --after "$(pueue add -p -- false)" -- "echo dependent >> $work/log" >/dev/null
        pueue wait >/dev/null
        say pueue "$(xargs <"$work/log"); a dependent one would be last"
        end_all
    fi
}

if [[ ${1-} == --list ]]; then
    for name in "${names[@]}"; do printf '%-10s %s\n' "$name" "${about[$name]}"; done
    exit
fi
(($#)) || set -- "${names[@]}"
for name; do
    [[ -v about[$name] ]] || { echo "there is no row '$name'; --list names all" >&2 && exit 2; }
done
export -f run
export job_runner work
echo "runners: ${runners[*]}"
for name; do
    printf '\n%s: %s\n' "$name" "${about[$name]}"
    "row_$name"
done
