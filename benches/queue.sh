#!/usr/bin/env bash
# Three workers of the example queue_worker on one stream of Redis, in control groups of 400, 300 and 200 MB, beside each of
# them alone: the rate of all three as a part of the sum of what each does by itself. 300 entries of 5 to 120 MB in random
# order, each held for half a second; a third of them for each worker alone.
#
#     benches/queue.sh [ROUNDS]        by default 3
#
# Needs root, redis-server, perl, and control groups of memory (version 1). Fails if an entry is not done, or done twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${1:-3} rooms=(400 300 200) entries=300

cargo build --quiet --locked --release --example queue_worker
worker=$PWD/target/release/examples/queue_worker
mkdir -p target/queue
cd target/queue
parent=/sys/fs/cgroup/memory/highwater-$$ socket=$PWD/redis.sock
redis() { redis-cli -s "$socket" "$@" >/dev/null; }
mkdir "$parent"
for room in "${rooms[@]}"; do
    mkdir "$parent/$room"
    echo $((room << 20)) >"$parent/$room/memory.limit_in_bytes"
done
redis-server --port 0 --unixsocket "$socket" --save '' --appendonly no --dir . >/dev/null &
server=$!
end() {
    kill $server
    wait $server || true
    for room in "${rooms[@]}"; do rmdir "$parent/$room"; done
    rmdir "$parent"
}
trap end EXIT
until redis ping 2>/dev/null; do sleep 0.05; done

# run ENTRIES ROOM...: sets `rate`, in a hundredth of an entry per second.
run() {
    local count=$1 workers=() began took room
    shift
    rm -f done
    redis flushall
    awk -v seed="$round" -v count="$count" 'BEGIN {
        srand(seed)
        for (entry = 1; entry <= count; entry++) {
            hold = "perl -e \047$x = \"x\"; $x x= " 5 + int(rand() * 116) " << 20; select undef, undef, undef, 0.5\047"
            print "XADD jobs * command \"" quoted(hold " && echo " entry " >>done") "\""
        }
    }
    function quoted(text) {
        gsub(/\\/, "\\\\", text)
        gsub(/"/, "\\\"", text)
        return text
    }' | redis
    began=$(date +%s%N)
    for room; do
        (echo "$BASHPID" >"$parent/$room/cgroup.procs" && exec "$worker" --url "unix://$socket" --consumer "$room" --once) >"$room.log" 2>&1 &
        workers+=($!)
    done
    wait "${workers[@]}"
    took=$((($(date +%s%N) - began) / 1000000))
    rate=$((count * 100000 / took))
    [[ $(sort -nu done | wc -l) == "$count" ]] || { echo 'an entry is lost' && exit 1; }
    [[ $(wc -l <done) == "$count" ]] || echo "$(($(wc -l <done) - count)) were run again"
}

for ((round = 1; round <= rounds; round++)); do
    sum=0
    for room in "${rooms[@]}"; do
        run $((entries / 3)) "$room"
        sum=$((sum + rate))
        printf 'alone in %d MB: %d.%02d a second\n' "$room" $((rate / 100)) $((rate % 100))
    done
    run $entries "${rooms[@]}"
    printf 'round %d: all three: %d.%02d a second, %d %% of the sum\n' "$round" $((rate / 100)) $((rate % 100)) $((rate * 100 / sum))
done
