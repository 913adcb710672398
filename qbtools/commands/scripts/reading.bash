# shellcheck shell=bash disable=SC2154 # variables that qb-backup sets
# What each CMD of qb-backup that reads begins with; gunzip and warned come from there.

# The volume gets its name as soon as the inner archive has ended, so a decompressor that fails behind that says so in
# the stream too: qb-tarextract takes nothing but zeros there. What stands behind a compressed stream is passed over,
# whether the program does that itself, warns of it (gzip) or leaves it (pigz).
decompress() {
    local status=0
    case $QB_COMPRESSION in
        gzip) $gunzip || [ $? = "$warned" ] ;;
        bzip2) bzip2 -dcq ;;
        xz) xz -dcq ;;
        lzma) xz -dcq --format=lzma ;;
        zstd) zstd -dcq ;;
        none) cat ;;
    esac || status=$?
    if [ "$status" = 0 ]; then cat >/dev/null; else echo 'decompression failed'; fi
    return "$status"
}

# Version 3 has templates as archives of their directories. All volumes in one go, each by its own qb-tarextract: the
# end of the archive, which tells that it was whole, comes to each of them.
directory() { # places: lines of VOLUME, TARGET
    local volume target fd pid fds=() pids=() status=0
    while IFS=$'\t' read -r volume target; do
        exec {fd}> >(
            for other in "${fds[@]}"; do exec {other}>&-; done
            qb-tarextract "$QB_NAME/$volume.img" | qb-volwrite "${write[@]}" -- "$target"
        )
        fds+=("$fd") pids+=("$!")
    done <<<"$places"
    decompress | tee "${fds[@]/#//dev/fd/}" >/dev/null || status=$?
    for fd in "${fds[@]}"; do exec {fd}>&-; done
    for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
    return "$status"
}
