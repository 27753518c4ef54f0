# handlers.inc.sh - how the handlers' tests start a handler: in the minimal
# environment that vsrun gives it, in $T, with no settings file but $T/conf.
# shellcheck shell=sh

# handler NAME [VARIABLE=VALUE...]
handler() {
    name=$1
    shift
    env -i "PATH=$PATH" "HANDLERS_CONF=$T/conf" "TMPDIR=$T" \
        VSRUN_SERVER_COMMAND="/usr/sbin/fooserver -x" \
        VSRUN_SERVER_UPTIME=3 VSRUN_SERVER_EXITED=0 VSRUN_SERVER_TERMSIG=11 \
        VSRUN_SERVER_COREDUMP=0 VSRUN_SERVER_EXPLAIN="terminated by signal 11" \
        VSRUN_SERVER_PID=4242 VSRUN_MANAGER_PID=4241 VSRUN_SERVER_RESTARTS=2 \
        "$@" "$HANDLERS/$name"
}

# One line that names the handler and the decision.
says() {
    equal 1 "$(grep -c "^$1: " "$T/err")"
    shows "$T/err" "$2"
}

# Bytes that someone might send to break out of a line, a header or a string.
hostile=$(printf 'a\nBcc: victim@example.org\r\n\t"\\$(touch broken)`touch broken`;\033[31m\377\302\240\360\237\230\200~!touch broken')
