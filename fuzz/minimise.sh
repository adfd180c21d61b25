#!/usr/bin/env bash
# Minimises the corpora: keeps the fewest inputs that reach every edge which the corpora, and what
# fuzzing has found since, reach between them.
#
#   bash fuzz/minimise.sh                  of the corpora alone
#   bash fuzz/minimise.sh some/directory   and of some/directory/TARGET
#
# Inputs with names are seeds or were once failures, and stay in any case. The others are called
# by their SHA-1, as libFuzzer does it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
found=${1:+$(cd "$1" && pwd)}
cd "$root"

for target in $(cargo fuzz list); do
    corpus=$root/fuzz/corpus/$target
    kept=$(mktemp -d)
    inputs=("$corpus")
    if [[ -n $found && -d $found/$target ]]; then inputs+=("$found/$target"); fi
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none "$target" "$kept" "${inputs[@]}" -- \
        -set_cover_merge=1 -use_counters=0 2>"$kept.log" || { cat "$kept.log" && exit 1; }

    before=$(find "$corpus" -type f | wc -l)
    find "$corpus" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
    named=$(find "$corpus" -type f -exec sha1sum {} + | cut -d' ' -f1)
    for input in "$kept"/*; do
        hash=$(basename "$input")
        grep -qx "$hash" <<<"$named" || cp "$input" "$corpus/$hash"
    done
    echo "$target: $before inputs before, $(find "$corpus" -type f | wc -l) now"
    rm -r "$kept" "$kept.log"
done
