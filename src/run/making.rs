//! How a node may make its bundle on this machine: of which settings, and where a person can be asked. Never asks anybody.

use std::path::Path;

use crate::dialogue::Dialogue;
use crate::options::Options;
use crate::port::{self, Place};
use crate::setting::Settings;
use crate::setup;

/// How a bundle may be made on this machine.
#[derive(Default)]
pub(super) struct Making<'a> {
    /// Make a new one, also if there is one.
    pub(super) new: bool,
    /// What the kernel command line says about it.
    pub(super) settings: Settings,
    pub(super) asks: Asks<'a>,
}

/// Where a person can be asked.
#[derive(Default)]
pub(super) enum Asks<'a> {
    #[default]
    Nowhere,
    /// On every console of this kernel command line.
    Consoles(&'a str),
    /// On the terminal of the person who has started the program.
    Here,
}

impl<'a> Making<'a> {
    pub(super) fn of(options: &Options, asks: Asks<'a>) -> Making<'a> {
        Making { new: options.new_bundle, settings: options.settings.clone(), asks }
    }

    /// `line`: what a host speaks on, which cannot be used for questions.
    pub(super) fn places(&self, root: &Path, line: Option<&Dialogue>) -> Vec<Place> {
        let names = line.map(Dialogue::names);
        match self.asks {
            Asks::Nowhere => Vec::new(),
            Asks::Consoles(cmdline) => setup::places(root, cmdline, names.as_deref()),
            // ^C is a key of the dialogue.
            Asks::Here => port::terminal().map(|place| Place { keys: false, ..place }).into_iter().collect(),
        }
    }
}
