#!/bin/sh
# cmdline hook of dracut, with systemd and without: root=imprint: is a root that imprint brings, so dracut waits for no device. Decides
# nothing else. dracut sources it, so it leaves no option of the shell changed.

# shellcheck disable=SC2034,SC2154 # dracut sets root, and reads rootok
case $root in
    imprint:*)
        rootok=1
        # With systemd: imprint-netroot.service mounts the root, and systemd's own sysroot.mount does not.
        mkdir -p /run/initramfs
        : >/run/initramfs/imprint-root
        ;;
esac
