# In a fresh Debian: install, run, upgrade over the running server, purge.
snapshot() {
    find / -xdev \( -path /shared -o -path /proc -o -path /tmp -o -path /var/cache \
        -o -path /var/lib/dpkg -o -path /var/log -o -path /run \) -prune -o -print | sort
}
snapshot >/tmp/before

until_gone() {
    tries=100
    while [ -e "/proc/$1" ] && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    [ ! -e "/proc/$1" ]
}

dpkg -i /shared/older.deb
[ -z "$(dpkg --verify vsrun)" ]
vsrun -b -u nobody -p /run/foo.pid -d /var/log/foo 1d \
    -m /run/foo-manager.pid /usr/share/vsrun/handlers/uptime-threshold -- sleep 1000
server=$(cat /run/foo.pid)
manager=$(cat /run/foo-manager.pid)

dpkg -i /shared/newer.deb
[ "$(cat /run/foo.pid)" = "$server" ]
[ "$(cat /run/foo-manager.pid)" = "$manager" ]
[ "$(ps -o comm= -p "$server")" = sleep ]
# The manager is of the older package still, and does its work.
[ "$(readlink "/proc/$manager/exe")" != "$(readlink -f /usr/sbin/vsrun)" ]
kill -SEGV "$server"
until_gone "$server"
tries=100
until [ -s /run/foo.pid ] || [ "$tries" = 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
[ "$(ps -o comm= -p "$(cat /run/foo.pid)")" = sleep ]

# Neither does removal disturb it.
dpkg --purge vsrun
kill -0 "$(cat /run/foo.pid)"
kill "$manager"
until_gone "$manager"
[ ! -e /run/foo.pid ]

snapshot >/tmp/after
diff /tmp/before /tmp/after
! dpkg -s vsrun
