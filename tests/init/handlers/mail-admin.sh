# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

# mailer NAME BODY: a program of that name, first on the handlers' PATH.
mailer() {
    mkdir -p bin
    printf '#!/bin/sh\n%s\n' "$2" >"bin/$1"
    chmod 755 "bin/$1"
}

mail_admin() {
    handler mail-admin "PATH=$T/bin:$PATH" MAIL_ADMIN_INTERVAL=0 "$@"
}

sendmail='printf "%s\n" "$*" >"'"${T:-}"'/arguments"; cat >"'"${T:-}"'/mail"'

# header NAME: prints that field of the mail, unfolded.
header() {
    awk -v name="$1:" '/^$/ { exit } /^[^ ]/ { on = $1 == name } on { printf "%s", $0 }' mail
}

the_mail_has_host_command_reason_uptime_restarts_and_log() { # test
    mailer sendmail "$sendmail"
    mkdir log
    seq 1 30 >log/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/log" VSRUN_SERVER_UPTIME=93784 VSRUN_SERVER_USER=foo
    says mail-admin 'mail-admin: mail to root handed over'
    equal '-oi -t' "$(cat arguments)"
    sed '/^$/q' mail >header
    shows header 'To: root'
    shows header "Subject: [vsrun] fooserver RESTARTED on $(uname -n): terminated by signal 11 (SEGV)"
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
    equal 'To: a@example.org, b' "$(header To)"
    shows header 'From: x Bcc: victim'
}

no_recipient_is_lost_however_many_there_are() { # test
    mailer sendmail "$sendmail"
    many=$(seq 1 200 | sed 's/.*/operator-number-&@example.org/' | tr '\n' ' ')
    expect 0 mail_admin "MAIL_ADMIN_TO=$many"
    equal "To: ${many% }" "$(header To | tr -d ,)"
    [ "$(awk '{ if (length($0) > n) n = length($0) } END { print n }' mail)" -lt 998 ] || fail "a long line"
}

an_address_may_have_a_name() { # test
    mailer sendmail "$sendmail"
    while IFS='|' read -r setting addresses; do
        expect 0 mail_admin "MAIL_ADMIN_TO=$setting"
        equal "To: $addresses" "$(header To)"
        hides err 'is no address'
    done <<'EOT'
Ops Team <ops@example.org>|ops@example.org
<ops@example.org>, Jane <jane@example.org>|ops@example.org, jane@example.org
root,Ops Team<ops@example.org>,"Doe, <Jane>" <jane@example.org> , foo|root, ops@example.org, jane@example.org, foo
a@example.org b@example.org Jane Doe <jane@example.org> root|a@example.org, b@example.org, jane@example.org, root
jane@example.org (Jane, at night)|jane@example.org
EOT
}

# last_mail SECONDS: lets the last mail be sent so long ago.
last_mail() {
    read -r up rest </proc/uptime
    read -r sent unsent <"$(echo "$T"/mail-admin.*)"
    echo "$((${up%%.*} - $1)) $unsent" >"$(echo "$T"/mail-admin.*)"
}

one_mail_in_an_interval_stands_for_all_deaths() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin MAIL_ADMIN_INTERVAL=
    hides mail deaths
    last_mail 800
    rm mail
    for death in 1 2; do
        expect 0 mail_admin MAIL_ADMIN_INTERVAL=
        says mail-admin 'no mail: the last one was sent 80'
        [ ! -e mail ] || fail "there is a mail"
    done
    last_mail 900
    expect 0 mail_admin MAIL_ADMIN_INTERVAL=
    shows mail 'This mail stands for 3 deaths'
    shows mail 'terminated by signal 11 (SEGV), 3 deaths'
    # Another manager's server has mails of its own.
    rm mail
    expect 0 mail_admin MAIL_ADMIN_INTERVAL= VSRUN_MANAGER_PID=$((no_process + 1))
    hides mail deaths
}

down_is_always_mailed() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin MAIL_ADMIN_INTERVAL=
    expect 0 mail_admin MAIL_ADMIN_INTERVAL=
    says mail-admin 'no mail: '
    expect 0 mail_admin MAIL_ADMIN_INTERVAL= CHAIN_REFUSED_BY=x
    equal "Subject: [vsrun] fooserver DOWN on $(uname -n): terminated by signal 11 (SEGV), 2 deaths" "$(header Subject)"
}

a_mail_that_was_not_sent_does_not_count() { # test
    mailer sendmail 'exit 75'
    expect 0 mail_admin MAIL_ADMIN_INTERVAL=
    mailer sendmail "$sendmail"
    expect 0 mail_admin MAIL_ADMIN_INTERVAL=
    shows mail 'This mail stands for 2 deaths'
}

where_no_time_can_be_kept_a_crash_loop_is_not_mailed() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin MAIL_ADMIN_INTERVAL= MAIL_ADMIN_STATE_DIR=/nonexistent
    says mail-admin 'no mail: the time of the last one cannot be kept'
    for variable in VSRUN_SERVER_RESTARTS=0 VSRUN_SERVER_UPTIME=900 CHAIN_REFUSED_BY=x; do
        expect 0 mail_admin MAIL_ADMIN_INTERVAL= MAIL_ADMIN_STATE_DIR=/nonexistent "$variable"
        says mail-admin 'handed over'
    done
}

a_log_that_another_user_can_replace_is_not_mailed() { # test
    mailer sendmail "$sendmail"
    open_folder open
    echo secret >secret
    ln -s "$T/secret" open/logfile
    expect 0 mail_admin "VSRUN_LOGDIR=$T/open"
    shows mail "$T/open/logfile is not shown: other users can change or replace it."
    hides mail secret
}

words_that_mean_options_files_or_programs_are_no_addresses() { # test
    mailer sendmail "$sendmail"
    expect 0 mail_admin 'MAIL_ADMIN_TO=-oQ/tmp |/bin/sh /etc/passwd ops * :include:x'
    shows err "'|/bin/sh' in MAIL_ADMIN_TO is no address"
    shows mail 'To: ops'
    expect 0 mail_admin 'MAIL_ADMIN_TO=a@x.org;b@x.org List: c@x.org@y'
    equal 'To: a@x.org, b@x.org' "$(header To)"
    shows err "'c@x.org@y' in MAIL_ADMIN_TO is no address"
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
    equal "[-s][[vsrun] a RESTARTED on $(uname -n): terminated by signal 11 (SEGV)][root][ops@example.org]" \
        "$(cat arguments)"
    hides mail Subject:
    shows mail 'Reason:    terminated by signal 11'
}

a_refusal_in_the_chain_is_told() { # test
    mailer sendmail "$sendmail"
    expect 1 handler chain "PATH=$T/bin:$PATH" 'CHAIN_HANDLERS=normal-signals mail-admin' VSRUN_SERVER_TERMSIG=15
    shows mail 'Decision:  it stays down: normal-signals refused the restart'
    equal "Subject: [vsrun] fooserver DOWN on $(uname -n): terminated by signal 11 (TERM)" "$(header Subject)"
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
