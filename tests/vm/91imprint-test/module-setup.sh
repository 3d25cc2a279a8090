#!/bin/bash
# shellcheck disable=SC2154 # dracut sets the variables that nothing here does
# dracut module for the tests only: reports to the virtio port imprint.test what imprint did, and that the boot stopped.

check() {
    return 255
}

installkernel() {
    instmods virtio_console
    # Of the real root.
    instmods ext4
    # Links to a management controller.
    instmods cdc_ether rndis_host
}

install() {
    inst_simple "$moddir/imprint-report" /usr/bin/imprint-report
    inst_simple "$moddir/imprint-stage" /usr/bin/imprint-stage
    if dracut_module_included systemd-initrd; then
        inst_simple "$moddir/exit-code.conf" "$systemdsystemunitdir/imprint.service.d/exit-code.conf"
        inst_simple "$moddir/apply-code.conf" "$systemdsystemunitdir/imprint-apply.service.d/apply-code.conf"
        inst_simple "$moddir/emergency.conf" "$systemdsystemunitdir/emergency.service.d/report.conf"
    else
        # The hook of imprint stays as it is; what it runs notes the exit code.
        mv "$initdir/usr/bin/imprint" "$initdir/usr/bin/imprint.real"
        inst_simple "$moddir/imprint-noted" /usr/bin/imprint
        inst_hook emergency 99 "$moddir/report-emergency.sh"
    fi
    inst_multiple cat ls date grep sleep stty cp chmod swapoff
}
