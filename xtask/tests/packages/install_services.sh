# In a Debian with systemd: install a package that enables and starts a service.
enabled() {
    systemctl list-unit-files --state=enabled --no-legend --no-pager
    find /etc/rc?.d -name 'S*'
}

mkdir -p /web/DEBIAN /web/etc/init.d /web/usr/lib/systemd/system
cat >/web/DEBIAN/control <<'EOF'
Package: web
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a service
EOF
cat >/web/DEBIAN/postinst <<'EOF'
#!/bin/sh
set -e
deb-systemd-helper enable web.service
update-rc.d web defaults
invoke-rc.d web start
EOF
cat >/web/usr/lib/systemd/system/web.service <<'EOF'
[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
EOF
cat >/web/etc/init.d/web <<'EOF'
#!/bin/sh
### BEGIN INIT INFO
# Provides: web
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
touch /started
EOF
chmod 755 /web/DEBIAN/postinst /web/etc/init.d/web
dpkg-deb --build /web /web.deb
touch /var/lib/apt/lists/none_Packages
before=$(enabled)

sh /shared/install.sh /web.deb
[ "$(systemctl is-enabled web)" = disabled ]
[ "$(enabled)" = "$before" ]
[ ! -e /started ]
[ ! -e /usr/sbin/policy-rc.d ]
