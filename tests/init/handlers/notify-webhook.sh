# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

# Starts a web server that answers what $1 says (ok, error, slow, redirect) and
# keeps each request in $T/request and $T/body. Sets url.
serve() {
    need curl
    /usr/bin/env python3 --version >/dev/null 2>&1 || skip "no python3"
    cat >server.py <<'EOT'
import http.server, json, sys, time
behaviour, folder = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open(folder + "/body", "wb").write(body)
        open(folder + "/request", "w").write(self.requestline + "\n" + str(self.headers))
        if behaviour == "slow":
            time.sleep(30)
        self.send_response({"ok": 200, "slow": 200, "error": 500, "redirect": 302}[behaviour])
        if behaviour == "redirect":
            self.send_header("Location", "/elsewhere")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
open(folder + "/port.new", "w").write(str(server.server_port))
import os
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
EOT
    python3 server.py "$1" "$T" &
    server=$!
    trap 'kill "$server"' EXIT
    eventually test -f port
    url=http://127.0.0.1:$(cat port)/hook
}

# member NAME: prints a member of the body as Python sees it, and fails unless
# the body is strict JSON in ASCII.
member() {
    python3 -c '
import json, sys
body = open("body", "rb").read().decode("ascii")
print(ascii(json.loads(body)[sys.argv[1]]))' "$1"
}

a_crash_is_posted_as_json() { # test
    serve ok
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" VSRUN_SERVER_USER=foo
    says notify-webhook 'notify-webhook: delivered'
    shows request 'POST /hook HTTP/1.1'
    shows request 'Content-Type: application/json'
    equal "'server_ended'" "$(member event)"
    equal "'/usr/sbin/fooserver -x'" "$(member command)"
    equal "'fooserver'" "$(member server)"
    equal "'terminated by signal 11'" "$(member explanation)"
    equal "'$(uname -n): fooserver terminated by signal 11, and it is restarted'" "$(member text)"
    equal "'$(uname -n)'" "$(member host)"
    equal 3 "$(member uptime)"
    equal 11 "$(member signal)"
    equal None "$(member exit_status)"
    equal False "$(member exited)"
    equal False "$(member core_dumped)"
    equal 4242 "$(member pid)"
    equal "$no_process" "$(member manager_pid)"
    equal 2 "$(member restarts)"
    equal "'foo'" "$(member user)"
    equal None "$(member work_directory)"
    equal None "$(member refused_by)"
}

hostile_bytes_stay_inside_their_string() { # test
    serve ok
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" "VSRUN_SERVER_COMMAND=$hostile" \
        "VSRUN_SERVER_EXPLAIN=\"}],x" "VSRUN_SERVER_UPTIME=1,\"x\":2" VSRUN_SERVER_TERMSIG=007
    [ ! -e broken ] || fail "it was executed"
    equal "$(printf '%s' "$hostile" | python3 -c '
import sys
print(ascii(sys.stdin.buffer.read().decode("utf-8", "replace")))')" "$(member command)"
    equal "'\"}],x'" "$(member explanation)"
    equal None "$(member uptime)"
    equal None "$(member signal)"
    hides request victim
}

broken_utf_8_becomes_replacement_characters() { # test
    serve ok
    # Overlong, surrogate, too large, cut short, a lone continuation.
    bytes=$(printf 'a\300\200b\355\240\200c\364\220\200\200d\342\202e\200f\340\200\257g\360\200\200\257h\303')
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" "VSRUN_SERVER_COMMAND=$bytes"
    member command | sed 's/\\ufffd/?/g; s/??*/?/g' >found
    equal "'a?b?c?d?e?f?g?h?'" "$(cat found)"
}

a_command_of_100_kib_is_cut() { # test
    serve ok
    long=$(head -c 102400 /dev/zero | tr '\0' x)
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" "VSRUN_SERVER_COMMAND=$long"
    says notify-webhook 'notify-webhook: delivered'
    equal 4098 "$(($(member command | wc -c) - 1))"
}

the_header_is_sent_and_neither_it_nor_the_address_is_an_argument() { # test
    serve slow
    handler notify-webhook "NOTIFY_WEBHOOK_URL=$url?token=s3cret" NOTIFY_WEBHOOK_TIMEOUT=5 \
        'NOTIFY_WEBHOOK_HEADER=X-Token: "q\uote" s3cret' 2>err &
    eventually test -s request
    for process in /proc/[0-9]*; do
        tr '\0' '\n' <"$process/cmdline" >arguments 2>/dev/null || continue
        # This test's own handler has them in its environment.
        if grep -q s3cret arguments; then
            grep -q -e '^env$' -e HANDLERS_CONF arguments || fail "$(cat arguments)"
        fi
    done
    shows request 'POST /hook?token=s3cret HTTP/1.1'
    shows request 'X-Token: "q\uote" s3cret'
    wait $!
}

a_line_end_in_a_setting_adds_no_header() { # test
    serve ok
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" \
        "NOTIFY_WEBHOOK_HEADER=$(printf 'X-A: 1\r\nX-B: 2\noutput = "broken"')"
    [ ! -e broken ] || fail "curl took it as configuration"
    ! grep -q '^X-B' request || fail "$(cat request)"
}

an_error_a_refused_connection_and_a_redirection_restart_all_the_same() { # test
    serve error
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url"
    shows err 'notify-webhook: nothing delivered: curl ended with status 22'
    kill "$server"
    wait "$server" || :
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url"
    shows err 'notify-webhook: nothing delivered: curl ended with status 7'
    rm port request
    serve redirect
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url"
    hides request elsewhere
}

a_server_that_does_not_answer_costs_no_more_than_the_time_limit() { # test
    serve slow
    before=$(date +%s)
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" NOTIFY_WEBHOOK_TIMEOUT=1
    [ $(($(date +%s) - before)) -lt 5 ] || fail "it took too long"
    shows err 'notify-webhook: nothing delivered: curl ended with status 28'
}

without_an_address_nothing_is_sent() { # test
    expect 0 handler notify-webhook
    says notify-webhook 'notify-webhook: nothing sent: NOTIFY_WEBHOOK_URL is not set'
    for url in file:///etc/passwd ftp://x/ -oX 'x http://y'; do
        expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url"
        says notify-webhook 'notify-webhook: nothing sent: NOTIFY_WEBHOOK_URL is no http or https address'
    done
}

the_users_own_curlrc_is_not_read() { # test
    serve ok
    echo 'header = "X-Curlrc: read"' >.curlrc
    expect 0 handler notify-webhook "NOTIFY_WEBHOOK_URL=$url" "HOME=$T"
    hides request X-Curlrc
}

a_refusal_in_the_chain_is_told() { # test
    serve ok
    expect 1 handler chain "NOTIFY_WEBHOOK_URL=$url" 'CHAIN_HANDLERS=normal-signals notify-webhook' VSRUN_SERVER_TERMSIG=15
    equal "'normal-signals'" "$(member refused_by)"
}
