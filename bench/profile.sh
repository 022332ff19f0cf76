#!/bin/sh
# Where our share of a dump goes: instructions, by callgrind.
#
#     make profile        prints a table for each kind of dump; PROFILE.md keeps them
#
# Instructions in user space are repeatable, whatever else the machine does. The kernel's share, most
# of the time, is not seen here: RESULTS.md has that, as the ratio to a bare receive loop.
set -eu

FLOWS=20000
ZONES=20
SHOWN=8
nlct=$1
scan=$(dirname "$0")/build/scan

# Called by itself in a network namespace of its own: NLCT WORK MEANING.
profile() {
    out=$(mktemp)
    trap 'rm -f "$out"' EXIT
    [ "$(readlink /proc/self/ns/net)" != "$(readlink "/proc/$PPID/ns/net")" ]
    "$nlct" fill --flows $FLOWS --zones $ZONES --yes-in-this-namespace >/dev/null
    valgrind -q --tool=callgrind --callgrind-out-file="$out" --toggle-collect=nlct_dump_next \
        "$scan" "$1"
    # Lines of the annotation: instructions, perhaps their share, file:function.
    callgrind_annotate --threshold=100 "$out" |
        sed -n "s/^ *\([0-9,]*\) *\(([ .0-9]*%)\)* *[^ :]*:\([^ ']*\).*/\1 \3/p" | tr -d , |
        awk -v flows=$FLOWS '{ n[$2] += $1 / flows } END { for (f in n) print n[f], f }' |
        sort -rn |
        awk -v shown=$SHOWN -v meaning="$2" '
            { total += $1; if (NR <= shown) { n[NR] = $1; f[NR] = $2 } }
            END {
                printf "\n### %s: %.0f instructions a flow\n\n", meaning, total
                print "| function | instructions a flow | share |\n| --- | ---: | ---: |"
                for (i = 1; i in n; i++)
                    printf "| `%s` | %.0f | %.0f%% |\n", f[i], n[i], 100 * n[i] / total
            }'
}

if [ $# -eq 3 ]; then
    profile "$2" "$3"
    exit
fi
unshare --net "$0" "$nlct" flush "delete 1 of 20 zones, without the kernel's filter"
unshare --net "$0" "$nlct" count "count by zone"
unshare --net "$0" "$nlct" table "keep every column"
unshare --net "$0" "$nlct" text "write every line"
