# One image for a site: the VLAN is tried on each link of a device, and used where it works. The others are removed.
for far in $(ls /sys/class/net); do
    case $(cat "/sys/class/net/$far/address") in 52:54:00:00:01:*) ip link set "$far" netns sw; sw ip link set "$far" up ;; esac
done
for near in $(ls /sys/class/net); do
    case $(cat "/sys/class/net/$near/address" 2>/dev/null) in 52:54:00:00:00:02) second=$near ;; esac
done
far=$(sw ip -o link | awk -F': ' '/52:54:00:00:01:02/ { print $2 }')
sw ip link add link "$far" name far.7 type vlan id 7
dhcp far.7 192.0.2
payload <<'TOML'
[[network]]
match = { any = true }
label = "any"
[[network]]
vlan = { name = "vlan7", id = 7, on = "any" }
dhcp4 = true
TOML
node
ended 0
on=$(ip -o -4 addr | awk '/192\.0\.2\.1/ { print $2 }')
case $on in vlan7 | vlan7.1) ;; *) fail "the address is on \"$on\"" ;; esac
[ "$(cat "/sys/class/net/$on/iflink")" = "$(index "$second")" ] || fail "$on is on another link"
file "/run/systemd/network/70-imprint-$on.netdev" "Id=7"
