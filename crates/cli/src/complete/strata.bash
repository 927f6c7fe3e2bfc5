# Completion of strata in bash: the program itself says what may come.
_strata() {
    # bash parts words at `:` and `=` too, names of images have both: what no blank parts is one.
    local rest=${COMP_LINE:0:COMP_POINT} i word words=() IFS=$'\013'
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${rest#"${rest%%[![:blank:]]*}"}
        [[ $i == "$COMP_CWORD" || $word != "${COMP_WORDS[i]}"* ]] || word=${COMP_WORDS[i]}
        if [[ $i == 0 || $rest == [[:blank:]]* ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        rest=${rest#"${rest%%[![:blank:]]*}"}
        rest=${rest#"$word"}
    done
    local last=${words[${#words[@]} - 1]} offers offer
    offers=($(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) \
        STRATA_COMPLETE=bash "${1/#\~/$HOME}" -- "${words[@]}" 2> /dev/null))
    COMPREPLY=()
    for offer in "${offers[@]}"; do
        # Readline replaces what comes after the last of its parting characters.
        [[ $last != *[:=]* ]] || offer=${offer#"${last%"${last##*[:=]}"}"}
        printf -v offer %q "$offer"
        COMPREPLY+=("$offer")
    done
    [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[=/:] ]] || compopt -o nospace 2> /dev/null
}
complete -o bashdefault -o nosort -F _strata strata 2> /dev/null ||
    complete -o bashdefault -F _strata strata
