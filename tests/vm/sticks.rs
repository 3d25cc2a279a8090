//! Tests of machines whose admission key is on a USB stick, with the kernel's own drivers and udev. Each has no payload, and
//! calls at a door over TCP.

use imprint::key_code::KeyCode;
use imprint_host::list;
use imprint_host::state::MadeKey;

use super::door::{Door, let_in};
use crate::*;

/// A node that the key `rack7` lets in, which was made for a stick.
fn door() -> (Door, MadeKey) {
    let door = Door::new("bind = { serial = \"VM-0001\" }\nadmit = \"key\"\nadmission_key = \"rack7\"");
    let made = MadeKey::new().unwrap();
    door.state().list_key("rack7", made.public, false, Timestamp::system()).unwrap();
    (door, made)
}

/// A stick with this key.
fn stick(door: &Door, name: &str, key: &MadeKey) -> PathBuf {
    let path = PathBuf::from(door.path(name));
    std::fs::write(&path, &*imprint_host::vfat::stick(key.pem.as_bytes()).unwrap()).unwrap();
    path
}

/// A machine with USB that calls at the door.
fn machine_at(door: &mut Door) -> Machine {
    let at = door.serve("tcp:127.0.0.1:0");
    let port = at.rsplit(':').next().unwrap();
    // The kernel for all machines, two buses, and a door to wait for: on a busy host that takes longer than a boot.
    door.machine_of(Kernel::Generic, &format!("tcp:10.0.2.2:{port}")).limit(10 * PATIENCE)
}

/// The main path: nobody is at the machine, and nobody decides.
#[test]
fn a_stick_lets_a_machine_in() {
    let (mut door, made) = door();
    let image = stick(&door, "stick", &made);
    let report = machine_at(&mut door).usb_stick(&image).boot();
    let_in(&report, "stick", "line tcp:10.0.2.2:");
    let words = format!("admission key {} of sda (IMPRINT-KEY)", KeyCode::of(&made.public));
    assert!(report.console.contains(&words), "{}", report.console);
}

/// The stick of another rack is in the machine, too, on another bus. The one that the record names counts, whichever is seen
/// first.
#[test]
fn the_right_one_of_two_sticks_lets_a_machine_in() {
    let (mut door, made) = door();
    let other = stick(&door, "other", &MadeKey::new().unwrap());
    let image = stick(&door, "stick", &made);
    // On the older bus.
    let drive = format!("file={},if=none,id=second,format=raw,readonly=on", image.display());
    let second = ["-drive", &drive, "-device", "usb-ehci,id=ehci", "-device", "usb-storage,bus=ehci.0,drive=second"];
    let report = machine_at(&mut door).usb_stick(&other).qemu(&second).boot();
    let_in(&report, "stick", "line tcp:10.0.2.2:");
    assert!(report.console.contains(&KeyCode::of(&made.public).to_string()), "{}", report.console);
}

/// A stick that is not the record's: the machine waits, and console and host name the same code of its key. The administrator
/// decides.
#[test]
fn the_stick_of_another_rack_lets_nobody_in() {
    let (mut door, _made) = door();
    let other = MadeKey::new().unwrap();
    let image = stick(&door, "other", &other);
    let machine = machine_at(&mut door).usb_stick(&image);
    let code = KeyCode::of(&other.public).to_string();
    let report = std::thread::scope(|scope| {
        let boot = scope.spawn(|| machine.boot());
        let start = std::time::Instant::now();
        loop {
            let waiting = list::callers(&door.state(), Timestamp::system()).unwrap();
            let seen = waiting.iter().find(|row| row.why.contains(&code));
            if let Some(row) = seen {
                let want = format!("it has shown admission key {code}, and the record of node1 does not name it");
                assert_eq!(row.why, want);
                door.state().admit(&row.code, None, Timestamp::system()).unwrap();
                break;
            }
            assert!(start.elapsed() < 4 * PATIENCE && !boot.is_finished(), "it does not wait: {waiting:?}");
            // Polling: the store gives no notice.
            std::thread::sleep(Duration::from_millis(100));
        }
        boot.join().unwrap()
    });
    let_in(&report, "approved", "line tcp:10.0.2.2:");
    assert!(report.console.contains(&format!("admission key {code} of sda (IMPRINT-KEY)")), "{}", report.console);
}
