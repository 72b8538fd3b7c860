#!/usr/bin/env bash
# The server that forks its workers, which share a ledger and a limit, beside the same server with as many workers as somebody
# has found by hand, and no limit: the rate at which 16 clients are served, the most memory of all its processes, and the CPU
# time of the parent, which takes the checks.
#
#     benches/prefork.sh [WIDTH...]        by default 4 5 6
#
# Needs curl. Fails if a request is not served, or the limit of 400 MB is passed with the ledger.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($#)) || set -- 4 5 6
requests=300 limit=400 port=7077
cargo build --quiet --locked --release --example prefork_server
server=target/release/examples/prefork_server
trap '[[ -z ${pid-} ]] || kill $pid' EXIT
exec {silence}<> <(:)

# serve NAME OPTION...: sets `rate`, in a hundredth of a request per second, and `peak` in MB.
serve() {
    local name=$1 served began took rss
    shift
    "$server" --port $port "$@" >/dev/null 2>&1 &
    pid=$!
    until curl -s "localhost:$port" >/dev/null; do sleep 0.05; done
    began=$(date +%s%N) peak=0
    curl -s --no-progress-meter --parallel --parallel-max 16 --parallel-immediate "http://localhost:$port/[1-$requests]" >target/prefork.out &
    while kill -0 $! 2>/dev/null; do
        rss=0
        read -ra workers <"/proc/$pid/task/$pid/children" || true
        for process in $pid "${workers[@]}"; do
            read -r _ pages _ <"/proc/$process/statm" && rss=$((rss + pages / 256))
        done 2>/dev/null
        ((rss <= peak)) || peak=$rss
        # A `sleep` would be a process each time, of which the server would be the slower.
        read -rt 0.01 -u "$silence" || true
    done
    took=$((($(date +%s%N) - began) / 1000000))
    read -ra stat <"/proc/$pid/stat"
    parent=$(((stat[13] + stat[14]) * 100000 / $(getconf CLK_TCK) / took))
    kill $pid
    wait $pid || true
    pid=
    served=$(grep -c '^done$' target/prefork.out || true)
    rate=$((requests * 100000 / took))
    echo "$name: $served of $requests served, $((rate / 100)).$((rate / 10 % 10)) a second, at most $peak MB; the parent takes $parent % of a core"
    ((served == requests)) || exit 1
}

for round in 1 2 3; do
    serve "with the ledger, 8 workers, $limit MB" --workers 8 --limit-mb $limit
    ((peak < limit)) || exit 1
    ours=$rate best=0
    for width; do
        serve "by hand, $width workers" --workers "$width" --limit-mb 100000
        ((peak >= limit || rate <= best)) || best=$rate
    done
    printf 'round %d: 0.%02d of the best rate by hand\n' $round $((ours * 100 / best))
done
