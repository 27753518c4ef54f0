# prelude.sh - what every handler in this directory starts with. It is read
# with `.` and never executed; a handler that is copied elsewhere needs a copy
# of this file beside it.
#
# Decisions
#   A handler ends through `restart` or `refuse`, each of which says why in
#   one line on standard error. Any other end is an accident and does not keep
#   the server down: it is reported, and the status is 0. Killed by a signal,
#   a handler counts as refused, as vsrun(8) has it.
#
# Settings
#   A setting is an environment variable or, where the environment has none,
#   a line of the settings file:
#
#     # comment
#     NAME=value
#     NAME="a value with spaces "
#
#   One pair of quotes around the value is taken off; nothing is expanded and
#   nothing is executed. The last line for a name holds.
#
#   The settings file is /etc/vsrun/handlers.conf, or the one that the
#   variable HANDLERS_CONF names. Who may write it chooses which programs the
#   server's user runs, so it is believed only if it belongs to root or to the
#   user who reads it, and nobody else may write it: root and mode 0644, or
#   0640 and the server's group where it holds a secret. A file that is not
#   believed or cannot be read is reported, and the handler goes on with its
#   defaults.
#
#   No setting's name starts with VSRUN_: vsrun removes such names from its
#   environment before it says there what became of the server.
#
# Needs coreutils, findutils, sed and (notify-webhook) awk, or busybox.
#
# shellcheck shell=sh

# What a handler prints must not decide, so a lost reader must not kill it.
trap '' PIPE
trap 'end "$?"' EXIT

# The server's values may hold any bytes, and every tool must take them so.
LC_ALL=C
# vsrun may be started with no PATH at all, and sendmail(8) is in an sbin.
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
umask 077

self=${0##*/}
decided=no

restart() {
    say "restart: $*"
    decided=yes
    exit 0
}

# refuse STATUS REASON...
refuse() {
    refusal=$1
    shift
    say "stay down: $*"
    decided=yes
    exit "$refusal"
}

end() {
    if [ "$decided" = yes ]; then
        exit "$1"
    fi
    say "restart: an error ended this handler (status $1)"
    exit 0
}

# Prints one line on standard error, whatever bytes its words hold.
say() {
    printf '%s\n' "$(one_line "$self: $*")" >&2 2>/dev/null || :
}

# Prints its argument with a space for every control character, line ends
# included.
one_line() {
    printf '%s' "$1" | tr '\000-\037\177' ' '
}

# True if the argument is a decimal number that arithmetic can hold.
is_number() {
    case $1 in
        0) ;;
        '' | 0* | *[!0-9]* | ????????????????*) return 1 ;;
    esac
}

# limited SECONDS COMMAND...: runs a command for at most so long, and then
# returns 124. It stays in our process group, so that whoever ends the handler
# ends it too: GNU timeout would give it one of its own, busybox never does.
limited() {
    seconds=$1
    shift
    together=
    if timeout --foreground 1 true 2>/dev/null; then
        together=--foreground
    fi
    limited_status=0
    # shellcheck disable=SC2086 # one option or none
    timeout $together -k 2 "$seconds" "$@" || limited_status=$?
    case $limited_status in
        # A busybox says what signal it took.
        137 | 143) limited_status=124 ;;
    esac
    return "$limited_status"
}

# load_settings NAME...: gives each of these variables the value that the
# settings file has for it, unless the environment has set it.
load_settings() {
    wanted=' '
    for name in "$@"; do
        if eval "[ -z \"\${$name+set}\" ]"; then
            wanted="$wanted$name "
        fi
    done
    file=${HANDLERS_CONF:-/etc/vsrun/handlers.conf}
    if [ "$wanted" = ' ' ] || [ ! -e "$file" ]; then
        return 0
    fi
    if ! is_ours_alone "$file"; then
        say "ignoring $file: others than root and I own it or may write it"
        return 0
    fi
    if [ ! -f "$file" ] || [ ! -r "$file" ]; then
        say "ignoring $file: I cannot read it"
        return 0
    fi
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        read_setting || say "line $number of $file is not NAME=value"
    done <"$file"
}

# Takes the setting in $line, if it is one of $wanted.
read_setting() {
    line=$(printf '%s\n' "$line" | sed 's/^[[:space:]]*//; s/[[:space:]]*$//')
    case $line in
        '' | '#'*) return 0 ;;
        [A-Za-z_]*=*) ;;
        *) return 1 ;;
    esac
    name=${line%%=*}
    case $name in
        *[!A-Za-z0-9_]*) return 1 ;;
    esac
    value=${line#*=}
    case $value in
        \"*\" | \'*\')
            value=${value#?}
            value=${value%?}
            ;;
    esac
    # Only a name that the handler itself asked for gets this far into eval.
    case $wanted in
        *" $name "*) eval "$name=\$value" ;;
    esac
}

# number_setting NAME DEFAULT: without a value, or with one that is no number,
# the setting has the default.
number_setting() {
    eval "value=\${$1:-}"
    if ! is_number "$value"; then
        [ -z "$value" ] || say "$1 is no number: '$value', so it is $2"
        eval "$1=\$2"
    fi
}

# True if the path belongs to root or to us, and nobody else may write it.
is_ours_alone() {
    found=$(find -H "$1" -prune \( -user 0 -o -user "$(id -u)" \) \
        ! -perm -020 ! -perm -002 2>/dev/null) || return 1
    [ -n "$found" ]
}

# Sets server_name to the last component of the server's command, in letters
# that suit a file name and a mail header.
name_server() {
    server_name=$(printf '%s\n' "${VSRUN_SERVER_COMMAND:-}" | head -n 1 | cut -b 1-4096)
    case $server_name in
        \'*)
            server_name=${server_name#\'}
            server_name=${server_name%%\'*}
            ;;
        *) server_name=${server_name%%[[:space:]]*} ;;
    esac
    server_name=$(printf '%s' "${server_name##*/}" | tr -c 'A-Za-z0-9_+-' '_' | cut -b 1-40)
    server_name=${server_name:-server}
}
