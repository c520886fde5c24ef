#!/bin/bash
# First process of the engine's namespaces: make this corner of the machine fit for a Docker
# engine and become it. Nothing here reaches the host: mounts, interfaces and settings end with
# the namespaces, and the host's /usr, /etc and /opt are seen through overlays.
#
# Arguments: ENGINE_ROOT (unpacked packages), STATE (folder of this cluster), CGROUP (its name).
set -euo pipefail
engine_root=$1 state=$2 cgroup=$3
# Where the machine is busy, the whole cluster counts as so many processes and not as one, so that a
# handful of others does not starve three nodes. With eight, the nodes starved the others.
processes=2

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
# The packages' programs, where they expect to lie.
mount -t overlay -o "lowerdir=$engine_root/usr:/usr" overlay /usr
for folder in etc opt; do
    mkdir -p "/run/over/$folder/upper" "/run/over/$folder/work"
    mount -t overlay overlay "/$folder" \
        -o "lowerdir=/$folder,upperdir=/run/over/$folder/upper,workdir=/run/over/$folder/work"
done
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The engine's data lies in one sparse file, which is deleted at once; a hundred thousand small
# files take minutes. The loop device goes with the mount, and that with the namespaces. Nothing in
# it outlives them, so that no write waits for the disk (nobarrier).
data=$state/engine
mkdir -p "$data"
if ! { truncate -s 200G "$data.ext4" &&
    mkfs.ext4 -q -F -O ^has_journal -m 0 -E lazy_itable_init=1,nodiscard "$data.ext4" &&
    mount -o loop,noatime,nodiscard,nobarrier "$data.ext4" "$data"; }; then
    echo "no loop device: the engine's data lies in a folder" >&2
    rm -f "$data.ext4"
fi

umount -R /sys/fs/cgroup 2>/dev/null || true
umount -l /sys
mount -t sysfs sysfs /sys
if grep -qw cpuset /proc/self/cgroup; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    done
    mkdir -p "/sys/fs/cgroup/cpu/$cgroup"
    echo $((1024 * processes)) >"/sys/fs/cgroup/cpu/$cgroup/cpu.shares"
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup /sys/fs/cgroup
    # A cgroup that hands controllers down may hold no processes itself.
    mkdir -p "/sys/fs/cgroup/$cgroup-init"
    xargs -rn1 <"/sys/fs/cgroup/cgroup.procs" >"/sys/fs/cgroup/$cgroup-init/cgroup.procs" || true
    sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers \
        >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p "/sys/fs/cgroup/$cgroup"
    if [ -e "/sys/fs/cgroup/$cgroup/cpu.weight" ]; then
        echo $((100 * processes)) >"/sys/fs/cgroup/$cgroup/cpu.weight"
    fi
fi
# A small disk of its own for each node, so that one can be filled without filling the machine's.
for node in 0 1 2; do
    mkdir -p "/run/disks/$node"
    mount -t tmpfs -o size=1g,mode=700 tmpfs "/run/disks/$node"
done
mount --make-rshared /

ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
ulimit -n "$(ulimit -Hn)"
exec dockerd --config-file "$state/dockerd.json" --cgroup-parent "/$cgroup"
