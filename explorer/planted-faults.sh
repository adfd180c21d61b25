#!/usr/bin/env bash
# Plants known faults into the log, one at a time, and runs what has to find each. A check that misses
# its fault proves nothing when it passes. docs/testing.md, "Planted faults", tells of each fault.
#
#   bash explorer/planted-faults.sh [NAME...]            all faults, or only these
#   bash explorer/planted-faults.sh --tests [NAME...]    which tests of the promises fail under each
#   bash explorer/planted-faults.sh --list               their names
#
# A fault is code under `cfg(wal_fault = "NAME")`, a cfg that no feature sets. A wrapper around rustc
# sets it for the crates of this workspace alone: what they depend on is built once.
#
# Exit codes: 0 all were found, 1 some were missed, or something was found where nothing is planted.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Name, the promise that it breaks, and what finds it: the explorer on a sound disk, with `--faults`,
# with `--damage`, or the schedules of shuttle.
readonly FAULTS=(
    "ack_before_sync 1 crashes"
    "write_through_tail 1 crashes"
    "no_directory_sync 1 crashes"
    "checksum_without_salt 2 crashes"
    "zero_record_accepted 3 crashes"
    "verdict_without_claims 3 damage"
    "checkpoint_without_barrier 3 damage"
    "next_segment_before_this 1 crashes"
    "cut_on_some_cores_only 1 crashes"
    "sync_retried 5 faults"
    "adopting_without_rewriting 1 faults"
    "late_capture 1 shuttle"
    "wakes_before_it_frees 1 shuttle"
    "prepared_reused_without_new_salt 2 crashes"
    "recovery_rewrites 4 crashes"
    "merge_trusts_the_clock 6 crashes"
    "batch_split 2 crashes"
    "release_before_manifest 7 crashes"
    "target_on_some_cores 2 crashes"
    "accept_without_adopting 1 crashes"
    "accept_before_quarantine - crashes"
)
# Each fault has so long to be found.
readonly SECONDS_MAX=60
# For so long, or in so many states or damages, nothing may be found where nothing is planted.
readonly CONTROL_SECONDS=5
readonly CONTROL_STATES=1500
readonly SEED=1
readonly TEST_SECONDS_MAX=120

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/planted"
export CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_DEV_DEBUG=none CARGO_INCREMENTAL=0

main() {
    local check=find_fault
    case ${1:-} in
        --list) printf '%s\n' "${FAULTS[@]%% *}" && return ;;
        --tests) check=tests_that_fail && shift ;;
        -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && return 2 ;;
    esac
    local name
    for name in "$@"; do
        printf '%s\n' "${FAULTS[@]%% *}" | grep -qx "$name" || { echo "no fault is called $name"; return 2; }
    done
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT

    local fault promise found_by missed=0
    [[ $check == tests_that_fail ]] || nothing_is_found_without_a_fault || missed=1
    for fault in "${FAULTS[@]}"; do
        read -r name promise found_by <<<"$fault"
        if (($# > 0)) && [[ " $* " != *" $name "* ]]; then continue; fi
        plant "$name"
        "$check" "$name" "$promise" "$found_by" || missed=$((missed + 1))
    done
    ((missed == 0)) || echo "$missed missed"
    ((missed == 0))
}

# ---- finding them --------------------------------------------------------------------------------

nothing_is_found_without_a_fault() {
    local mode failed=0
    build_explorer
    for mode in crashes faults damage; do
        explore "$mode" "$CONTROL_SECONDS" --states "$CONTROL_STATES" && continue
        echo "nothing is planted, and this was found:"
        cat "$log"
        failed=1
    done
    printf '%-34s %-8s %-9s %s\n' fault breaks "found by" "how"
    return "$failed"
}

find_fault() { # name, promise, what finds it
    local how
    if [[ $3 == shuttle ]]; then
        how=$(schedules_that_fail)
    else
        build_explorer
        explore "$3" "$SECONDS_MAX" || true
        how=$(sed -n 's/^the first failure came //p' "$log")
        how=${how:+$how: $(grep -Eom1 'promise [0-9]( or [0-9])?|a panic' "$log" || echo "no promise named")}
    fi
    printf '%-34s %-8s %-9s %s\n' "$1" "$2" "$3" "${how:-NOT FOUND}"
    [[ -n $how ]]
}

# What does not build is neither found nor missed.
build_explorer() {
    cargo build --quiet --release -p wal-sim --example explore || exit 1
}

explore() { # mode, seconds, more arguments
    local mode=()
    [[ $1 == crashes ]] || mode=("--$1")
    "$CARGO_TARGET_DIR/release/examples/explore" "${mode[@]}" \
        --first --seed "$SEED" --seconds "$2" "${@:3}" >"$log" 2>&1
}

# How many, if any; a schedule that hangs is ended.
schedules_that_fail() {
    local status=0
    local shuttle=(env "RUSTFLAGS=--cfg shuttle" "CARGO_TARGET_DIR=$CARGO_TARGET_DIR/shuttle"
        cargo test --quiet -p wal-writer --lib --release)
    "${shuttle[@]}" --no-run >&2 || exit 1
    SECONDS=0
    timeout "$TEST_SECONDS_MAX" "${shuttle[@]}" schedules -- --format=pretty >"$log" 2>&1 || status=$?
    ((status == 0)) || echo "$(grep -c '^test .* FAILED$' "$log") tests fail, in $SECONDS s"
}

# ---- which tests see them ------------------------------------------------------------------------

tests_that_fail() { # name, promise
    local tests=(-p laminar-wal --test 'promise_*')
    cargo test --quiet "${tests[@]}" --no-run || exit 1
    # One that hangs is ended, and the next ones run all the same.
    cargo test --config "target.'cfg(all())'.runner = ['timeout', '$TEST_SECONDS_MAX']" \
        "${tests[@]}" --no-fail-fast >"$log" 2>&1 || true
    echo "$1, which breaks promise $2:"
    awk '
        / Running tests\// { file = substr($2, 7, 10) }
        /^test .* FAILED$/ { print "    " file ": " $2 }
        /exit status: 124/ { print "    " file " hangs" }
    ' "$log"
}

# ---- planting ------------------------------------------------------------------------------------

# What is built from here on has the fault in it. A wrapper of another name is another compiler to
# cargo, so that nothing built with one fault is ever taken for another.
plant() { # name
    local wrapper=$CARGO_TARGET_DIR/wrappers/$1
    mkdir -p "${wrapper%/*}"
    printf '#!/bin/sh\nexec "$@" --cfg '\''wal_fault="%s"'\''\n' "$1" >"$wrapper"
    chmod +x "$wrapper"
    export RUSTC_WORKSPACE_WRAPPER=$wrapper
}

main "$@"
