# A second run finds what the first one left, and uses it as it is.
wire eth0 eth1
lacp p0 p1
sw ip link add link trunk name trunk.7 type vlan id 7
dhcp trunk.7 192.0.2
payload <<'TOML'
[[network]]
match = { mac = "02:00:00:00:00:00" }
label = "one"
[[network]]
match = { mac = "02:00:00:00:00:01" }
label = "two"
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["one", "two"] }
[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }
dhcp4 = true
TOML
node
ended 0
before="$(index bond0) $(index vlan7)"
forget
payload_again() { IMPRINT_DIR=/tmp/host imprint-host payload node1 --credentials --as cbor -o /etc/imprint/payload >/dev/null && chmod 600 /etc/imprint/payload; }
payload_again
node
ended 0
[ "$(index bond0) $(index vlan7)" = "$before" ] || fail "the links were made anew"
has vlan7 "inet 192.0.2.1"
# One with other settings is not changed into what is wanted.
sed -i 's/"802.3ad"/"802.3ad", lacp_rate = "slow"/' /tmp/node.toml
IMPRINT_DIR=/tmp/host imprint-host node add --replace /tmp/node.toml >/dev/null
forget
payload_again
node
ended 16
says "bond bond0 cannot be made: there is a link bond0 already (bond with other settings)"
