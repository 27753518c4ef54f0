# Makes the completion of an interactive zsh write its matches to $OFFERED.
compadd() {
    local -a matches
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        # A function only wants to know.
        builtin compadd "$@"
        return
    fi
    builtin compadd -A matches "$@"
    (( $#matches )) && print -rl -- $matches >>$OFFERED
    builtin compadd "$@"
}

offered() { print OFFERED; }
comppostfuncs=(offered)
bindkey '^I' complete-word
print READY
