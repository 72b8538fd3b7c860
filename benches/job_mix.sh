#!/usr/bin/env bash
# 200 jobs of 5 to 200 MB in random order, of 0.2 to 0.8 s, by job_runner without an option in a control group of 512 MB: how much
# of it is used on average, what the kernel kills, and what is run again.
#
#     benches/job_mix.sh [ROUNDS]        by default 10
#
# Needs root, perl, and a control group of memory (version 1). Fails if a job is lost, or is run twice and no kill or shed says why, if
# the kernel kills the runner, or if no more than 60 % are used on average of all rounds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${1:-10} limit=512

cargo build --quiet --locked --release --example job_runner
runner=$PWD/target/release/examples/job_runner
mkdir -p target/job_mix
cd target/job_mix
group=/sys/fs/cgroup/memory/highwater-$$
trap 'rmdir "$group"' EXIT
mkdir "$group"
echo $((limit << 20)) >"$group/memory.limit_in_bytes"

kills() { sed -n 's/^oom_kill //p' "$group/memory.oom_control"; }

# A line for each job, which says when it begins and ends.
jobs() {
    awk -v seed="$1" 'BEGIN {
        srand(seed)
        for (job = 1; job <= 200; job++) {
            mb = 5 + int((job - 1) * 196 / 200)
            seconds = 0.2 + rand() * 0.6
            hold = "perl -e \047$x = \"x\"; $x x= " mb " << 20; select undef, undef, undef, " seconds "\047"
            print rand() "\techo " job " >>begun; " hold " && echo " job " >>done"
        }
    }' | sort -n | cut -f 2
}

total=0
for ((round = 1; round <= rounds; round++)); do
    rm -f begun done
    jobs $round >lines
    before=$(kills)
    (echo "$BASHPID" >"$group/cgroup.procs" && exec "$runner") <lines >output 2>&1 &
    pid=$! samples=0 sum=0
    while kill -0 $pid 2>/dev/null; do
        used=$(sed -n 's/^total_rss //p' "$group/memory.stat")
        sum=$((sum + used)) samples=$((samples + 1))
        sleep 0.05
    done
    status=0
    wait $pid || status=$?
    percent=$((sum / samples * 1000 / (limit << 20)))
    total=$((total + percent))
    killed=$(($(kills) - before))
    summary=$(grep ' done, ' output | tail -n 1)
    echo "round $round: $((percent / 10)).$((percent % 10)) % used, $killed killed by the kernel; $summary"
    again=$(sed -n 's/.* failed, \([0-9]*\) run again.*/\1/p' <<<"$summary")
    ((status == 0)) || { echo "exit status $status" && tail -n 20 output && exit 1; }
    [[ $(sort -nu done | wc -l) == 200 ]] || { echo 'a job is lost' && exit 1; }
    (($(wc -l <begun) <= 200 + again)) || { echo 'a job was run twice' && exit 1; }
done
average=$((total / rounds))
echo "$((average / 10)).$((average % 10)) % used on average"
((average > 600))
