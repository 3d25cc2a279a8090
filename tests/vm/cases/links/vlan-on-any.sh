# One image for a site: the VLAN is tried on each link of a device, and used where it works. The others are removed.
for far in far1 far2; do
    ip link set "$far" netns sw
    ip -n sw link set "$far" up
done
sw ip link add link far2 name far.7 type vlan id 7
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
[ "$(cat "/sys/class/net/$on/iflink")" = "$(index hw2)" ] || fail "$on is on another link"
[ "$(ip -o link show type vlan | wc -l)" = 1 ] || fail "a VLAN was left on another link"
file "/run/systemd/network/70-imprint-$on.netdev" "Id=7"
