//! The published table of the words of the kernel command line, from which docs/cmdline.md and imprint.cmdline(7) are made. Parses
//! nothing.

/// One row of the published table, from which docs/cmdline.md and imprint.cmdline(7) are made (`make docs`).
pub struct Word {
    /// The word up to and including its `=`. A word that takes no value has no `=`.
    pub name: &'static str,
    /// The values that the word takes, as an error shows them.
    pub values: &'static str,
    /// What applies without the word.
    pub default: &'static str,
    /// What the word does.
    pub meaning: &'static str,
    /// Whether this version supports the word. A word that is not supported is refused, never ignored.
    pub supported: bool,
}

/// Every word of the kernel command line that imprint knows.
pub const WORDS: [Word; 26] = [
    Word {
        name: "imprint=",
        values: "auto, require or off",
        default: "auto",
        meaning: "auto looks for a payload and boots on without one, also where imprint.source= names sources; require \
                  waits for one and stops the boot without; off does nothing, whatever the other words are",
        supported: true,
    },
    Word {
        name: "imprint.source=",
        values: "cmdline, file, credential, config-drive, config-drive:LABEL, partition, efivar, root-file, virtio, \
                 serial:ttyS1, serial:ttyS1,115200, tcp:HOST:PORT, door, vsock, vsock:PORT, ether or ether:eth0",
        default: "cmdline, file, credential, config-drive, partition (with a site pin only), virtio, and the serial lines \
                  that are consoles",
        meaning: "look here only; repeatable, in order. Naming a source makes a payload required, as imprint=require \
                  does, unless imprint=auto is there too; on a serial line that is named and required the node \
                  speaks first",
        supported: true,
    },
    Word {
        name: "imprint.payload=",
        values: "a payload in base64url without padding, as imprint-host payload NODE --as cmdline prints it",
        default: "none",
        meaning: "the payload itself. A private key, an each-boot token or a bundle key is refused here",
        supported: true,
    },
    Word {
        name: "imprint.timeout=",
        values: "1 to 86400 seconds",
        default: "300",
        meaning: "how long to wait for a required payload, and again for all that follows it",
        supported: true,
    },
    Word {
        name: "imprint.approval-timeout=",
        values: "1 to 2592000 seconds",
        default: "no limit",
        meaning: "how long to wait for an administrator: one who has to admit the node at a door, and one who has to approve its request",
        supported: true,
    },
    Word {
        name: "imprint.debug",
        values: "no value",
        default: "not there",
        meaning: "show the plan on the console, and what became of each network link",
        supported: true,
    },
    Word {
        name: "imprint.line=",
        values: "plain",
        default: "not there",
        meaning: "accept a payload from a serial line that is not sealed. Anybody who can read the line, or the log of \
                  a console server, then has the payload's token",
        supported: true,
    },
    Word {
        name: "imprint.server=",
        values: "HOST or HOST:PORT",
        default: "what DNS says (SRV _imprint._tcp)",
        meaning: "where the door of the site is, for imprint.source=door. No trust comes from this: a payload from a door has \
                  to be signed",
        supported: true,
    },
    Word {
        name: "imprint.domain=",
        values: "a domain name",
        default: "the search domains of DHCP and of router advertisements",
        meaning: "the domain whose SRV record names the door, for imprint.source=door",
        supported: true,
    },
    Word {
        name: "imprint.set.KEY=",
        values: "what the setting takes; the keys are in docs/bundle.md and below",
        default: "the dialogue asks, where a bundle has to be made",
        meaning: "a setting for the bundle that a node without one makes and sends to the server; repeatable where the setting is a \
                  list. Counts only where the payload asks for a bundle. A password or its hash is refused here, since every \
                  user of the node can read the kernel command line",
        supported: true,
    },
    Word {
        name: "imprint.bundle=",
        values: "new",
        default: "not there",
        meaning: "make a new bundle and send it to the server, also if the server has one for this node. Counts only where the \
                  payload asks for a bundle",
        supported: true,
    },
    Word {
        name: "imprint.swap=",
        values: "auto, disk, zram, zram:PERCENT% or off",
        default: "auto",
        meaning: "swap space: auto uses each partition that imprint swap prepare has prepared; disk does the same, and says so if there is \
                  none; zram takes compressed memory where there is none, of half the memory or of PERCENT % of it; off uses none",
        supported: true,
    },
    Word {
        name: "root=",
        values: "imprint:https://HOST/PATH, and more such URLs behind commas",
        default: "imprint brings no root",
        meaning: "fetch the root with the node's identity, an image with erofs or squashfs, into memory, and mount it under an \
                  overlay that is in memory as well; the servers are asked in turn (docs/root.md). Any other root is left to \
                  the rest of the initramfs",
        supported: true,
    },
    Word {
        name: "imprint.root-sha256=",
        values: "64 hexadecimal digits",
        default: "what the payload says (root_sha256 in the record); root=imprint: without either is refused",
        meaning: "the SHA-256 of the image that root=imprint: names, as sha256sum prints it. Another image is not mounted. It has to \
                  be what the payload says, if that says one",
        supported: true,
    },
    Word {
        name: "imprint.next=",
        values: "the path of a program in the image, and its arguments behind blanks",
        default: "the root that root= names",
        meaning: "what a bare image starts after imprint, instead of a root; a program that is called init or systemd takes the \
                  place of process 1",
        supported: true,
    },
    Word {
        name: "imprint.rescue=",
        values: "prompt, reboot or poweroff",
        default: "prompt",
        meaning: "what a bare image does when the boot fails: it asks on the console what to do, or it says why and reboots or \
                  switches the machine off after 10 s",
        supported: true,
    },
    Word {
        name: "ip=",
        values: "dhcp, on, any, auto6, dhcp6, either6, link6, LINK:METHOD, LINK:METHOD:MTU or \
                 ADDRESS:PEER:GATEWAY:MASK:HOSTNAME:LINK:METHOD, with an MTU or two name servers behind it, as in dracut.cmdline(7)",
        default: "/imprint/network in the image, or else DHCP and router advertisements",
        meaning: "the network of a node whose payload says that it is as the command line says (network = \"cmdline\" in the record), \
                  and the one over which a door is called at (imprint.source=door, tcp:HOST:PORT) until the payload's takes its \
                  place; repeatable. Ignored otherwise",
        supported: true,
    },
    Word {
        name: "nameserver=",
        values: "an address",
        default: "the name servers of DHCP and of router advertisements",
        meaning: "a name server of that network; repeatable",
        supported: true,
    },
    Word {
        name: "rd.route=",
        values: "NETWORK/LENGTH:GATEWAY, NETWORK/LENGTH:GATEWAY:LINK or NETWORK/LENGTH::LINK",
        default: "none",
        meaning: "a route of that network; repeatable. Without LINK it is on the link whose network has the gateway, or on the first",
        supported: true,
    },
    Word {
        name: "vlan=",
        values: "NAME:LINK, where NAME ends in the number of the VLAN: vlan5, vlan0005, eth0.5 or eth0.0005",
        default: "none",
        meaning: "a VLAN of that network, on a link; repeatable. Counts if an ip= has it, or another link on it",
        supported: true,
    },
    Word {
        name: "bond=",
        values: "NAME:LINK,LINK:mode=802.3ad or mode=active-backup, and behind that an MTU",
        default: "none",
        meaning: "a bond of that network; repeatable. Options other than mode are not used",
        supported: true,
    },
    Word {
        name: "bridge=",
        values: "NAME:LINK,LINK",
        default: "none",
        meaning: "a bridge of that network; repeatable",
        supported: true,
    },
    Word {
        name: "bootdev=",
        values: "the name of a link",
        default: "the link of BOOTIF=",
        meaning: "the link of an ip= that names none, and the first one to be tried",
        supported: true,
    },
    Word {
        name: "ifname=",
        values: "NAME:MAC",
        default: "none",
        meaning: "what the other words call the link with this hardware address; repeatable. The link is found by its address; its name is \
                  left to udev",
        supported: true,
    },
    Word {
        name: "rd.bootif=",
        values: "0",
        default: "BOOTIF= counts",
        meaning: "BOOTIF= does not count",
        supported: true,
    },
    Word {
        name: "BOOTIF=",
        values: "01-52-54-00-12-34-56 or 52:54:00:12:34:56, in any case of letters; an InfiniBand address has 20 bytes, behind 20-",
        default: "not there",
        meaning: "the link that the machine booted from; set by the boot loader, and ignored when it is anything else",
        supported: true,
    },
];
