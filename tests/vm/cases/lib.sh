# What cases share. The node is this machine. Behind its links is the namespace `sw`, the switch and everything behind it.
# shellcheck shell=sh

# Makes the guest as it was: no namespace, no link but those of QEMU, nothing that an earlier run has left.
reset() {
    for process in dnsmasq radvd tcpdump ip systemd-network systemd-udevd NetworkManager dbus-daemon; do pkill -x "$process" || true; done
    ip netns del sw 2>/dev/null || true
    # Links of QEMU come back from a namespace that ended, after a moment.
    until_true 10 test -e /sys/class/net/far1 -a -e /sys/class/net/far2
    for link in $(ls /sys/class/net); do
        case $link in
            lo | bonding_masters) ;;
            *)
                if [ -e "/sys/class/net/$link/device" ]; then
                    ip link set "$link" down nomaster
                    ip addr flush dev "$link"
                else
                    ip link del "$link" 2>/dev/null || true
                fi
                ;;
        esac
    done
    if [ -e /proc/sys/net/ipv6/conf/default/accept_ra ]; then echo 1 >/proc/sys/net/ipv6/conf/default/accept_ra; fi
    umount /dev/console 2>/dev/null || true
    forget
    rm -rf /run/udev /run/dbus /run/systemd/netif /run/systemd/network /run/NetworkManager /etc/imprint /tmp/host /tmp/out /tmp/node.toml /tmp/console /tmp/sw*
    ip netns add sw
    ip -n sw link set lo up
    : >/tmp/console
    mount --bind /tmp/console /dev/console
}

# Nothing is left of a run but its network.
forget() {
    umount /run/imprint/private 2>/dev/null || true
    rm -rf /run/imprint
}

# wire eth0 …: links of this machine; the far end of eth0 is p0 in the switch. The addresses are 02:00:00:00:00:NN.
wire() {
    for link in "$@"; do
        number=${link#eth}
        ip link add "$link" address "02:00:00:00:00:0$number" type veth peer name "p$number" address "02:00:00:00:01:0$number" netns sw
        ip -n sw link set "p$number" up
        # Where a router that nobody asked for speaks on it, this machine is not to listen.
        if [ -e "/proc/sys/net/ipv6/conf/$link/accept_ra" ]; then echo 1 >"/proc/sys/net/ipv6/conf/$link/accept_ra"; fi
    done
}

sw() { ip netns exec sw "$@"; }

# dhcp LINK NET: a DHCP server on a link of the switch; it is NET.1 and gives NET.100 and above.
dhcp() {
    sw ip addr add "$2.1/24" dev "$1" 2>/dev/null || true
    sw ip link set "$1" up
    sw dnsmasq --conf-file=/dev/null --no-resolv --port=0 --interface="$1" --bind-interfaces --dhcp-range="$2.100,$2.199,1h" \
        --dhcp-authoritative --dhcp-leasefile="/tmp/sw-leases-$1" --pid-file="/tmp/sw-pid-$1" --log-dhcp --log-facility="/tmp/sw-log-$1" \
        --dhcp-broadcast --no-ping
}

# lacp p0 p1 …: the switch has these ports in a bond with LACP. Its bond is `trunk`.
lacp() {
    sw ip link add trunk address 02:00:00:00:01:ff type bond mode 802.3ad miimon 100 lacp_rate fast
    for port in "$@"; do
        sw ip link set "$port" down
        sw ip link set "$port" master trunk
    done
    sw ip link set trunk up
}

# Standard input: the [[network]] of a record. The payload has certificate and key, so that no server is needed.
payload() {
    mkdir -p /etc/imprint
    { printf 'name = "node1"\nsubject = ["CN=node1"]\n'; cat; } >/tmp/node.toml
    IMPRINT_DIR=/tmp/host imprint-host init --url https://192.0.2.1/.well-known/est >/dev/null
    IMPRINT_DIR=/tmp/host imprint-host node add /tmp/node.toml >/dev/null
    IMPRINT_DIR=/tmp/host imprint-host payload node1 --credentials --as cbor -o /etc/imprint/payload >/dev/null
    chmod 600 /etc/imprint/payload
}

# node: runs the agent. Its exit code is in $code, its words in /tmp/out and /tmp/console.
node() {
    code=0
    imprint run --source root-file >/tmp/out 2>&1 || code=$?
}

# The same, behind the case: `wait` ends with it.
node_later() { imprint run --source root-file >/tmp/out 2>&1 & }

fail() {
    echo "FAILED: $*"
    exit 1
}

ended() { [ "$code" = "$1" ] || fail "exit code $code, want $1"; }

# says TEXT: the agent said it.
says() { cat /tmp/out /tmp/console | grep -qF -- "$1" || fail "it does not say: $1"; }

# has LINK WORDS: `ip -d addr` of the link has the words.
has() { ip -d addr show dev "$1" | tr -s ' \n' ' ' | grep -qF -- "$2" || fail "$1 has no \"$2\""; }

lacks() { ! ip -d addr show dev "$1" | grep -qF -- "$2" || fail "$1 has \"$2\""; }

gone() { ! ip link show dev "$1" >/dev/null 2>&1 || fail "$1 is still there"; }

index() { cat "/sys/class/net/$1/ifindex"; }

# file PATH WORDS
file() { grep -qF -- "$2" "$1" || { cat "$1"; fail "$1 has no \"$2\""; }; }

# until SECONDS COMMAND…: waits for it.
until_true() {
    left=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "it never came true: $*"
        sleep 0.1
    done
}

pings() { ping -c 1 -W 2 "$@" >/dev/null 2>&1; }

# udevd, as it runs in most initramfs images and in the next stage.
udevd() {
    /lib/systemd/systemd-udevd --daemon
    udevadm trigger --action=add --subsystem-match=net
    udevadm settle
}

# remember, …, unchanged LINK: no link was made anew, none lost its carrier, and the address of LINK was there all the time.
remember() {
    sleep 1
    traces >/tmp/sw-before
    ip -o monitor address link >/tmp/sw-changes 2>/dev/null &
}

traces() {
    for link in $(ls /sys/class/net); do
        if [ -d "/sys/class/net/$link" ]; then
            echo "$link $(index "$link") $(cat "/sys/class/net/$link/carrier_down_count") $(cat "/sys/class/net/$link/address")"
        fi
    done
    ip -o -4 addr | awk '{ print $2, $4 }'
}

unchanged() {
    sleep 3
    traces >/tmp/sw-after
    diff /tmp/sw-before /tmp/sw-after || fail "links or addresses changed"
    if grep 'Deleted' /tmp/sw-changes | grep -F "$1"; then fail "$1 lost an address for a moment"; fi
}

# systemd-networkd of the next stage, with what the agent has left.
networkd() {
    mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
    chown -R systemd-network:systemd-network /run/systemd/netif
    SYSTEMD_LOG_LEVEL=info /lib/systemd/systemd-networkd >/tmp/sw-networkd 2>&1 &
}

# managed LINK: networkd has configured it. networkctl asks over D-Bus, which is not there.
managed() { grep -q '^ADMIN_STATE=configured$' "/run/systemd/netif/links/$(index "$1")"; }

# NetworkManager of the next stage.
networkmanager() {
    mkdir -p /run/dbus
    dbus-daemon --system --fork --nopidfile
    NetworkManager --no-daemon --log-level=INFO >/tmp/sw-nm 2>&1 &
}

activated() { nmcli -t -f DEVICE,STATE,CONNECTION device | grep -q "^$1:connected:imprint-$1\$"; }
