#!/usr/bin/env bash
# A real build in a control group of 512 MB: the C sources of libgit2, and between them SQLite, whose one file takes some
# 330 MB to compile. By job_runner without an option, and by `xargs -P N` for each N that is tried by hand.
#
#     benches/real_build.sh [N...]        by default 2 3
#
# Needs root, a control group of memory (version 1), gcc, and packages. Fails if a file is not compiled or the kernel has
# killed for want of memory under job_runner, or if that took over 1.15 times as long as the best of the others in each of
# three rounds: whatever else runs on the machine makes one of them slower only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($#)) || set -- 2 3

cargo build --locked --release --example job_runner
runner=$PWD/target/release/examples/job_runner
mkdir -p target/real_build/generated
cd target/real_build
touch lib.rs
cat >Cargo.toml <<'EOF'
[package]
name = "sources"
version = "0.0.0"
edition = "2021"
[lib]
path = "lib.rs"
[dependencies]
libgit2-sys = { version = "=0.17.0", default-features = false }
libsqlite3-sys = "=0.30.1"
[workspace]
EOF
cargo vendor --quiet vendor >vendor.toml

# What its build script would generate and define.
cat >generated/git2_features.h <<'EOF'
#pragma once
#define GIT_THREADS 1
#define GIT_TRACE 1
#define GIT_HTTPPARSER_BUILTIN 1
#define GIT_USE_NSEC 1
#define GIT_IO_POLL 1
#define GIT_USE_STAT_MTIM 1
#define GIT_ARCH_64 1
#define GIT_SHA1_COLLISIONDETECT 1
#define GIT_SHA256_BUILTIN 1
EOF
cat >flags <<'EOF'
-c -w -O1 -I generated
-I vendor/libgit2-sys/libgit2/include -I vendor/libgit2-sys/libgit2/src/libgit2 -I vendor/libgit2-sys/libgit2/src/util
-I vendor/libgit2-sys/libgit2/deps/llhttp -I vendor/libgit2-sys/libgit2/deps/xdiff
-I vendor/libgit2-sys/libgit2/deps/pcre -DGIT_REGEX_BUILTIN -DHAVE_STDINT_H -DHAVE_MEMMOVE -DNO_RECURSE -DNEWLINE=10
-DPOSIX_MALLOC_THRESHOLD=10 -DLINK_SIZE=2 -DPARENS_NEST_LIMIT=250 -DMATCH_LIMIT=10000000
-DMATCH_LIMIT_RECURSION=MATCH_LIMIT -DMAX_NAME_SIZE=32 -DMAX_NAME_COUNT=10000 -DSHA1DC_NO_STANDARD_INCLUDES
-DSHA1DC_CUSTOM_INCLUDE_SHA1_C=\"common.h\" -DSHA1DC_CUSTOM_INCLUDE_UBC_CHECK_C=\"common.h\"
EOF
sources=(vendor/libgit2-sys/libgit2/{src/libgit2,src/util,deps/pcre,deps/xdiff}/*.c)
sources=("${sources[@]:0:60}" vendor/libsqlite3-sys/sqlite3/sqlite3.c "${sources[@]:60}")
for index in "${!sources[@]}"; do
    echo "gcc @flags ${sources[index]} -o objects/$index.o"
done >lines

group=/sys/fs/cgroup/memory/highwater-$$
trap 'rmdir "$group"' EXIT
mkdir "$group"
echo $((512 << 20)) >"$group/memory.limit_in_bytes"

kills() { sed -n 's/^oom_kill //p' "$group/memory.oom_control"; }

# Runs a command in the group; sets `took` in milliseconds, and `trouble` where a kill or a file is missing.
build() {
    local name=$1 began kills_before peak
    shift
    rm -rf objects
    mkdir objects
    echo 0 >"$group/memory.force_empty"
    echo 0 >"$group/memory.max_usage_in_bytes"
    kills_before=$(kills)
    began=$(date +%s%3N)
    trouble=
    (echo "$BASHPID" >"$group/cgroup.procs" && exec "$@") <lines >output 2>&1 || trouble=", exit status $?"
    took=$(($(date +%s%3N) - began))
    peak=$(($(cat "$group/memory.max_usage_in_bytes") >> 20))
    (($(kills) == kills_before)) || trouble+=", $(($(kills) - kills_before)) killed for want of memory"
    compiled=$(find objects -name '*.o' | wc -l)
    ((compiled == ${#sources[@]})) || trouble+=", $compiled of ${#sources[@]} files"
    echo "$name: $((took / 1000)).$(printf %03d $((took % 1000))) s, at most $peak MB$trouble"
}

ours='' best=''
for round in 1 2 3; do
    build job_runner "$runner"
    tail -n 2 output
    [[ -z $trouble ]] || exit 1
    ((took >= ${ours:-took + 1})) || ours=$took
    for width; do
        build "xargs -P$width" xargs -P"$width" -d '\n' -n 1 sh -c
        [[ -n $trouble ]] || ((took >= ${best:-took + 1})) || best=$took
    done
    ratio=$((ours * 100 / ${best:?no width has built it}))
    echo "round $round: job_runner takes $((ratio / 100)).$(printf %02d $((ratio % 100))) times as long as the best width"
    ((ratio > 115)) || exit 0
done
exit 1
