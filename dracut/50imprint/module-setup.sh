#!/bin/bash
# shellcheck disable=SC2154 # dracut sets the variables that nothing here does
# dracut module: imprint in an initramfs, with systemd or without. Installs the agent, its unit or its hooks, the site
# pin, the admission key and the bundle key if this machine has them, and the drivers for config drives and networks; decides nothing at boot.
#
#   dracut --add imprint …
#
# For an image that is built from a tree that is not installed: IMPRINT_BINARY, IMPRINT_UNIT, IMPRINT_SITE,
# IMPRINT_NETWORK, IMPRINT_KEY and IMPRINT_BUNDLE_KEY name the files; an empty IMPRINT_SITE stands for no site pin, an empty
# IMPRINT_NETWORK for no network before the payload, and an empty IMPRINT_KEY or IMPRINT_BUNDLE_KEY for no key. What is wrong with one of them ends the build: in the image it
# would show at boot only, on every machine.

check() {
    # Only when asked for: an agent that looks for a payload has no place in an image that nobody built for it.
    return 255
}

depends() {
    # udevd loads the drivers and names the links, whoever starts it.
    echo udev-rules
}

installkernel() {
    # One image for all machines of a site, so not only what the machine that builds it has loaded.
    local hostonly=''
    # Whole disks and optical drives that hypervisors and BMCs offer. Drivers that a kernel does not have are passed over.
    instmods virtio_pci virtio_blk virtio_scsi sd_mod sr_mod cdrom ata_piix ata_generic ahci nvme usb_storage uas \
        xhci_pci ehci_pci uhci_hcd hv_storvsc vmw_pvscsi
    # What QEMU offers to the system: systemd or udevd loads it.
    instmods qemu_fw_cfg
    # Networks.
    instmods virtio_net hv_netvsc vmxnet3 =drivers/net/ethernet =drivers/net/phy
    # DHCP, questions to neighbours, and lines in Ethernet frames (imprint.source=ether); most kernels have both built in.
    instmods af_packet ipv6
    # The hypervisor's door (imprint.source=vsock): the sockets, and their drivers for KVM, VMware and Hyper-V.
    instmods vsock vmw_vsock_virtio_transport vmw_vsock_vmci_transport hv_sock
    # Lines to a host: the port imprint.0. Serial ports are built into most kernels.
    instmods virtio_console
    # EFI variables.
    instmods efivarfs
    # A bundle is laid over the root with it. And an image that is the root (root=imprint:) is mounted with all of them.
    instmods overlay loop squashfs erofs
    # A hardware source of entropy where the hypervisor has one.
    instmods virtio_rng
}

refuse() {
    dfatal "imprint: $*"
    exit 1
}

# Only lines that the agent takes: the SHA-256 of a CA certificate or a signer, a remark behind '#', or both, and at least
# one of them. In base64 the key of a signer begins with the same letters each time, which name its kind, and the last
# letter before the '=' has bits that are 0. Whether a point lies on its curve the agent alone knows.
check_pin() {
    local site=$1 line found=0 number=0
    local blank='[[:space:]]+' letter='[A-Za-z0-9+/]'
    local p256="^signer${blank}p256${blank}MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE${letter}{85}[AQgw]==$"
    local ed25519="^signer${blank}ed25519${blank}MCowBQYDK2VwAyEA${letter}{42}[AEIMQUYcgkosw048]=$"
    [[ -f $site && -r $site ]] || refuse "$site is the site pin, and cannot be read; correct the path, or its permissions"
    while IFS= read -r line || [[ $line ]]; do
        number=$((number + 1))
        line=${line%%#*}
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        [[ $line ]] || continue
        [[ $line =~ ^[0-9A-Fa-f]{64}$ || $line =~ $p256 || $line =~ $ed25519 ]] ||
            refuse "$site: line $number is wrong; it must be the SHA-256 of a CA certificate (64 hexadecimal digits), or signer p256 BASE64, or signer ed25519 BASE64; copy the lines that imprint-host init and imprint-host signer print"
        found=$((found + 1))
    done <"$site"
    ((found)) || refuse "$site: it names no CA and no signer, so every payload would be refused; list a CA or a signer, or remove the file"
}

# One age identity, as age-keygen writes it, and besides it only remarks. Whether its check characters fit the agent alone knows.
check_bundle_key() {
    local file=$1 line found=0
    [[ -f $file && -r $file ]] || refuse "$file is the bundle key, and cannot be read; correct the path, or its permissions"
    while IFS= read -r line || [[ $line ]]; do
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        [[ $line && $line != '#'* ]] || continue
        [[ $line =~ ^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$ ]] || refuse "$file is no age identity; age-keygen -o FILE writes one"
        found=$((found + 1))
    done <"$file"
    ((found == 1)) || refuse "$file has $found age identities, and one is wanted; age-keygen -o FILE writes one"
}

install() {
    local root=${dracutsysrootdir-}
    local agent=${IMPRINT_BINARY:-/usr/bin/imprint}
    # dracut passes over a file that is not there.
    [[ -f $root$agent && -x $root$agent ]] ||
        refuse "$agent is not a program; install the agent there, or name it with IMPRINT_BINARY"
    inst_simple "$agent" /usr/bin/imprint
    # The kernel makes no folder for a file of another archive, such as iPXE's `initrd URL /imprint/payload`.
    [[ -d $initdir/imprint ]] || mkdir -m 0700 "$initdir/imprint"
    local site=${IMPRINT_SITE-/etc/imprint/site}
    if [[ ${IMPRINT_SITE-} || -e $root$site || -L $root$site ]]; then
        check_pin "$root$site"
        inst_simple "$site" /imprint/site
    fi
    local network=${IMPRINT_NETWORK-/etc/imprint/network}
    if [[ ${IMPRINT_NETWORK-} || -e $root$network ]]; then
        [[ -f $root$network && -r $root$network && -s $root$network ]] ||
            refuse "$network is the network before the payload, and cannot be read; make it with imprint-host network"
        inst_simple "$network" /imprint/network
    fi
    local key=${IMPRINT_KEY-/etc/imprint/key}
    if [[ ${IMPRINT_KEY-} || -e $root$key || -L $root$key ]]; then
        [[ -f $root$key && -r $root$key ]] ||
            refuse "$key is the admission key, and cannot be read; correct the path, or its permissions"
        grep -q -e '^-----BEGIN PRIVATE KEY-----' "$root$key" ||
            refuse "$key is no private key in PEM; imprint-host key make writes one"
        inst_simple "$key" /imprint/key
        chmod 0600 "$initdir/imprint/key"
    fi
    local bundle=${IMPRINT_BUNDLE_KEY-/etc/imprint/bundle-key}
    if [[ ${IMPRINT_BUNDLE_KEY-} || -e $root$bundle || -L $root$bundle ]]; then
        check_bundle_key "$root$bundle"
        inst_simple "$bundle" /imprint/bundle-key
        chmod 0600 "$initdir/imprint/bundle-key"
    fi
    # The last words before an emergency prompt. Another module may have put its own words there.
    cat "$moddir/profile.sh" >>"$initdir/etc/profile"
    # Behind dracut's own, which reads root=.
    inst_hook cmdline 50 "$moddir/imprint-root.sh"
    # With what udev names links by: one that imprint has brought up keeps its name, and the next stage and its
    # configuration ask for the predictable one. Since dracut 110 these rules come with net-lib only, which an image for
    # imprint need not have; and dracut's own modules leave out what distributions add to 99-default.link.
    inst_rules 75-net-description.rules 80-net-name-slot.rules 80-net-setup-link.rules
    inst_multiple -o "$systemdnetwork/*.link"
    [[ $hostonly ]] && inst_multiple -H -o "$systemdnetworkconfdir/*.link"
    if dracut_module_included systemd-initrd; then
        local unit=${IMPRINT_UNIT:-/usr/lib/systemd/system/imprint.service}
        [[ -f $root$unit ]] || refuse "$unit is no unit; install imprint.service there, or name it with IMPRINT_UNIT"
        inst_simple "$unit" "$systemdsystemunitdir/imprint.service"
        local beside
        for beside in imprint-apply imprint-netroot; do
            beside=${unit%/*}/$beside.service
            [[ -f $root$beside ]] || refuse "$beside is no unit; install ${beside##*/} beside imprint.service"
            inst_simple "$beside" "$systemdsystemunitdir/${beside##*/}"
        done
        inst_simple "$moddir/imprint-root.conf" "$systemdsystemunitdir/sysroot.mount.d/imprint.conf"
        local waiting
        for waiting in systemd-udevd systemd-journald; do
            inst_simple "$moddir/stop.conf" "$systemdsystemunitdir/$waiting.service.d/imprint.conf"
        done
        # What wants and requires it, the unit's [Install] section says.
        $SYSTEMCTL -q --root "$initdir" enable imprint.service imprint-apply.service imprint-netroot.service
    else
        # initqueue: devices are there, the root device is not waited for yet, and no network is up. The number makes it
        # the first job of the queue; the other hook keeps the queue from ending before it.
        inst_hook initqueue 01 "$moddir/imprint-run.sh"
        inst_hook initqueue/finished 01 "$moddir/imprint-finished.sh"
        # Before any other: those that do not know this root would complain.
        inst_hook mount 01 "$moddir/imprint-mount.sh"
        # The root is mounted, and nobody has changed anything there.
        inst_hook pre-pivot 01 "$moddir/imprint-apply.sh"
        inst_multiple tr
    fi
}
