//! Checks that a HELLO is from the machine that the record names. Guards against swapped cables only, never against an
//! attacker: a HELLO is not authenticated.

use imprint::line::Hello;
use imprint::payload::Binding;

use crate::admission::{Said, differs};

/// Compares binding and HELLO; the error names the first difference.
pub(super) fn is_named(binding: Option<&Binding>, hello: &Hello) -> Result<(), String> {
    match binding.and_then(|binding| differs(binding, &Said::by(hello, "line"))) {
        None => Ok(()),
        Some(differs) => Err(format!(
            "another machine is on this line: the record's {} is {}, HELLO says {}",
            differs.what, differs.want, differs.have
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imprint::line::{Nonce, Versions};

    fn hello(serial: Option<&str>) -> Hello {
        Hello {
            heard: None,
            versions: Versions::OURS,
            plain: false,
            fresh: false,
            nonce: Nonce([1; 8]),
            key: [2; 32],
            uuid: None,
            serial: serial.map(str::to_owned),
            macs: Vec::new(),
        }
    }

    fn check(want: &str, have: Option<&str>) -> Result<(), String> {
        is_named(Some(&Binding { uuid: None, macs: Vec::new(), serial: Some(want.to_owned()) }), &hello(have))
    }

    #[test]
    fn serial_numbers_are_compared_whole() {
        let other = |have: &str| {
            Err(format!("another machine is on this line: the record's serial number is \"CZ1234\", HELLO says {have}"))
        };
        assert_eq!(check("CZ1234", Some("CZ1234")), Ok(()));
        assert_eq!(check("CZ1234", Some("CZ123")), other("\"CZ123\""));
        assert_eq!(check("CZ1234", Some("CZ12345")), other("\"CZ12345\""));
        assert_eq!(check("CZ1234", Some("")), other("\"\""));
        assert_eq!(check("CZ1234", None), other("none"));
    }

    /// A HELLO has at most 32 characters of the serial number.
    #[test]
    fn a_serial_number_that_is_too_long_for_hello_is_compared_as_far_as_that_goes() {
        let want = "CN0H1234701632AB00CDA02X1234567890";
        assert_eq!(check(want, Some(&want[..32])), Ok(()));
        for have in [&want[..31], &want[..1], "", "CN0H1234701632AB00CDA02X12345678X"] {
            assert!(check(want, Some(have)).unwrap_err().ends_with(&format!("HELLO says \"{have}\"")), "{have}");
        }
    }
}
