#compdef strata
# Completion of strata in zsh: the program itself says what may come.
_strata() {
    local offer value
    local -a offers open closed
    offers=("${(@f)$(_CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((CURRENT - 1)) \
        STRATA_COMPLETE=zsh ${(Q)words[1]} -- "${words[@]}" 2> /dev/null)}")
    for offer in "${offers[@]}"; do
        # VALUE:HELP, with \: for the colons of the value.
        value=${${offer//\\:/$'\001'}%%:*}
        case $value in
            '') ;;
            *[/=$'\001']) open+=("$offer") ;;
            *) closed+=("$offer") ;;
        esac
    done
    (( ! $#open )) || _describe -V values open -S ''
    (( ! $#closed )) || _describe -V values closed
}
# From a file of $fpath it is called; from `source`, it is made known.
if [ "$funcstack[1]" = _strata ]; then _strata "$@"; else compdef _strata strata; fi
