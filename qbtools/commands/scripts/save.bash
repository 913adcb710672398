# shellcheck shell=bash disable=SC2154 # variables that qb-backup sets
# The CMD of qb-backup create from a host. how, voice and squeeze come from qb-backup. QB_SOURCE is a line of qb-host
# saving without its name. Snapshots of all volumes of a domain are taken when the turn comes to the first, and released
# behind the last.
IFS=$'\t' read -r kind size _ domain _ at of freezer word <<<"$QB_SOURCE"
log() { printf '%s\t%s\t%s\t-\n' "$1" "$QB_NAME" "$EPOCHREALTIME" >>"$QB_LOG"; }
take() {
    local still=() volumes
    [ "$freezer" = - ] || still=(--freeze "$freezer freeze $domain" --thaw "$freezer thaw $domain")
    mapfile -t volumes < <(awk -F '\t' -v domain="$domain" '$2 == "volume" && $5 == domain { print $10 }' "$QB_FILES")
    qb-snapshot take --owner "$QB_OWNER" "${how[@]}" "${voice[@]}" "${still[@]}" -- "${volumes[@]}" >"$QB_TAKEN"
}
release() {
    local specs
    mapfile -t specs <"$QB_TAKEN"
    qb-snapshot release "${voice[@]}" -- "${specs[@]}" || return 0 # whoever takes the next one there removes it
    : >"$QB_TAKEN"
}
log begin || exit
if [ "$at" != 0 ]; then
    [ "$at" != 1 ] || take || exit
    word=$(sed -n "${at}p" "$QB_TAKEN") how=()
fi
case $kind in
    volume)
        qb-volread "${how[@]}" "${voice[@]}" -- "$word" | qb-tarwrite --size "$size" "$QB_NAME" | squeeze
        ;;
    directory) # 1: a file was changed while it was read, as tar has said; a home is in use
        {
            tar -c --sparse --one-file-system -C "$word" --transform="flags=rhS;s|^\.|$QB_NAME|" . || [ $? = 1 ]
        } | squeeze
        ;;
    *) qb-tarwrite --raw --size "$size" "$QB_NAME" <"$word" | squeeze ;;
esac || exit
[ "$at" = 0 ] || [ "$at" != "$of" ] || release
log end
