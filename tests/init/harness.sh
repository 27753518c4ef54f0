# harness.sh - runs shell tests and says what they prove.
#
# A test file is POSIX sh. Each function whose line ends in `# test` is a test,
# named as the sentence it proves. It runs in a shell of its own with `set -eu`
# in an empty directory $T, which goes away afterwards. Status 0 passes, 77
# skips (`skip REASON`), anything else fails and shows the test's output.
#
#   sh harness.sh FILE...              runs all tests of these files
#   sh harness.sh --only NAME FILE     runs one of them, here and now
#
# Prints `ok`, `FAIL` and `SKIP` lines and a count; the status is 0 if nothing
# failed.
#
# shellcheck shell=sh
set -eu

HARNESS=$(readlink -f "$0")
TESTS=${HARNESS%/*}

skip() {
    echo "SKIP: $*"
    exit 77
}

fail() {
    echo "FAIL: $*"
    exit 1
}

# status_of COMMAND...: sets status; standard output and error are in $T/out
# and $T/err, and are shown if the test fails.
status_of() {
    status=0
    "$@" >"$T/out" 2>"$T/err" || status=$?
    echo "status $status: $*"
    sed 's/^/out: /' "$T/out"
    sed 's/^/err: /' "$T/err"
}

# expect STATUS COMMAND...
expect() {
    expected=$1
    shift
    status_of "$@"
    [ "$status" -eq "$expected" ] || fail "status $status, not $expected: $*"
}

# shows FILE TEXT, hides FILE TEXT: the file has, or has not, this text.
shows() {
    grep -F -q -e "$2" "$1" || fail "$1 does not show '$2': $(cat "$1")"
}

hides() {
    ! grep -F -q -e "$2" "$1" || fail "$1 shows '$2'"
}

# equal EXPECTED FOUND
equal() {
    [ "$1" = "$2" ] || fail "expected '$1', found '$2'"
}

# eventually COMMAND...: waits until the command succeeds, a minute at most: machines that run tests
# are noisy.
eventually() {
    tenths=600
    until "$@"; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || fail "never came true: $*"
        sleep 0.1
    done
}

need() {
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "$program is not installed"
    done
}

if [ "${1:-}" = --only ]; then
    . "$3"
    "$2"
    exit
fi

# One that hangs fails instead of stopping the rest.
limit=300
passed=0
failed=0
skipped=0
log=$(mktemp)
for file in "$@"; do
    file=$(readlink -f "$file")
    for name in $(sed -n 's/^\([a-z][a-z0-9_]*\)() { # test$/\1/p' "$file"); do
        T=$(mktemp -d)
        export T TESTS
        status=0
        (cd "$T" && exec timeout -k 10 "$limit" sh -eu "$HARNESS" --only "$name" "$file") \
            >"$log" 2>&1 </dev/null || status=$?
        case $status in
            0)
                passed=$((passed + 1))
                echo "ok    $name"
                ;;
            77)
                skipped=$((skipped + 1))
                echo "SKIP  $name: $(sed -n 's/^SKIP: //p' "$log")"
                ;;
            *)
                failed=$((failed + 1))
                echo "FAIL  $name (status $status; 124, 137 and 143: more than $limit s)"
                sed 's/^/      /' "$log"
                ;;
        esac
        rm -rf "$T"
    done
done
rm -f "$log"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
