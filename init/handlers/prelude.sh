# prelude.sh - what every handler in this directory starts with. It is read
# with `.` and never executed; a handler that is copied elsewhere needs a copy
# of this file beside it.
#
# Decisions
#   A handler that decides ends through `restart` or `refuse`, one that only
#   reports through `report`; each prints one line on standard error. Any other
#   end is an error of the handler. It is reported, and the status is 0: only a
#   decision keeps the server down. This holds without a free process or disk
#   space, too, so the handler ignores SIGPIPE and SIGXFSZ and sets its trap
#   before all else, and what the trap runs is built into the shell. Only
#   signals that cannot be caught still end a handler; vsrun takes that for a
#   refusal.
#
# Files
#   A handler may run as root where another user owns the log directory. So it
#   reads and writes only what `is_ours_alone` accepts. It works in /, because
#   find(1) and others fail in a directory that they cannot come back to.
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
#   variable HANDLERS_CONF names. It decides which programs the server's user
#   runs, so it must belong to root or to the user who reads it, and so must
#   the directories above it, and no other user may write to them: root and
#   mode 0644, or 0640 and the server's group where it holds a secret. A file
#   that other users can change or that cannot be read is reported, and the
#   handler uses its defaults.
#
#   No setting's name starts with VSRUN_: vsrun removes such names from its
#   environment before it says there what became of the server.
#
# Needs coreutils, findutils, sed and (notify-webhook) awk, or busybox.
#
# shellcheck shell=sh

# The handler's status once it has decided.
answer=
self=${0##*/}
trap 'end "$?"' EXIT

# The server's values may hold any bytes, and every tool must take them so.
LC_ALL=C
# vsrun may be started with no PATH at all, and sendmail(8) is in an sbin.
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
umask 077

started_in=${PWD:-/}
cd /

# restart REASON...
restart() {
    answer=0
    say "restart: $*"
    exit 0
}

# refuse STATUS REASON...
refuse() {
    answer=$1
    shift
    say "stay down: $*"
    exit "$answer"
}

# report WHAT...: ends a handler that decides nothing.
report() {
    answer=0
    say "$*"
    exit 0
}

end() {
    if [ -z "$answer" ]; then
        printf '%s: an error ended this handler (status %s); it does not refuse the restart\n' \
            "$self" "$1" >&2 2>/dev/null || :
    fi
    exit "${answer:-0}"
}

# Prints one line on standard error, whatever bytes its words hold.
say() {
    message="$self: $*"
    case $message in
        *[[:cntrl:]]*) message=$(one_line "$message") ;;
    esac
    printf '%s\n' "$message" >&2 2>/dev/null || :
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
    absolute "${HANDLERS_CONF:-/etc/vsrun/handlers.conf}"
    file=$full
    if [ "$wanted" = ' ' ] || [ ! -e "$file" ]; then
        return 0
    fi
    if ! is_ours_alone "$file"; then
        say "ignoring $file: it and all directories above it must belong to root or this user," \
            "and no other user may write to them"
        return 0
    fi
    if [ ! -f "$real" ] || [ ! -r "$real" ]; then
        say "ignoring $file: it cannot be read"
        return 0
    fi
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        read_setting || say "line $number of $file is not NAME=value"
    done <"$real"
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

# Sets full to the argument, from the directory that the handler started in.
absolute() {
    case $1 in
        /*) full=$1 ;;
        *) full=$started_in/$1 ;;
    esac
}

# is_ours_alone PATH: true if only root and this user can change what is there
# or put something else in its place. Sets real to the path without symbolic
# links: use that one.
is_ours_alone() {
    check_permissions no "$1"
}

# is_safe_folder PATH: true if only root and this user can change or replace
# what belongs to them there, as in /tmp. Sets real, too.
is_safe_folder() {
    check_permissions yes "$1"
}

# check_permissions STICKY PATH: looks at PATH, at all directories above it and
# at those of each symbolic link on the way. In a directory with the sticky bit
# other users cannot remove or rename what is not theirs; STICKY says whether
# that is enough for PATH itself.
check_permissions() {
    sticky_is_safe=$1
    absolute "$2"
    real=$full
    user=$(id -u)
    hops=40
    while [ "$hops" -gt 0 ] && walk_up; do
        [ -n "$link" ] || return 0
        target=$(readlink "$link") || return 1
        case $target in
            /*) ;;
            *) target=${link%/*}/$target ;;
        esac
        real=$target${real#"$link"}
        hops=$((hops - 1))
    done
    return 1
}

# Looks at real and at all directories above it, as far as they are known. Sets
# link to the first symbolic link among them. Returns 1 if one is not safe.
walk_up() {
    link=
    ancestor=$real
    set -- "$real"
    while [ "$ancestor" != / ]; do
        [ ! -h "$ancestor" ] || link=$ancestor
        ancestor=${ancestor%/*}
        ancestor=${ancestor:-/}
        set -- "$@" "$ancestor"
    done
    permissions=$(stat -c '%u %a %F,%G' "$@" 2>/dev/null) || return 1
    sticky=$sticky_is_safe
    above=no
    while IFS=' ' read -r owner mode kind_and_group; do
        case $owner in
            0 | "$user") ;;
            *) return 1 ;;
        esac
        case $sticky$mode:$above:$kind_and_group in
            *:'symbolic link,'* | yes[1357]???:*) ;;
            # Debian's /usr/local and Ubuntu's /var/log.
            *[2367][0145]:yes:directory,staff | *[2367][0145]:yes:directory,syslog) ;;
            *[2367]:* | *[2367]?:*) return 1 ;;
        esac
        above=yes
        sticky=yes
    done <<EOT
$permissions
EOT
}

# Sets clock to seconds that a change of the date does not disturb.
read_clock() {
    if read -r clock rest </proc/uptime; then
        clock=${clock%%.*}
    else
        clock=$(date +%s)
    fi 2>/dev/null
}

# Sets manager to what no other manager has: its id, its start time (field 22
# of proc_pid_stat(5), behind a name in parentheses) and the boot's id. A
# container that is started again uses the same ids again. Returns 1 without a
# manager.
identify_manager() {
    manager=${VSRUN_MANAGER_PID:-}
    is_number "$manager" || return 1
    fields=$(cat "/proc/$manager/stat" 2>/dev/null) || fields=
    # shellcheck disable=SC2086 # one word for each field
    set -- ${fields##*)}
    shift "$(($# < 20 ? $# : 19))"
    boot=
    read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || :
    manager=$manager.${1:--}.${boot:--}
}

# choose_record NAME FOLDER: sets record to the file in which the handler NAME
# keeps what it remembers about this manager, empty at first. It is in FOLDER,
# if that is set, else in the first of these that is safe and writable: the log
# directory, TMPDIR, root's /run/vsrun, /tmp. The end of its name is random, so
# that no other user can take the name first. Returns 1 if there is no place.
choose_record() {
    identify_manager || return 1
    record_name=$1
    if [ -n "$2" ]; then
        set -- "$2"
    else
        set -- "${VSRUN_LOGDIR:-}" "${TMPDIR:-}" /run/vsrun /tmp
    fi
    for folder in "$@"; do
        if [ "$folder" = /run/vsrun ] && [ "$(id -u)" = 0 ]; then
            mkdir -m 0755 "$folder" 2>/dev/null || :
        fi
        if [ -n "$folder" ] && is_safe_folder "$folder" && [ -d "$real" ] && [ -w "$real" ] &&
            find_record; then
            return 0
        fi
    done
    return 1
}

# Finds or makes the record in the folder $real, and removes those of managers
# that are long gone.
find_record() {
    record=$(
        exec 2>/dev/null
        cd "$real"
        find . -maxdepth 1 -type f -user "$user" -name "$record_name.*" -mtime +7 -exec rm -f {} +
        find . -maxdepth 1 -type f -user "$user" -name "$record_name.$manager.??????" | head -n 1
    ) || :
    record=$real/${record#./}
    [ -f "$record" ] ||
        record=$(mktemp "$real/$record_name.$manager.XXXXXX" 2>/dev/null)
}

# write_record LINE...: replaces the record's lines, or returns 1.
write_record() {
    fresh=$(mktemp "$record.XXXXXX" 2>/dev/null) || return 1
    if ! printf '%s\n' "$@" 2>/dev/null >"$fresh" || ! mv -f "$fresh" "$record"; then
        rm -f "$fresh"
        return 1
    fi
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
