# The switch has carrier and no LACP for 8 s. Until then nothing is asked over the bond, and the console says why.
wire eth0 eth1
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth0", "eth1"] }
dhcp4 = true
TOML
sw tcpdump -n -l -i p0 udp port 67 >/tmp/sw0 2>/dev/null &
node_later
node=$!
sleep 8
! grep -q BOOTP /tmp/sw0 || fail "a DISCOVER before LACP has agreed"
says "bond0 (virtual): waiting for LACP"
says "partner 00:00:00:00:00:00: no LACPDU has come, check that the switch has LACP on these ports"
lacp p0 p1
dhcp trunk 192.0.2
wait "$node" || fail "exit code $?"
has bond0 "inet 192.0.2.1"
