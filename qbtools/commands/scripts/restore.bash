# shellcheck shell=bash
# The CMD of qb-backup restore to files and pools. The metadata is the first file; its listing says where the others go.
# Without metadata they keep their names.
read -ra write <<<"$QB_WRITE"
skip() {
    printf 'came\t%s\t-\n' "$QB_NAME"
    exit 0
}
die() {
    printf 'qb-backup: error: %s\n' "$2" >&2
    exit "$1"
}
[ -e "$QB_LISTING" ] || die 1 'the run has been killed'
wanted() { [[ -z ${QB_ONLY// /} || $QB_ONLY = *" $1 "* ]]; } # DOMAIN
target_of() { # DOMAIN VOLUME: where it goes; nothing where no option says
    local line
    while IFS= read -r line; do
        [[ $line != "$1:$2="* ]] || { printf '%s\n' "${line#*=}" && return; }
    done <<<"$QB_MAP"
    [ -z "$QB_POOL" ] || printf '%s\n' "$QB_POOL/$1-$2"
    [ -z "$QB_TO" ] || printf '%s\n' "$QB_TO/$1/$2.img"
}
if [ "$QB_NAME" = qubes.xml ]; then
    decompress | qb-tarextract --raw qubes.xml | qb-meta list | tee "$QB_LISTING" || exit
    printf 'came\tqubes.xml\t-\n'
    for domain in $QB_ONLY; do
        grep -q "^$domain"$'\t' "$QB_LISTING" || die 4 "the archive has no domain $domain"
    done
    while IFS='=' read -r volume _; do
        [ -z "$volume" ] || cut -f 1,3 "$QB_LISTING" | grep -qxF "${volume/:/$'\t'}" ||
            die 4 "the archive has no volume $volume"
    done <<<"$QB_MAP"
    while IFS=$'\t' read -r domain _ volume name _; do
        [ "$volume" = - ] || ! wanted "$domain" || [ -n "$(target_of "$domain" "$volume")" ] ||
            die 2 "nothing says where $domain:$volume goes: --to, --pool or --map"
    done <"$QB_LISTING"
    exit
fi
if [[ $QB_NAME = */. ]]; then
    places=''
    while IFS=$'\t' read -r owner _ volume name _; do
        if [ "$name" != "$QB_NAME" ] || ! wanted "$owner"; then continue; fi
        target=$(target_of "$owner" "$volume")
        [[ -z $QB_TO || $target != "$QB_TO"/* ]] || mkdir -p -- "${target%/*}" || exit
        places+=${places:+$'\n'}$volume$'\t'$target
    done <"$QB_LISTING"
    [ -n "$places" ] || skip
    directory && printf 'came\t%s\t-\n' "$QB_NAME"
    exit
fi
domain='' target=''
[ -s "$QB_LISTING" ] || [ -z "$QB_TO" ] || target=$QB_TO/$QB_NAME
while IFS=$'\t' read -r owner _ volume name _; do
    [ "$name" = "$QB_NAME" ] || continue
    domain=$owner
    [ "$volume" = - ] || target=$(target_of "$owner" "$volume")
done <"$QB_LISTING"
wanted "$domain" || skip
if [ -z "$target" ]; then
    [ -s "$QB_LISTING" ] || die 4 'the archive has no metadata: only --to can be used'
    [[ $QB_NAME = */empty ]] || echo "qb-backup: warning: $QB_NAME is no volume: not restored" >&2
    skip
fi
[[ -z $QB_TO || $target != "$QB_TO"/* ]] || mkdir -p -- "${target%/*}" || exit
printf 'came\t%s\t' "$QB_NAME"
decompress | qb-tarextract "$QB_NAME" | qb-volwrite "${write[@]}" --print-size -- "$target"
