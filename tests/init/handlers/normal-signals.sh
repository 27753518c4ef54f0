# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

by_default_hup_int_quit_kill_and_term_keep_the_server_down() { # test
    for signal in 1 2 3 9 15; do
        expect 1 handler normal-signals VSRUN_SERVER_TERMSIG=$signal
        says normal-signals 'stay down: '
    done
}

a_crash_is_restarted() { # test
    for signal in 4 5 6 7 8 11 13 14 24 25 31 34 40 64; do
        expect 0 handler normal-signals VSRUN_SERVER_TERMSIG=$signal
        says normal-signals 'restart: '
    done
}

an_exit_is_restarted_whatever_its_status() { # test
    for code in 1 15 143; do
        expect 0 env -i VSRUN_SERVER_EXITED=1 VSRUN_SERVER_EXITSTATUS=$code \
            "VSRUN_SERVER_EXPLAIN=exited with status $code" "HANDLERS_CONF=$T/conf" "$HANDLERS/normal-signals"
        says normal-signals "restart: exited with status $code"
    done
}

names_numbers_prefixes_and_cases_are_understood() { # test
    for list in SEGV segv SIGSEGV sigsegv 11 'USR1 11' '* 11'; do
        expect 1 handler normal-signals "NORMAL_SIGNALS=$list"
    done
    for list in 1 SEG 111 USR1 '*' '?' 'S*'; do
        expect 0 handler normal-signals "NORMAL_SIGNALS=$list"
    done
}

the_oom_killer_is_not_a_normal_end() { # test
    expect 0 handler normal-signals VSRUN_SERVER_TERMSIG=9 VSRUN_SERVER_OOM=1
    expect 1 handler normal-signals VSRUN_SERVER_TERMSIG=9 VSRUN_SERVER_OOM=0
}

a_signal_that_is_no_number_is_restarted() { # test
    for signal in '' x '15;touch broken' 0x0f ' 15' 99999999999999999999; do
        expect 0 handler normal-signals "VSRUN_SERVER_TERMSIG=$signal"
    done
    [ ! -e broken ] || fail "it was executed"
}
