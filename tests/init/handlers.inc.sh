# handlers.inc.sh - how the handlers' tests start a handler: in the minimal
# environment that vsrun gives it, in $T, with no settings file but $T/conf.
# The words of $within execute it, if there are any.
# shellcheck shell=sh

# More than the kernel gives to any process (PID_MAX_LIMIT).
no_process=4194305

# handler NAME [VARIABLE=VALUE...]
handler() {
    name=$1
    shift
    # shellcheck disable=SC2086 # a program and its options, or nothing
    env -i "PATH=$PATH" "HANDLERS_CONF=$T/conf" "TMPDIR=$T" \
        VSRUN_SERVER_COMMAND="/usr/sbin/fooserver -x" \
        VSRUN_SERVER_UPTIME=3 VSRUN_SERVER_EXITED=0 VSRUN_SERVER_TERMSIG=11 \
        VSRUN_SERVER_COREDUMP=0 VSRUN_SERVER_EXPLAIN="terminated by signal 11" \
        VSRUN_SERVER_PID=4242 VSRUN_MANAGER_PID=$no_process VSRUN_SERVER_RESTARTS=2 \
        "$@" ${within:-} "$HANDLERS/$name"
}

# open_folder DIRECTORY: makes one in which another user can replace files.
open_folder() {
    mkdir "$1"
    if [ "$(id -u)" = 0 ]; then
        chown 1 "$1"
    else
        # Only root can give a directory away.
        chmod 777 "$1"
    fi
}

# One line that names the handler and the decision.
says() {
    equal 1 "$(grep -c "^$1: " "$T/err")"
    shows "$T/err" "$2"
}

# Bytes that someone might send to break out of a line, a header or a string.
hostile=$(printf 'a\nBcc: victim@example.org\r\n\t"\\$(touch broken)`touch broken`;\033[31m\377\302\240\360\237\230\200~!touch broken')
