#!/bin/sh
# mount hook of dracut without systemd: has the agent fetch and mount the root that root=imprint: names, and stops the boot when the
# agent says so. Decides nothing else. /init sources it, so it leaves no option of the shell changed.

# shellcheck disable=SC2154 # /init sets root and NEWROOT
case $root in
    imprint:*)
        # The agent's own lines reach the console as they come; the one on its standard error is why the boot stops.
        {
            imprint_reason=$(/usr/bin/imprint root --to "$NEWROOT" 2>&1 >&3 3>&-)
            imprint_code=$?
        } 3>&1
        if [ "$imprint_code" -ne 0 ]; then
            printf '%s\n' "$imprint_reason" >&2
            # die writes its words into a script, between double quotes, and they may hold what a server says. A record of the
            # kernel's log has less than 1024 bytes (kernel/printk/printk.c, devkmsg_write).
            # shellcheck disable=SC1003 # two backslashes are one to tr
            imprint_reason=$(printf 'stopped with exit code %s: %.800s' "$imprint_code" "$imprint_reason" | tr -cd '[:print:]' | tr -d '"$`\\')
            # Whoever is at the console may mend what is wrong, and leave the shell then: die's own is the last thing that a boot
            # does. Without a shell (rd.shell=0) this ends the boot.
            emergency_shell "FATAL: $imprint_reason"
            # On purpose: a machine without its root cannot boot on, and /init would try twenty times. Does nothing if the root is
            # there by now.
            /usr/bin/imprint root --to "$NEWROOT" || die "$imprint_reason"
        fi
        ;;
esac
