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
    # VLANs, bonds and bridges.
    instmods 8021q bonding bridge
    # The hypervisor's door (imprint.source=vsock): the sockets, and their drivers for KVM, VMware and Hyper-V.
    instmods vsock vmw_vsock_virtio_transport vmw_vsock_vmci_transport hv_sock
    # Lines to a host: the port imprint.0. Serial ports are built into most kernels.
    instmods virtio_console
    # EFI variables.
    instmods efivarfs
    # A bundle is laid over the root with it. And an image that is the root (root=imprint:) is mounted with all of them.
    instmods overlay loop squashfs erofs
    # Swap space (docs/swap.md): device-mapper with dm-crypt, its cipher in all of its forms, and compressed memory. The
    # kernel loads them when imprint asks for them.
    instmods dm_mod dm_crypt xts ecb aes_generic aesni_intel aes_ce_blk aes_neon_blk zram zstd lzo_rle
    # A hardware source of entropy where the hypervisor has one.
    instmods virtio_rng
}

refuse() {
    dfatal "imprint: $*"
    exit 1
}

# What the agent itself would say of /imprint in a boot of this image: a file that it refuses there would stop every machine. Each
# argument is NAME=FILE, a file of that folder and where it came from, which is what somebody can correct.
imprint_check() {
    local agent=$1 said file
    shift
    if ! "$agent" version &>/dev/null; then
        dwarn "imprint: $agent does not run on this machine, so what goes into /imprint of the image was not checked"
        return
    fi
    said=$("$agent" check --image "$initdir" 2>&1) && return
    for file; do
        said=${said//"$initdir/imprint/${file%%=*}"/"${file#*=}"}
    done
    refuse "every boot of this image would be stopped: $said"
}

# imprint_put NAME WHAT FILE NAMED [MODE]: FILE becomes /imprint/NAME of the image. If nobody NAMED it, it need not be there.
imprint_put() {
    local name=$1 what=$2 file=$3 named=$4 mode=${5-} root=${dracutsysrootdir-}
    [[ $file ]] || return 0
    [[ $named || -e $root$file || -L $root$file ]] || return 0
    [[ -f $root$file && -r $root$file ]] || refuse "$file is the $what, and cannot be read; correct the path, or its permissions"
    inst_simple "$file" "/imprint/$name"
    [[ ! $mode ]] || chmod "$mode" "$initdir/imprint/$name"
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
    local site=${IMPRINT_SITE-/etc/imprint/site} network=${IMPRINT_NETWORK-/etc/imprint/network}
    local key=${IMPRINT_KEY-/etc/imprint/key} bundle=${IMPRINT_BUNDLE_KEY-/etc/imprint/bundle-key}
    imprint_put site 'site pin' "$site" "${IMPRINT_SITE-}"
    imprint_put network 'network before the payload' "$network" "${IMPRINT_NETWORK-}"
    imprint_put key 'admission key' "$key" "${IMPRINT_KEY-}" 0600
    imprint_put bundle-key 'bundle key' "$bundle" "${IMPRINT_BUNDLE_KEY-}" 0600
    imprint_check "$root$agent" "site=$site" "network=$network" "key=$key" "bundle-key=$bundle"
    # The last words before an emergency prompt. Another module may have put its own words there.
    cat "$moddir/profile.sh" >>"$initdir/etc/profile"
    # The module of bonds makes bond0 by itself unless it is told otherwise.
    mkdir -p "$initdir/etc/modprobe.d"
    echo 'options bonding max_bonds=0' >"$initdir/etc/modprobe.d/imprint-bonding.conf"
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
        for beside in imprint-apply imprint-netroot imprint-swap; do
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
        $SYSTEMCTL -q --root "$initdir" enable imprint.service imprint-apply.service imprint-netroot.service imprint-swap.service
    else
        # What the two hooks below have in common.
        inst_simple "$moddir/imprint-lib.sh" /lib/imprint-lib.sh
        # initqueue: devices are there, the root device is not waited for yet, and no network is up. The number makes it
        # the first job of the queue; the other hook keeps the queue from ending before it.
        inst_hook initqueue 01 "$moddir/imprint-run.sh"
        inst_hook initqueue/finished 01 "$moddir/imprint-finished.sh"
        # Before any other: those that do not know this root would complain.
        inst_hook mount 01 "$moddir/imprint-mount.sh"
        # The root is mounted, and nobody has changed anything there.
        inst_hook pre-pivot 01 "$moddir/imprint-apply.sh"
        inst_hook pre-pivot 02 "$moddir/imprint-swap.sh"
        inst_multiple tr
    fi
}
