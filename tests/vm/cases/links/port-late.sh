# A driver is late: the bond is made of the port that is there, and takes the other when it appears.
wire eth0
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth0", "eth1"] }
dhcp4 = true
TOML
node_later
node=$!
until_true 5 ip link show bond0
sleep 1
wire eth1
until_true 5 grep -q bond0 /sys/class/net/eth1/master/uevent
lacp p0 p1
dhcp trunk 192.0.2
wait "$node" || fail "exit code $?"
has eth1 "master bond0"
