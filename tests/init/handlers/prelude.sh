# What all handlers share: settings, decisions, messages.
# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

settings_come_from_the_file() { # test
    echo 'NORMAL_SIGNALS=SEGV' >conf
    expect 1 handler normal-signals
    says normal-signals 'stay down: '
}

the_environment_wins_over_the_file() { # test
    echo 'NORMAL_SIGNALS=SEGV' >conf
    expect 0 handler normal-signals NORMAL_SIGNALS=USR1
}

an_empty_environment_variable_is_a_setting() { # test
    echo 'CHAIN_HANDLERS=/bin/false' >conf
    expect 0 handler chain CHAIN_HANDLERS=
}

quotes_comments_blanks_and_a_missing_last_newline_are_read() { # test
    printf '# NORMAL_SIGNALS=USR1\n\n  \t NORMAL_SIGNALS=USR2\n\tNORMAL_SIGNALS="SEGV ABRT"  ' >conf
    expect 1 handler normal-signals
    says normal-signals 'stay down: '
    printf "NORMAL_SIGNALS='SEGV'\n" >conf
    expect 1 handler normal-signals
}

the_settings_file_is_never_executed() { # test
    printf '%s\n' 'NORMAL_SIGNALS=$(touch broken)' 'touch broken' 'X=`touch broken`' \
        'PATH=/nonexistent' 'self=x' 'a b=c' 'NORMAL_SIGNALS;touch broken=1' >conf
    expect 0 handler normal-signals
    [ ! -e broken ] || fail "it was executed"
    shows "$T/err" "line 2 of $T/conf is not NAME=value"
    shows "$T/err" 'normal-signals: restart: '
}

a_settings_file_that_others_may_write_is_ignored() { # test
    echo 'NORMAL_SIGNALS=SEGV' >conf
    for mode in 666 664 646; do
        chmod "$mode" conf
        expect 0 handler normal-signals
        shows "$T/err" "ignoring $T/conf"
    done
    chmod 640 conf
    expect 1 handler normal-signals
}

a_settings_file_that_is_a_strangers_or_unreadable_is_reported() { # test
    echo 'NORMAL_SIGNALS=SEGV' >conf
    if [ "$(id -u)" = 0 ]; then
        chown 1 conf
        expect 0 handler normal-signals
        shows err "ignoring $T/conf: it and all directories above it"
    else
        # Only root can give a file away, and root may read everything.
        chmod 0 conf
        expect 0 handler normal-signals
        shows err "ignoring $T/conf: it cannot be read"
    fi
}

a_settings_file_in_a_directory_that_another_user_can_change_is_ignored() { # test
    open_folder open
    echo 'NORMAL_SIGNALS=SEGV' >open/conf
    expect 0 handler normal-signals "HANDLERS_CONF=$T/open/conf"
    shows err "ignoring $T/open/conf"
    ln -s "$T/open/conf" conf
    expect 0 handler normal-signals
    shows err "ignoring $T/conf"
}

the_sample_settings_file_is_read_without_a_word() { # test
    cp "$HANDLERS/handlers.conf" conf
    expect 0 handler normal-signals
    equal 1 "$(wc -l <err | tr -d ' ')"
    sed 's/^#\([A-Z]\)/\1/' "$HANDLERS/handlers.conf" >conf
    expect 0 handler normal-signals
    equal 1 "$(wc -l <err | tr -d ' ')"
}

every_setting_of_the_sample_file_belongs_to_a_handler() { # test
    sed -n 's/^#*\([A-Z_]*\)=.*/\1/p' "$HANDLERS/handlers.conf" | sort >in_sample
    cat "$HANDLERS"/[a-z]*[a-z] | tr -s ' \\\n' '\n' | grep -E '^(CHAIN_HANDLERS|NORMAL_SIGNALS|(UPTIME_THRESHOLD|ARCHIVE_CORE|MAIL_ADMIN|NOTIFY_WEBHOOK)_[A-Z_]+)$' | sort -u >in_handlers
    diff in_sample in_handlers || fail "they differ"
}

a_lost_or_full_standard_error_decides_nothing() { # test
    expect 0 sh -c '"$0" 2>/dev/full' "$HANDLERS/chain"
    expect 0 sh -c '"$0" 2>&-' "$HANDLERS/chain"
    # The reader is gone before the handler writes.
    mkfifo pipe
    (exec <pipe) &
    exec 9>pipe
    wait
    expect 0 sh -c '"$0" 2>&9' "$HANDLERS/chain"
    expect 1 sh -c 'NORMAL_SIGNALS=15 VSRUN_SERVER_TERMSIG=15 "$0" 2>&9' "$HANDLERS/normal-signals"
}

every_handler_works_without_path_and_without_any_variable() { # test
    for handler in chain normal-signals uptime-threshold archive-core mail-admin notify-webhook; do
        expect 0 env -i "HANDLERS_CONF=$T/conf" "TMPDIR=$T" NOTIFY_WEBHOOK_URL= MAIL_ADMIN_TO=- "$HANDLERS/$handler"
        case $handler in
            chain | normal-signals | uptime-threshold) shows err "$handler: restart: " ;;
            *) hides err restart ;;
        esac
    done
}

a_message_is_one_line_whatever_the_server_was_called() { # test
    expect 0 handler normal-signals "VSRUN_SERVER_EXPLAIN=$hostile"
    equal 1 "$(wc -l <err | tr -d ' ')"
    hides err "$(printf '\033')"
    [ ! -e broken ] || fail "it was executed"
}

a_handler_works_through_a_symbolic_link_and_from_any_directory() { # test
    ln -s "$HANDLERS/normal-signals" mine
    mkdir gone
    cd gone
    rmdir ../gone
    expect 1 env -i VSRUN_SERVER_TERMSIG=15 "$T/mine"
    cd "$T"
    expect 1 env -i VSRUN_SERVER_TERMSIG=15 ./mine
    shows err 'mine: stay down: '
}

an_error_of_the_handler_itself_does_not_keep_the_server_down() { # test
    mkdir copy
    cp "$HANDLERS/prelude.sh" copy
    printf '#!/bin/sh\nset -eu\n. %s/copy/prelude.sh\nfalse\n' "$T" >copy/errs
    printf '#!/bin/sh\nset -eu\n. %s/copy/prelude.sh\necho "$unset"\n' "$T" >copy/unset
    chmod 755 copy/errs copy/unset
    expect 0 copy/errs
    says errs 'an error ended this handler (status 1); it does not refuse the restart'
    expect 0 copy/unset
    says unset 'an error ended this handler'
}

without_a_process_to_be_had_no_handler_refuses() { # test
    need prlimit
    # Root has no such limit.
    [ "$(id -u)" != 0 ] || return 0
    within='prlimit --nproc=1'
    for handler in chain normal-signals uptime-threshold archive-core mail-admin notify-webhook; do
        expect 0 handler "$handler" NORMAL_SIGNALS=SEGV UPTIME_THRESHOLD_BURST=0 CHAIN_HANDLERS=normal-signals
    done
}

without_the_prelude_no_handler_refuses() { # test
    for handler in chain normal-signals uptime-threshold archive-core mail-admin notify-webhook; do
        cp "$HANDLERS/$handler" .
        expect 0 env -i "$T/$handler"
    done
}

a_log_that_has_reached_its_limit_decides_nothing() { # test
    need prlimit
    head -c 4096 /dev/zero >log
    within='prlimit --fsize=4096'
    for handler in chain normal-signals uptime-threshold archive-core mail-admin notify-webhook; do
        handler "$handler" 2>>log || fail "$handler: $?"
    done
    ! handler normal-signals NORMAL_SIGNALS=SEGV 2>>log || fail "it does not refuse"
}

a_directory_that_it_cannot_come_back_to_changes_nothing() { # test
    echo 'UPTIME_THRESHOLD_BURST=1' >conf
    mkdir gone
    cd gone
    chmod 0 "$T/gone"
    rmdir "$T/gone"
    expect 0 handler uptime-threshold
    says uptime-threshold 'short life 1 in'
    expect 1 handler uptime-threshold
    says uptime-threshold 'short life 2 in'
}

every_handler_says_in_its_header_what_to_know() { # test
    for handler in chain normal-signals uptime-threshold archive-core mail-admin notify-webhook; do
        sed '/^#/!q' "$HANDLERS/$handler" >header
        for part in "# $handler - a termination handler for vsrun(8)" '# Settings' '# Exit status' '# Example'; do
            shows header "$part"
        done
    done
}

the_tests_run_under_the_shell_they_name() { # test
    status_of /bin/sh --help
    case $SHELL_UNDER_TEST in
        busybox) shows err BusyBox ;;
        *) hides err BusyBox ;;
    esac
}
