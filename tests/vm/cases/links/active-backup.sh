# One port at a time: the network goes on over the other when the first one's cable is pulled.
wire eth0 eth1
sw ip link add switch type bridge
sw ip link set p0 master switch
sw ip link set p1 master switch
dhcp switch 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bond = { name = "bond0", mode = "active-backup", ports = ["eth0", "eth1"] }
dhcp4 = true
TOML
node
ended 0
has bond0 "inet 192.0.2.1"
has bond0 "bond mode active-backup"
has bond0 "link/ether 02:00:00:00:00:00"
has eth1 "master bond0"
pings 192.0.2.1
sw ip link set p0 down
until_true 5 grep -q eth1 /sys/class/net/bond0/bonding/active_slave
until_true 5 pings 192.0.2.1
file /run/systemd/network/70-imprint-bond0.netdev "Mode=active-backup"
file /run/systemd/network/70-imprint-bond0.netdev "MACAddress=02:00:00:00:00:00"
file /run/systemd/network/70-imprint-eth1.network "Bond=bond0"
