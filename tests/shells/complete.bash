# Prints what bash would offer for the command line $1, one word a line. $2 is
# bash-completion's own file, or empty.
set -u
line=$1

if [[ -n $2 ]]; then
    set +u
    # shellcheck disable=SC1090
    . "$2"
fi
. completions/vsrun.bash

# readline(3) breaks words at = and : as well, and keeps these as words.
spaced=${line//=/ = }
spaced=${spaced//:/ : }
read -ra COMP_WORDS <<<"$spaced"
[[ $line == *[\ =:] ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE=$line
COMP_POINT=${#line}
COMP_TYPE=9
COMP_KEY=9
COMPREPLY=()

# It is an error outside a completion.
compopt() { :; }

_vsrun vsrun "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
