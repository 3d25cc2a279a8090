#!/bin/bash
# dracut module for the tests only: reports to the virtio port imprint.test what imprint did, and that the boot stopped.

check() {
    return 255
}

installkernel() {
    instmods virtio_console
}

install() {
    inst_simple "$moddir/imprint-report" /usr/bin/imprint-report
    inst_simple "$moddir/exit-code.conf" "$systemdsystemunitdir/imprint.service.d/exit-code.conf"
    inst_simple "$moddir/emergency.conf" "$systemdsystemunitdir/emergency.service.d/report.conf"
    inst_multiple cat ls date grep sleep
}
