#!/bin/sh
# For the hooks of dracut without systemd: runs the agent, and stops the boot when the agent says so. Decides nothing else. /init
# sources it, so it leaves no option of the shell changed.

# imprint_or_prompt COMMAND…: runs the agent. If it fails there is a shell, and then this fails as well: whoever was in the shell may
# have mended what was wrong, so the caller looks, and ends the boot with `die "$imprint_reason"` if nobody has.
imprint_or_prompt() {
    # The agent's own lines reach the console as they come; the one on its standard error is why the boot stops.
    {
        imprint_reason=$(/usr/bin/imprint "$@" 2>&1 >&3 3>&-)
        imprint_code=$?
    } 3>&1
    [ "$imprint_code" -ne 0 ] || return 0
    printf '%s\n' "$imprint_reason" >&2
    # die writes its words into a script, between double quotes, and they may hold what a medium, a server or a bundle says. A
    # record of the kernel's log has less than 1024 bytes (kernel/printk/printk.c, devkmsg_write).
    # shellcheck disable=SC1003 # two backslashes are one to tr
    imprint_reason=$(printf 'stopped with exit code %s: %.800s' "$imprint_code" "$imprint_reason" | tr -cd '[:print:]' | tr -d '"$`\\')
    # die's own shell is the last thing that a boot does; this one can be left. Without a shell (rd.shell=0) this ends the boot.
    emergency_shell "FATAL: $imprint_reason"
    return "$imprint_code"
}
