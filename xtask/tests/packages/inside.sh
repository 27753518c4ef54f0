# inside ROOT SHARED SCRIPT: in namespaces of its own, runs the script in an
# overlay over ROOT, with SHARED as its /shared.
mount -t tmpfs -o mode=0755 inside /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" inside /mnt/root
mkdir -p /mnt/root/shared
mount --bind "$2" /mnt/root/shared
mount -t proc proc /mnt/root/proc
mount -t devpts -o newinstance,ptmxmode=0666 devpts /mnt/root/dev/pts
exec chroot /mnt/root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive sh -euxc "$3"
