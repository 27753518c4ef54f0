# Completion of vsrun(8) for bash(1). Made by `cargo xtask completions`: change
# xtask/src/completions/vsrun.bash.in or the options' definition instead.

# Completes one word as a value of kind $1; what bash-completion has is used
# where it is loaded.
_vsrun_value() {
    case $1 in
    user)
        if declare -F _usergroup >/dev/null; then
            _usergroup
        else
            mapfile -t COMPREPLY < <(compgen -u -- "$cur")
        fi
        ;;
    file)
        if declare -F _filedir >/dev/null; then
            _filedir
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        ;;
    directory)
        if declare -F _filedir >/dev/null; then
            _filedir -d
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        fi
        ;;
    keep)
        mapfile -t COMPREPLY < <(compgen -W '12h 7d 4w 2m' -- "$cur")
        ;;
    esac
}

# Completes the server's command line, which begins at word $1.
_vsrun_command() {
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    else
        compopt -o filenames
        if ((COMP_CWORD == $1)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
    fi
}

_vsrun() {
    local cur prev words cword split=false
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD - 1]}
    words=("${COMP_WORDS[@]}")
    cword=$COMP_CWORD
    COMPREPLY=()

    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            _vsrun_command $((i + 1))
            return
        fi
    done

    if declare -F _init_completion >/dev/null; then
        _init_completion -s -n : || return
    fi

    case $prev in
    -u | --user) _vsrun_value user; return ;;
    -p | --pidfile) _vsrun_value file; return ;;
    -r | --root) _vsrun_value directory; return ;;
    -w | --work-dir) _vsrun_value directory; return ;;
    -m | --manager) _vsrun_value file; return ;;
    -s | --syslog) return ;;
    -d | --logdir) _vsrun_value directory; return ;;
    esac
    [[ $split == true ]] && return
    case ${words[cword >= 2 ? cword - 2 : 0]} in
    -m | --manager) _vsrun_value file; return ;;
    -d | --logdir) _vsrun_value keep; return ;;
    esac

    # Each option may be given once, and some exclude each other.
    local word given=' ' left=()
    for word in "${words[@]:1:cword-1}"; do
        case $word in
        -u | --user | --user=*) given+='-u --user ' ;;
        -p | --pidfile | --pidfile=*) given+='-p --pidfile ' ;;
        -r | --root | --root=*) given+='-r --root ' ;;
        -w | --work-dir | --work-dir=*) given+='-w --work-dir ' ;;
        -m | --manager | --manager=*) given+='-m --manager ' ;;
        -b | --background) given+='-b --background ' ;;
        -s | --syslog | --syslog=*) given+='-s --syslog -d --logdir ' ;;
        -d | --logdir | --logdir=*) given+='-s --syslog -d --logdir ' ;;
        -h | --help) given+='-h --help ' ;;
        -V | --version) given+='-V --version ' ;;
        esac
    done
    for word in -u --user -p --pidfile -r --root -w --work-dir -m --manager -b --background -s --syslog -d --logdir -h --help -V --version --; do
        [[ $given == *" $word "* ]] || left+=("$word")
    done
    mapfile -t COMPREPLY < <(compgen -W "${left[*]}" -- "$cur")
}

complete -F _vsrun vsrun
