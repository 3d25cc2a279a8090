//! Tests of what the agent does as process 1 of a bare image when something goes wrong: words that say what follows, a program that ends,
//! ctrl-alt-del, and modules that the kernel does not take.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use imprint_tests::vm;

use super::bare::PROMPT;
use super::line::connected;
use crate::*;

/// What the kernel looks for at the end of a module's file (kernel/module/signing.c).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A module of the kernel without its signature: where it is in the image, and its bytes.
fn unsigned(file: &str) -> (String, Vec<u8>) {
    let kernel = vm::vmlinuz(Kernel::Stable, Init::Bare).with_file_name("");
    let folder = format!("lib/modules/{}", std::fs::read_to_string(kernel.join("version")).unwrap().trim());
    let dep = std::fs::read_to_string(kernel.join(&folder).join("modules.dep")).unwrap();
    let paths = dep.lines().filter_map(|line| line.split(':').next());
    let path = paths.into_iter().find(|path| path.ends_with(&format!("/{file}"))).unwrap();
    let module = std::fs::read(kernel.join(&folder).join(path)).unwrap();
    let module = module.strip_suffix(SIGNED).expect("the premise: Debian signs its modules");
    (format!("{folder}/{path}"), module.to_vec())
}

/// The same bytes with one text in the place of another one.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    let mut bytes = bytes.to_vec();
    bytes.splice(at..at + old.len(), new.iter().copied());
    bytes
}

/// A machine that cannot boot restarts, or is switched off, only where the kernel command line asks for it. The kernel takes signed modules
/// alone, as under lockdown, and one that is not signed hinders no other.
#[test]
fn a_boot_that_fails_ends_as_the_kernel_command_line_says() {
    let site = Site::new(Node { bind: "{ serial = \"VM-0002\" }", ..NODE });
    let (path, module) = unsigned("virtio-rng.ko");
    let wrong_payload = site
        .machine(Kernel::Stable)
        .append("imprint.rescue=reboot module.sig_enforce=1")
        .initramfs_file(&path, &module)
        .qemu(&["-device", "virtio-rng-pci"]);
    let console = wrong_payload.init(Init::Bare).append("loglevel=3").dies();
    for words in [
        "virtio-rng.ko is not signed by anybody whom this kernel trusts",
        "imprint: the machine reboots in 10 s (imprint.rescue= on the kernel command line)",
        "reboot: Restarting system",
    ] {
        assert!(console.contains(words), "{words}:\n{console}");
    }
    let last = console.lines().rfind(|line| line.contains("imprint: ")).unwrap();
    let why = "imprint: the boot was stopped with exit code 13: plan: the payload is for a machine with serial number VM-0002";
    assert!(last.contains(why), "{last}\n{console}");

    let missing = Machine::new(Kernel::Stable).init(Init::Bare);
    let console = missing.append("imprint=off imprint.next=/bin/none imprint.rescue=poweroff loglevel=3").dies();
    for words in ["imprint: the machine is switched off in 10 s", "reboot: Power down"] {
        assert!(console.contains(words), "{words}:\n{console}");
    }
    let last = console.lines().rfind(|line| line.contains("imprint: ")).unwrap();
    let why =
        "imprint: imprint.next=/bin/none cannot be started; put the program into the image: No such file or directory";
    assert!(last.contains(why), "{last}\n{console}");
}

/// Reads until everything that was seen contains these words.
fn sees(line: &mut UnixStream, seen: &mut String, words: &str) {
    let mut buffer = [0; 1024];
    while !seen.contains(words) {
        let count = line.read(&mut buffer).unwrap_or_else(|error| panic!("{error}: {seen}"));
        assert!(count > 0, "the console ended before {words}: {seen}");
        seen.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap()));
    }
}

/// The program of imprint.next= ends, and the machine waits at a prompt, where a person finds a shell that takes signals, and ctrl-alt-del
/// still reboots. Two modules of the image are of another kernel, and packed in a way that nobody knows.
#[test]
fn a_program_that_ends_leads_to_the_prompt_and_ctrl_alt_del_reboots() {
    let work = tempfile::tempdir().unwrap();
    let (socket, monitor) = (work.path().join("console"), work.path().join("monitor"));
    let (rng, module) = unsigned("virtio-rng.ko");
    let module = replaced(&module, b" SMP preempt mod_unload", b" UMP preempt mod_unload");
    let (net, _) = unsigned("virtio_net.ko");
    let chardev = format!("socket,path={},server=on,wait=on", socket.display());
    let machine = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .append("imprint=off imprint.next=\"/bin/cat /nowhere\" loglevel=3")
        .initramfs_file(&rng, &module)
        .initramfs_file(&net, b"BZh91AY&SY")
        .qemu(&["-device", "virtio-rng-pci"])
        .qemu(&["-monitor", &format!("unix:{},server=on,wait=off", monitor.display())])
        .console(&chardev)
        .limit(10 * PATIENCE);
    std::thread::scope(|scope| {
        let person = scope.spawn(move || {
            let (mut line, mut seen) = (connected(&socket), String::new());
            for words in [
                PROMPT,
                "imprint: imprint.next=/bin/cat has ended with exit code 1",
                "virtio-rng.ko was made for another kernel, or is damaged (virtio_rng: version magic",
                "virtio_net.ko: it is neither a module nor compressed with gzip, xz or zstd",
            ] {
                sees(&mut line, &mut seen, words);
            }
            line.write_all(b"shell\n").unwrap();
            sees(&mut line, &mut seen, "# ");
            line.write_all(b"grep SigBlk /proc/self/status\n").unwrap();
            sees(&mut line, &mut seen, "SigBlk:\t0000000000000000");
            // It stays open: the monitor forgets what it has not read when somebody hangs up.
            let mut keyboard = connected(&monitor);
            keyboard.write_all(b"sendkey ctrl-alt-delete\n").unwrap();
            sees(&mut line, &mut seen, "imprint: ctrl-alt-del: the machine reboots");
            // Whoever does not read holds the console up.
            let _ = line.read_to_end(&mut Vec::new());
        });
        let console = machine.dies();
        assert!(console.contains("reboot: Restarting system"), "{console}");
        person.join().unwrap();
    });
}
