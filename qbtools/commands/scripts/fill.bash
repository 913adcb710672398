# shellcheck shell=bash
# The CMD of qb-backup restore to a host.
[ -e "$QB_LOG" ] || exit # the run has been killed
read -ra write <<<"$QB_VOICE --overwrite --shrink"
going=''
[[ $QB_KEEP != *--keep-going* ]] || going=0 # a file that fails does not end the run
log() { printf '%s\t%s\t%s\t%s\n' "$1" "$QB_NAME" "$EPOCHREALTIME" "${2--}" >>"$QB_LOG"; }
die() {
    printf 'qb-backup: error: %s\n' "$2" >&2
    exit ${going:-$1}
}
# Not over anything that is there, and not before it is whole.
further() { # DIRECTORY below QB_TO
    local place=$QB_TO/$1/${QB_NAME##*/} new status=0
    if [ -e "$place" ] || [ -L "$place" ]; then die 1 "$place is there already"; fi
    mkdir -p -- "$QB_TO/$1" && new=$(mktemp -d -- "$QB_TO/.qb-files.XXXXXXXX") || exit $going
    trap 'rm -rf -- "$new"; exit 143' TERM
    decompress | tar -x -C "$new" --no-same-owner --no-same-permissions --keep-old-files --no-acls --no-selinux \
        --no-xattrs --warning=no-timestamp -- "$QB_NAME" || status=$?
    if [ "$status" = 0 ]; then
        [ -z "$(find "$new" -type b -o -type c -o -type f -perm /6000)" ] || {
            echo "qb-backup: error: $QB_NAME holds a device, or a file with the rights of another user" >&2
            status=4
        }
        [ ! -L "$new/$QB_NAME" ] || {
            echo "qb-backup: error: $QB_NAME is a symbolic link" >&2
            status=4
        }
    fi
    [ "$status" != 0 ] || mv -nT -- "$new/$QB_NAME" "$place" || status=$?
    [ "$status" != 0 ] || [ ! -e "$new/$QB_NAME" ] || status=5
    rm -rf -- "$new"
    [ "$status" = 0 ] || exit ${going:-$status}
}
log begin
if [ "$QB_NAME" = qubes.xml ]; then
    decompress | qb-tarextract --raw qubes.xml >"$QB_META" || exit
    log end
    exit
fi
: >"$QB_SIZE"
places=$(awk -F '\t' -v name="$QB_NAME" '$1 == name && $3 != "-" { print $3 "\t" $4 }' "$QB_FILES")
if [ -n "$QB_VERIFY" ] || [ -z "$places$QB_TO" ]; then
    # Whatever it is; of a directory the volumes that are wanted must be there.
    all=$QB_NAME
    [[ $QB_NAME != dom0-home/* ]] || all=()
    decompress | qb-tarextract --list "${all[@]}" >"$QB_SIZE" || exit $going
    if [[ $QB_NAME = */. ]]; then
        while IFS=$'\t' read -r volume _; do
            grep -qF $'\t'"$QB_NAME/$volume.img" "$QB_SIZE" || die 4 "there is no $QB_NAME/$volume.img"
        done <<<"$places"
        : >"$QB_SIZE"
    fi
elif [ -z "$places" ]; then
    case $QB_NAME in
        */empty) decompress >/dev/null || exit $going ;; # stands for a domain that has nothing else
        dom0-home/*) further dom0-home ;;
        *)
            # Only what is right below the path of a domain: else it could take the place of another's directory.
            domain=$(awk -F '\t' -v path="${QB_NAME%/*}/" 'index($1, path) == 1 { print $2; exit }' "$QB_FILES")
            [ -n "$domain" ] || die 4 "$QB_NAME is no file of a domain"
            further "$domain"
            ;;
    esac
elif [[ $QB_NAME = */. ]]; then
    directory || exit $going
else
    decompress | qb-tarextract "$QB_NAME" | qb-volwrite "${write[@]}" --print-size -- "${places#*$'\t'}" >"$QB_SIZE" ||
        exit $going
fi
log end "$(cut -f 1 "$QB_SIZE" | head -n 1)"
