//! `imprint.swap=`: which swap space the boot sets up. Pure.

/// What the boot may use as swap space.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Swap {
    /// `auto`: each partition with the marker; nothing where there is none. The default.
    #[default]
    Auto,
    /// `disk`: the same, and the machine is meant to have one.
    Disk,
    /// `zram[:PERCENT%]`: the same, and where there is none, compressed memory of so many percent of the memory.
    Zram(u8),
    /// `off`: none.
    Off,
}

/// Memory that was compressed to half of what it was makes room for as much as it takes.
const PERCENT: u8 = 50;

impl Swap {
    /// Reads the value of the word. `None`: it is none.
    pub(super) fn parse(value: &str) -> Option<Swap> {
        match value {
            "auto" => Some(Swap::Auto),
            "disk" => Some(Swap::Disk),
            "zram" => Some(Swap::Zram(PERCENT)),
            "off" => Some(Swap::Off),
            value => {
                let percent = value.strip_prefix("zram:")?.strip_suffix('%')?.parse().ok();
                percent.filter(|percent| (1..=200).contains(percent)).map(Swap::Zram)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, OptionsError};

    #[test]
    fn values_of_the_word() {
        let parsed = |words: &str| Options::parse(words).map(|options| options.swap);
        for (words, want) in [
            ("quiet", Swap::Auto),
            ("imprint.swap=auto", Swap::Auto),
            ("imprint.swap=disk", Swap::Disk),
            ("imprint.swap=zram", Swap::Zram(50)),
            ("imprint.swap=zram:125%", Swap::Zram(125)),
            ("imprint.swap=off", Swap::Off),
        ] {
            assert_eq!(parsed(words), Ok(want), "{words}");
        }
        for value in
            ["", "on", "zram:", "zram:50", "zram:0%", "zram:201%", "zram:300%", "zram:-1%", "disk:vdb2", "Zram"]
        {
            let refused = parsed(&format!("imprint.swap={value}"));
            assert!(matches!(refused, Err(OptionsError::Value { .. })), "{value}: {refused:?}");
        }
        assert_eq!(parsed("imprint.swap=disk imprint.swap=off"), Err(OptionsError::Twice("imprint.swap=")));
    }
}
