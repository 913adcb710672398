# shellcheck shell=bash disable=SC2154 # variables that qb-backup sets
# The SEL of qb-backup restore to a host, between the metadata and the files. choose and plans come from qb-backup.

# Nothing is to be done: qb-unseal, which waits for us, need not read on.
finished() { # STATUS
    printf '%s\n' "$1" >"$QB_END"
    kill -TERM "$PPID"
    exit 1
}
read -ra voice <<<"$QB_VOICE"
known=(--metadata "$QB_META" --host "$QB_HOST" "${plans[@]}" "${voice[@]}")
# A plan is of domains that can be made. Of dom0 there is only its home.
home=1 included='' others='' planned=()
[ ! -s "$QB_GIVEN" ] || planned=(--check "$QB_GIVEN")
for word in "${choose[@]}"; do
    case $word in
        --include=*)
            included=${included:-no}
            [ "$word" = --include=dom0 ] || others=1
            # shellcheck disable=SC2053 # it is a pattern
            [[ dom0 != ${word#*=} ]] || included=yes
            ;;
        --exclude=*)
            # shellcheck disable=SC2053
            [[ dom0 != ${word#*=} ]] || home=''
            ;;
    esac
    [[ $word = --*=dom0 ]] || planned+=("$word")
done
if [ "$included" = yes ] && [ -z "$others" ]; then # without a pattern all would be restored
    echo 'qb-backup: error: of dom0 there is only its home, which is restored with domains: include one' >&2
    finished 2
fi
status=0
qb-plan "${known[@]}" "${planned[@]}" ${QB_JSON:+"$QB_JSON"} >"$QB_PLAN" || status=$?
[ -n "$QB_DRY" ] || { [ -z "$QB_ASK" ] && [[ $QB_VOICE = *-q* ]]; } || cat "$QB_PLAN" >&2
if [ "$status" != 0 ] || [ -n "$QB_DRY" ]; then
    finished "$status"
fi
if [ -n "$QB_ASK" ]; then
    answer='' && echo 'Restore this?' >"$QB_ASK" && read -r answer <"$QB_ANSWER"
    case ${answer,,} in
        y | yes) ;;
        *)
            echo 'qb-backup: nothing was restored' >&2
            finished 1
            ;;
    esac
fi
if [ -n "$QB_VERIFY" ]; then
    how=(--dry-run)
else
    how=(--owner "$QB_OWNER")
    echo made >"$QB_MADE"
fi
[[ $QB_KEEP != *--keep-going* ]] || how+=(--keep-going)
qb-host apply --host "$QB_HOST" --metadata "$QB_META" "${how[@]}" "${voice[@]}" "$QB_PLAN" >"$QB_FILES" ||
    finished "$?"
# A domain without volumes is there with whatever else it has.
awk -F '\t' -v all="$QB_TO" '
    { below = $1; sub("[^/]*$", "*", below) }
    $3 != "-" { print $1 }
    $3 == "-" || all != "" { print below }
' "$QB_FILES" | sort -u || exit
[ -z "$QB_TO" ] || [ -z "$home" ] || [ "$included" = no ] ||
    qb-meta list "$QB_META" | awk -F '\t' '$2 == "AdminVM" { print $4 }'
