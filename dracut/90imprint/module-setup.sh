#!/bin/bash
# dracut module: imprint in an initramfs with systemd. Installs the agent, its unit, the site pin if this machine has
# one, and the drivers for config drives and networks; decides nothing at boot.
#
#   dracut --add imprint …
#
# For an image that is built from a tree that is not installed: IMPRINT_BINARY, IMPRINT_UNIT and IMPRINT_SITE name the
# files; an empty IMPRINT_SITE stands for no site pin.

check() {
    # Only when asked for: an agent that looks for a payload has no place in an image that nobody built for it.
    return 255
}

depends() {
    echo systemd systemd-initrd
}

installkernel() {
    # One image for all machines of a site, so not only what the machine that builds it has loaded.
    local hostonly=''
    # Whole disks and optical drives that hypervisors and BMCs offer. Drivers that a kernel does not have are passed over.
    instmods virtio_pci virtio_blk virtio_scsi sd_mod sr_mod cdrom ata_piix ata_generic ahci nvme usb_storage uas \
        xhci_pci ehci_pci uhci_hcd hv_storvsc vmw_pvscsi
    # Networks.
    instmods virtio_net hv_netvsc vmxnet3 =drivers/net/ethernet =drivers/net/phy
    # A hardware source of entropy where the hypervisor has one.
    instmods virtio_rng
}

install() {
    inst_simple "${IMPRINT_BINARY:-/usr/bin/imprint}" /usr/bin/imprint
    inst_simple "${IMPRINT_UNIT:-/usr/lib/systemd/system/imprint.service}" "$systemdsystemunitdir/imprint.service"
    local site=${IMPRINT_SITE-/etc/imprint/site}
    if [[ -e $site ]]; then
        inst_simple "$site" /imprint/site
    fi
    # What wants and requires it, the unit's [Install] section says.
    $SYSTEMCTL -q --root "$initdir" enable imprint.service
}
