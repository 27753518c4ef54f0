# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

# mailer NAME BODY: a program of that name, first on the handlers' PATH.
mailer() {
    mkdir -p bin
    printf '#!/bin/sh\n%s\n' "$2" >"bin/$1"
    chmod 755 "bin/$1"
}

mail_admin() {
    handler mail-admin "PATH=$T/bin:$PATH" "$@"
}

sendmail='printf "%s\n" "$*" >"'"${T:-}"'/arguments"; cat >"'"${T:-}"'/mail"'

the_mail_has_host_command_reason_uptime_restarts_and_log() { # test
    mailer sendmail "$sendmail"
    mkdir log
    seq 1 30 >log/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log" VSRUN_SERVER_UPTIME=93784 VSRUN_SERVER_USER=foo
    says mail-admin 'mail-admin: mail to root handed over'
    equal '-oi -t' "$(cat arguments)"
    sed '/^$/q' mail >header
    shows header 'To: root'
    shows header "Subject: [vsrun] $(uname -n): fooserver terminated by signal 11"
    shows header 'Auto-Submitted: auto-generated'
    hides header From:
    shows mail "Host:      $(uname -n)"
    shows mail 'Reason:    terminated by signal 11'
    shows mail 'Decision:  it is restarted'
    shows mail 'Uptime:    93784 s (1 d 2 h 3 min)'
    shows mail 'Restarts:  2'
    shows mail 'User:      foo'
    shows mail 'Command:   /usr/sbin/fooserver -x'
    shows mail "The last lines of $T/log/logfile:"
    equal "$(seq 11 30)" "$(sed -n 's/^  | //p' mail)"
}

hostile_bytes_make_no_header_and_no_command() { # test
    mailer sendmail "$sendmail"
    mkdir log
    printf '%s\n.\n~!touch broken\n\n' "$hostile" >log/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log" "VSRUN_SERVER_COMMAND=$hostile" "VSRUN_SERVER_EXPLAIN=$hostile" \
        "VSRUN_SERVER_WORKDIR=$hostile" "VSRUN_SERVER_USER=$hostile" "CHAIN_REFUSED_BY=$hostile"
    [ ! -e broken ] || fail "it was executed"
    sed '/^$/q' mail >header
    equal 6 "$(grep -c . header)"
    equal 1 "$(grep -c '^Subject: ' header)"
    ! grep -i '^bcc' mail || fail "a header got through"
    ! grep '^[~.]' mail || fail "a mailer's command got through"
    LC_ALL=C
    export LC_ALL
    equal 0 "$(tr -d '\040-\176\012' <header | wc -c | tr -d ' ')" || fail "the header is not ASCII"
    equal 0 "$(tr -d '\011\012\040-\176\200-\377' <mail | wc -c | tr -d ' ')" || fail "control characters"
    [ "$(awk '{ if (length($0) > n) n = length($0) } END { print n }' mail)" -lt 998 ] || fail "a long line"
}

settings_cannot_break_the_header_either() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin "MAIL_ADMIN_FROM=$(printf 'x\nBcc: victim')" "MAIL_ADMIN_TO=$(printf 'a@example.org,b\nBcc:victim')"
    sed '/^$/q' mail >header
    ! grep '^Bcc' header || fail "a header got through"
    shows header 'To: a@example.org, b, Bcc:victim'
    shows header 'From: x Bcc: victim'
}

words_that_mean_options_files_or_programs_are_no_addresses() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin 'MAIL_ADMIN_TO=-oQ/tmp |/bin/sh /etc/passwd ops * :include:x'
    shows err "'|/bin/sh' in MAIL_ADMIN_TO is no address"
    shows mail 'To: ops'
    expect 0 mail_admin 'MAIL_ADMIN_TO=-x'
    shows err 'mail-admin: no mail: MAIL_ADMIN_TO has no address'
}

a_long_command_and_log_fit_into_a_pipe_and_into_lines() { # test
    mailer sendmail "$sendmail"
    mkdir log
    head -c 200000 /dev/zero | tr '\0' y >log/logfile
    seq 1 20000 >>log/logfile
    long=$(head -c 102400 /dev/zero | tr '\0' x)
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log" "VSRUN_SERVER_COMMAND=/bin/$long" MAIL_ADMIN_LOG_LINES=100000
    [ "$(wc -c <mail)" -lt 60000 ] || fail "$(wc -c <mail) bytes"
    [ "$(awk '{ if (length($0) > n) n = length($0) } END { print n }' mail)" -lt 998 ] || fail "a long line"
}

a_mailer_that_reads_nothing_does_not_block() { # test
    mailer sendmail 'exec sleep 1000'
    mkdir log
    seq 1 200000 >log/logfile
    before=$(date +%s)
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log" MAIL_ADMIN_LOG_LINES=100000 MAIL_ADMIN_TIMEOUT=1
    [ $(($(date +%s) - before)) -lt 60 ] || fail "it took too long"
    says mail-admin 'mail-admin: no mail to root: the mailer took more than 1 s'
}

a_mailer_that_cannot_be_terminated_is_killed() { # test
    mailer sendmail 'trap "" TERM; sleep 1000 & wait; sleep 1000'
    before=$(date +%s)
    expect 0 mail_admin MAIL_ADMIN_TIMEOUT=1
    [ $(($(date +%s) - before)) -lt 60 ] || fail "it took too long"
    says mail-admin 'took more than 1 s'
}

what_ends_the_handler_ends_the_mailer() { # test
    mailer sendmail "echo \$\$ >'$T/mailer'; exec sleep 1000"
    setsid sh -c 'echo $$ >group; exec "$@"' sh env -i "PATH=$T/bin:$PATH" "$HANDLERS/mail-admin" 2>err &
    eventually test -s mailer
    kill -TERM "-$(cat group)"
    wait $! || :
    eventually test ! -e "/proc/$(cat mailer)"
}

a_mailer_that_leaves_a_process_behind_does_not_block() { # test
    mailer sendmail "cat >/dev/null; (sleep 1000 & echo \$! >'$T/left')"
    before=$(date +%s)
    expect 0 mail_admin
    kill "$(cat left)"
    [ $(($(date +%s) - before)) -lt 60 ] || fail "it waited"
    says mail-admin 'handed over'
}

a_mailer_that_fails_or_is_missing_restarts_all_the_same() { # test
    mailer sendmail 'echo "no permission" >&2; exit 75'
    expect 0 mail_admin
    shows err 'no permission'
    shows err 'mail-admin: no mail to root: the mailer ended with status 75'
    rm bin/sendmail
    ! command -v sendmail >/dev/null || skip "this machine has a sendmail"
    ! command -v mail >/dev/null || skip "this machine has a mail"
    expect 0 mail_admin
    says mail-admin 'mail-admin: no mail to root: sendmail or mail is missing'
}

mail_is_the_way_where_there_is_no_sendmail() { # test
    mailer mail 'for word; do printf "[%s]" "$word"; done >"'"$T"'/arguments"; cat >"'"$T"'/mail"'
    ! PATH=$PATH:/usr/sbin command -v sendmail >/dev/null || skip "this machine has a sendmail"
    expect 0 mail_admin 'MAIL_ADMIN_TO=root ops@example.org' "VSRUN_SERVER_COMMAND=$hostile"
    equal "[-s][[vsrun] $(uname -n): a terminated by signal 11][root][ops@example.org]" "$(cat arguments)"
    hides mail Subject:
    shows mail 'Reason:    terminated by signal 11'
}

a_refusal_in_the_chain_is_told() { # test
    mailer sendmail "$sendmail"
    expect 1 handler chain "PATH=$T/bin:$PATH" 'CHAIN_HANDLERS=normal-signals mail-admin' VSRUN_SERVER_TERMSIG=15
    shows mail 'Decision:  it stays down: normal-signals refused the restart'
}

the_tail_that_vsrun_prepared_comes_first() { # test
    mailer sendmail "$sendmail"
    echo prepared >tail
    mkdir log
    echo plain >log/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log" "VSRUN_SERVER_LOGTAIL=$T/tail"
    shows mail '  | prepared'
    hides mail '  | plain'
}

a_log_that_is_missing_empty_or_no_file_is_said_to_be() { # test
    mailer sendmail "$sendmail"
    mkdir log
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log"
    shows mail "Cannot read $T/log/logfile."
    : >log/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log"
    shows mail "$T/log/logfile is empty."
    rm log/logfile
    mkfifo log/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log"
    shows mail "Cannot read $T/log/logfile."
    expect 0 mail_admin
    shows mail "not in a file that this handler knows of"
    expect 0 mail_admin MAIL_ADMIN_LOG_LINES=0
    hides mail "not in a file"
}

a_quoted_command_gives_the_right_name() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin "VSRUN_SERVER_COMMAND='/opt/my apps/foo server' -x 'y z'"
    shows mail 'Server:    foo_server'
}
