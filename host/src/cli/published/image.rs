//! The JSON of `imprint-host image`. Published like the rest: an item may be added, and none may change.

use serde::Serialize;

/// `image`
#[derive(Serialize)]
pub(in crate::cli) struct ImageFile<'a> {
    pub(in crate::cli) image: &'a str,
    pub(in crate::cli) bytes: usize,
    /// Its length before it was compressed.
    pub(in crate::cli) unpacked: usize,
    pub(in crate::cli) sha256: String,
    /// The version of the kernel that it is for.
    pub(in crate::cli) kernel: &'a str,
    pub(in crate::cli) machine: String,
    pub(in crate::cli) agent: String,
    pub(in crate::cli) agent_bytes: usize,
    pub(in crate::cli) modules: Vec<ImageModule<'a>>,
    /// Modules that are loaded at the start, as no device announces them.
    pub(in crate::cli) started: &'a [String],
    /// How many files of firmware.
    pub(in crate::cli) firmware: usize,
    /// Private keys, by their places in the image.
    pub(in crate::cli) keys: &'a [&'static str],
    pub(in crate::cli) warnings: &'a [String],
}

/// A module in an image.
#[derive(Serialize)]
pub(in crate::cli) struct ImageModule<'a> {
    pub(in crate::cli) name: &'a str,
    /// Its length, unpacked.
    pub(in crate::cli) bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change it: you have changed what programs read.
    #[test]
    fn frozen() {
        let file = ImageFile {
            image: "f",
            bytes: 1,
            unpacked: 2,
            sha256: "s".into(),
            kernel: "k",
            machine: "m".into(),
            agent: "a".into(),
            agent_bytes: 3,
            modules: vec![ImageModule { name: "n", bytes: 4 }],
            started: &["n".into()],
            firmware: 5,
            keys: &["/imprint/key"],
            warnings: &["w".into()],
        };
        assert_eq!(
            crate::json::line(&file),
            r#"{"agent":"a","agent_bytes":3,"bytes":1,"firmware":5,"image":"f","kernel":"k","keys":["/imprint/key"],"machine":"m","modules":[{"bytes":4,"name":"n"}],"sha256":"s","started":["n"],"unpacked":2,"warnings":["w"]}"#
        );
    }
}
