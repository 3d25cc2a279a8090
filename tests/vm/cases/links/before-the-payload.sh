# A door behind a VLAN of a bond. No door answers, so the search ends, and the network of the search is taken away with the links that
# were made for it.
wire eth0
sw ip link add link p0 name p0.7 type vlan id 7
dhcp p0.7 192.0.2
mkdir -p /imprint
IMPRINT_DIR=/tmp/host imprint-host init --url https://192.0.2.1/.well-known/est >/dev/null
IMPRINT_DIR=/tmp/host imprint-host signer | grep -v '^#' >/imprint/site
cat >/tmp/network.toml <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "bond0", mode = "active-backup", ports = ["eth0"] }
[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }
dhcp4 = true
TOML
imprint-host network /tmp/network.toml -o /imprint/network
imprint run --source tcp:192.0.2.1:47 >/tmp/out 2>&1 &
node=$!
until_true 20 ip -4 addr show dev vlan7 to 192.0.2.0/24
until_true 20 pings 192.0.2.1
wait "$node" && fail "a payload came from nowhere"
rm -r /imprint
says "192.0.2.1"
gone vlan7
gone bond0
lacks eth0 "UP"
lacks eth0 "master"
