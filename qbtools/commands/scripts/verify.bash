# shellcheck shell=bash
# The CMD of qb-backup verify.
came() { while IFS=$'\t' read -r size _; do printf 'came\t%s\t%s\n' "$QB_NAME" "$size"; done; }
case $QB_NAME in
    qubes.xml) decompress | qb-tarextract --raw qubes.xml | qb-meta list && echo - | came ;;
    dom0-home/*) decompress | qb-tarextract --list >/dev/null && echo - | came ;;
    */.) # version 3: the directory of a template
        listing=$(decompress | qb-tarextract --list "$QB_NAME") || exit
        for volume in root private; do
            [[ $listing$'\n' = *$'\t'"$QB_NAME/$volume.img"$'\n'* ]] || {
                printf 'qb-backup: error: there is no %s\n' "$QB_NAME/$volume.img" >&2
                exit 4
            }
        done
        echo - | came
        ;;
    *)
        if [[ $QB_VERSION = 3 && $QB_NAME != *.img ]]; then # maybe a directory
            decompress | qb-tarextract --list "$QB_NAME" >/dev/null && echo - | came
        else
            decompress | qb-tarextract --list "$QB_NAME" | came
        fi
        ;;
esac
