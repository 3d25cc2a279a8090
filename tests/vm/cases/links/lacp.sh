# LACP with a Linux bond as the switch. The first DHCP packet goes out when the partner has agreed. What is measured is the time since the
# first LACPDU in which this end says so; the kernel may send that up to a third of a second after it knows, so the number may be negative.
wire eth0 eth1
lacp p0 p1
dhcp trunk 192.0.2
sw tcpdump -tt -n -e -x -l -i p0 ether proto 0x8809 or udp port 67 >/tmp/sw0 2>/dev/null &
sw tcpdump -tt -n -e -x -l -i p1 ether proto 0x8809 or udp port 67 >/tmp/sw1 2>/dev/null &
sleep 1
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth0", "eth1"] }
dhcp4 = true
TOML
node
ended 0
has bond0 "inet 192.0.2.1"
has bond0 "bond mode 802.3ad"
has bond0 "lacp_rate fast"
has bond0 "02:00:00:00:01:ff"
pings 192.0.2.1
file /run/systemd/network/70-imprint-bond0.netdev "LACPTransmitRate=fast"
sleep 1
# The state of this end is byte 18 of the LACPDU, counted from 0 behind the Ethernet header. 0x3f or 0x3d: in sync, collecting, distributing.
first=$(awk '/LACP/ { at = $1; node = $2 ~ /^02:00:00:00:00/ }
    node && /0x0010:/ { state = substr($3, 1, 2); if (state == "3d" || state == "3f") { print at; exit } }' /tmp/sw0)
asked=$(cat /tmp/sw0 /tmp/sw1 | awk '/\.68 > / { print $1 }' | sort -n | head -n 1)
echo "MEASURED lacp-agreed-to-discover $(echo "$first $asked" | awk '{ printf "%.1f ms", ($2 - $1) * 1000 }')"
[ -n "$first" ] && [ -n "$asked" ] || fail "no LACPDU or no DISCOVER was seen"
