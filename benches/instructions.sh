#!/usr/bin/env bash
# Instructions per operation, counted under callgrind and held against benches/instructions.baseline.
#
#   bash benches/instructions.sh            prints the table; fails where a count rose by over 5 %
#   bash benches/instructions.sh --write    writes what it counted as the new baseline
#
# Counts are of user space and of the calling thread alone: system calls, the background threads and
# start-up are not in them (benches/src/bin/instructions.rs says how). They repeat to within a
# thousandth on one machine, whatever else runs there. They do depend on
#
#   - the compiler: the baseline names the one that it is from;
#   - the processor that valgrind shows to the program: memory copies and checksums choose their
#     code by it, and where it has no SSE 4.2 the checksum is the table-driven one. A string
#     instruction (`rep stosb`) counts once per byte, so large copies look dearer than they are.
#
# The file system hardly matters: with the log on tmpfs a sync takes four instructions less.
#
# Where the instructions of one case go, function by function:
#
#   valgrind --tool=callgrind --collect-atstart=no --toggle-collect=instructions::counted \
#       target/release/instructions sync_each
#   callgrind_annotate --auto=no callgrind.out.*
#
# Exit codes: 0 nothing is worse, 1 something is or could not be counted, 77 valgrind or taskset is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

readonly BASELINE=benches/instructions.baseline
readonly TOLERANCE_PERCENT=5
readonly SKIP_STATUS=77
# Whole name, no pattern: with a leading `*` callgrind writes no dumps.
readonly COUNTED=instructions::counted

main() {
    case ${1:-} in
        '' | --write) ;;
        *)
            echo "usage: bash benches/instructions.sh [--write]" >&2
            exit 2
            ;;
    esac
    local tool
    for tool in valgrind taskset; do
        if [[ -z $(type -P "$tool") ]]; then
            echo "SKIPPED: $tool is missing, so no instructions were counted" >&2
            exit "$SKIP_STATUS"
        fi
    done
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT

    count
    if [[ ${1:-} == --write ]]; then
        write_baseline
    fi
    compare
}

# Sets `names`, in order, and `counts` by name: instructions per operation.
count() {
    cargo build --quiet --release -p laminar-wal-benches --bin instructions
    local target
    target=$(cargo metadata --no-deps --format-version 1 \
        | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    # On one processor a replay has no helper threads, and it is no matter of chance who reads.
    local one
    one=$(taskset -cp $$ | sed 's/.*: *//; s/[,-].*//')
    taskset -c "$one" valgrind --quiet --tool=callgrind --collect-atstart=no \
        --toggle-collect="$COUNTED" --dump-after="$COUNTED" \
        --callgrind-out-file="$scratch/dump" \
        "$target/release/instructions" >"$scratch/cases"

    names=()
    declare -gA counts=()
    local -A fewer_operations=() fewer_instructions=()
    local part=0 name operations instructions
    while read -r name operations; do
        part=$((part + 1))
        instructions=$(sed -n 's/^totals: //p' "$scratch/dump.$part" || true)
        if [[ ! $instructions =~ ^[1-9][0-9]*$ ]]; then
            echo "callgrind counted nothing for $name: was the call of $COUNTED optimized away?" >&2
            exit 1
        fi
        if [[ -z ${fewer_operations[$name]:-} ]]; then
            fewer_operations[$name]=$operations
            fewer_instructions[$name]=$instructions
            continue
        fi
        # What does not grow with the operations drops out.
        operations=$((operations - fewer_operations[$name]))
        instructions=$((instructions - fewer_instructions[$name]))
        names+=("$name")
        counts[$name]=$(((instructions + operations / 2) / operations))
    done <"$scratch/cases"
    if ((${#names[@]} == 0)); then
        echo "nothing was counted" >&2
        exit 1
    fi
}

write_baseline() {
    {
        echo "# Instructions per operation: user space, calling thread. Written by"
        echo "# \`bash benches/instructions.sh --write\`; that file says what the counts depend on."
        echo "# compiler: $(rustc --version)"
        echo "# counted by: $(valgrind --version)"
        local name
        for name in "${names[@]}"; do
            echo "$name ${counts[$name]}"
        done
    } >"$BASELINE"
}

compare() {
    local -A baseline=()
    local name instructions
    if [[ ! -f $BASELINE ]]; then
        echo "there is no $BASELINE: write it with --write" >&2
    fi
    while read -r name instructions; do
        [[ -z $name || $name == '#'* ]] || baseline[$name]=$instructions
    done < <(cat "$BASELINE" 2>/dev/null || true)

    local worse=0 better=0 unknown=0 change verdict
    printf '%-28s %12s %10s %8s\n' "instructions per operation" counted baseline change
    for name in "${names[@]}"; do
        instructions=${counts[$name]}
        if [[ -z ${baseline[$name]:-} ]]; then
            printf '%-28s %12d %10s %8s  NOT IN THE BASELINE\n' "$name" "$instructions" - -
            unknown=$((unknown + 1))
            continue
        fi
        verdict=
        if ((instructions * 100 > baseline[$name] * (100 + TOLERANCE_PERCENT))); then
            verdict='  WORSE'
            worse=$((worse + 1))
        elif ((instructions * 100 < baseline[$name] * (100 - TOLERANCE_PERCENT))); then
            verdict='  better'
            better=$((better + 1))
        fi
        change=$(change_percent "$instructions" "${baseline[$name]}")
        printf '%-28s %12d %10d %8s%s\n' \
            "$name" "$instructions" "${baseline[$name]}" "$change" "$verdict"
        unset "baseline[$name]"
    done
    for name in "${!baseline[@]}"; do
        printf '%-28s %12s %10d %8s  NO LONGER COUNTED\n' "$name" - "${baseline[$name]}" -
        unknown=$((unknown + 1))
    done

    local compiler baseline_compiler
    compiler=$(rustc --version)
    baseline_compiler=$(sed -n 's/^# compiler: //p' "$BASELINE" 2>/dev/null || true)
    if [[ -n $baseline_compiler && $compiler != "$baseline_compiler" ]]; then
        echo "NOTE: counted with $compiler; the baseline is from $baseline_compiler."
        echo "      A difference may be the compiler's."
    fi
    if ((better > 0)); then
        echo "$better better by more than $TOLERANCE_PERCENT %: improve the baseline with" \
            "\`bash benches/instructions.sh --write\`"
    fi
    if ((worse > 0)); then
        echo "$worse worse by more than $TOLERANCE_PERCENT %. If that is meant, say why in the" \
            "commit that writes the new baseline"
    fi
    if ((unknown > 0)); then
        echo "$unknown that only one side knows: write the baseline with --write"
    fi
    ((worse == 0 && unknown == 0))
}

# A number with one decimal and its sign, in integers alone.
change_percent() { # counted, baseline
    local tenths=$((($1 - $2) * 1000 / $2)) sign=+
    if ((tenths < 0)); then
        sign=-
        tenths=$((-tenths))
    fi
    echo "$sign$((tenths / 10)).$((tenths % 10)) %"
}

main "$@"
