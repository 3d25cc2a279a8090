//! The questions and what follows from the answers. Pure: bytes that were typed in, bytes for the terminal out; no terminal, no clock, no
//! randomness. Never moves a cursor: a console server, a log or a teletype shows it as well.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::hash::sha512_crypt;
use super::typed::{Key as Pressed, Typed};
use super::words::{self, say};
use crate::payload::{HardwareAddress, InterfaceName, Link, LinkKind, Match};
use crate::setting::{Key, SETTINGS, SettingError, Settings};

/// What the dialogue begins with.
#[derive(Clone)]
pub struct Start {
    /// The name of the node's record, or nothing if it is not known.
    pub node: String,
    /// The links of the machine.
    pub links: Vec<Port>,
    /// The answers that Enter takes.
    pub defaults: Settings,
    /// Random bytes for the hash of the password.
    pub salt: [u8; 16],
    /// The person may quit: there is a shell to go back to.
    pub may_quit: bool,
}

/// A link of the machine, as the person sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name now.
    pub name: InterfaceName,
    /// The address that the setting will match by; without one it matches by name.
    pub mac: Option<HardwareAddress>,
    /// What else is shown: driver, carrier, speed.
    pub words: String,
    /// Whether a cable is plugged in.
    pub carrier: bool,
}

/// How the dialogue ended.
#[derive(Debug)]
pub enum End {
    /// The person has said yes.
    Settings(Box<Settings>),
    /// The person has left the program.
    Quit,
}

/// The dialogue.
pub struct Script {
    start: Start,
    settings: Settings,
    /// The answer for each link of the machine.
    links: Vec<Option<Link>>,
    questions: Vec<Question>,
    at: At,
    typed: Typed,
    /// Something else was written to the console since the line was shown.
    disturbed: bool,
    /// The terminal was away.
    away: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Of(Key),
    Link(usize),
}

/// What is asked now.
#[derive(Clone, PartialEq, Eq)]
enum At {
    /// A question; afterwards the next one.
    Ask(usize),
    /// One question, and then the last screen again.
    Change(usize),
    /// The password once more.
    Again { question: usize, back: bool, first: Zeroizing<Vec<u8>> },
    /// More keys of the list; afterwards as before.
    More { question: usize, back: bool },
    /// The last screen.
    Review,
    /// Whether to begin anew.
    Anew(Box<At>),
}

impl Script {
    /// A dialogue that has not said anything yet.
    pub fn new(mut start: Start) -> Script {
        let links = beginning(&mut start);
        let mut settings = start.defaults.clone();
        settings.links.clear();
        let mut questions = Vec::new();
        for row in &SETTINGS {
            match row.key {
                Key::Link => questions.extend((0..links.len()).map(Question::Link)),
                key => questions.push(Question::Of(key)),
            }
        }
        let (at, typed) = (At::Ask(0), Typed::new());
        Script { start, settings, links, questions, at, typed, disturbed: false, away: false }
    }

    /// The first words, and the question.
    pub fn greet(&self, out: &mut Vec<u8>) {
        let node = &self.start.node;
        let of = if node.is_empty() { String::new() } else { format!(" of {node}") };
        say(out, &format!("\r\nimprint: settings{of}. Enter takes [ ], - is none, ? explains, ^U clears, ^C restarts"));
        self.ask(out);
    }

    /// Shows the question again, and what was typed.
    pub fn redraw(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.ask(out);
        if !self.typed.secret {
            out.extend_from_slice(self.typed.line());
        }
    }

    /// Something else was written to the console: the next Enter shows the line again and does nothing else.
    pub fn disturbed(&mut self) {
        self.disturbed = true;
    }

    /// The terminal is gone. Answers stay, and the question is shown again when somebody types. A password that was half typed is
    /// forgotten: somebody else may go on.
    pub fn away(&mut self) {
        self.away = true;
        if self.typed.secret {
            self.typed.clear();
        }
    }

    /// The number of the question, while the questions are asked one after the other.
    pub fn question(&self) -> Option<usize> {
        match self.at {
            At::Ask(number) => Some(number),
            _ => None,
        }
    }

    /// Asks again from this question on, if the questions are still asked one after the other.
    pub fn back_to(&mut self, question: Option<usize>) {
        if let (Some(before), Some(now)) = (question, self.question())
            && before < now
        {
            self.typed.clear();
            self.at = At::Ask(before);
            self.typed.secret = self.is_secret();
        }
    }

    /// Takes bytes that were typed. What the terminal is to show is added to `out`.
    pub fn typed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<End> {
        for byte in bytes {
            if std::mem::take(&mut self.away) {
                self.redraw(out);
                // The key that woke the terminal up answers nothing.
                if !matches!(byte, b'!'..=b'~') {
                    continue;
                }
            }
            let end = match self.typed.byte(*byte, out) {
                None => None,
                Some(Pressed::Redraw) => {
                    self.redraw(out);
                    None
                }
                Some(Pressed::Enter) if std::mem::take(&mut self.disturbed) => {
                    self.redraw(out);
                    None
                }
                Some(Pressed::Interrupt) => {
                    self.interrupt(out);
                    None
                }
                Some(Pressed::Enter) => self.enter(out),
            };
            if end.is_some() {
                return end;
            }
        }
        None
    }

    fn interrupt(&mut self, out: &mut Vec<u8>) {
        self.typed.clear();
        out.extend_from_slice(b"^C\r\n");
        // ^C at the question itself is no answer.
        if !matches!(self.at, At::Anew(_)) {
            let before = std::mem::replace(&mut self.at, At::Review);
            self.at = At::Anew(Box::new(before));
        }
        self.typed.secret = false;
        self.ask(out);
    }

    fn enter(&mut self, out: &mut Vec<u8>) -> Option<End> {
        out.extend_from_slice(b"\r\n");
        let line = Zeroizing::new(self.typed.line().to_vec());
        self.typed.clear();
        // What is not secret is printable ASCII.
        let text = std::str::from_utf8(&line).unwrap_or_default().trim();
        let at = self.at.clone();
        match at {
            At::Anew(before) => match text.to_ascii_lowercase().as_str() {
                "yes" => *self = Script::new(self.start.clone()),
                "quit" if self.start.may_quit => return Some(End::Quit),
                _ => self.at = *before,
            },
            At::Review => {
                if let Some(end) = self.review(text, out) {
                    return Some(end);
                }
            }
            At::Ask(question) => self.answer(question, false, text, &line, out),
            At::Change(question) => self.answer(question, true, text, &line, out),
            At::More { question, back } if text.is_empty() || text == "-" => self.go_on(question, back, out),
            At::More { .. } => self.add_key(text, out),
            At::Again { question, back, first } => {
                if *first == *line {
                    let hash = sha512_crypt(&line, &self.start.salt);
                    self.settings.clear(Key::Password);
                    if self.settings.add(Key::Password, &hash).is_ok() {
                        self.go_on(question, back, out);
                    }
                } else {
                    say(out, "  these two differ");
                    self.at = if back { At::Change(question) } else { At::Ask(question) };
                }
            }
        }
        self.typed.secret = self.is_secret();
        self.ask(out);
        None
    }

    /// Whether what is typed now is not shown.
    fn is_secret(&self) -> bool {
        match &self.at {
            At::Ask(number) | At::Change(number) => {
                self.questions.get(*number).is_some_and(|question| question.key() == Key::Password)
            }
            At::Again { .. } => true,
            At::More { .. } | At::Review | At::Anew(_) => false,
        }
    }

    /// An answer to a question.
    fn answer(&mut self, number: usize, back: bool, text: &str, line: &[u8], out: &mut Vec<u8>) {
        let Some(question) = self.questions.get(number).copied() else { return };
        let key = question.key();
        match text {
            "?" => {
                words::explain(key, self.port(question).and_then(|port| port.mac.as_ref()), out);
                return;
            }
            // Only a password may have blanks at its ends, or be nothing but blanks.
            "" if line.is_empty() || key != Key::Password => {}
            "-" => self.put(question, None),
            _ if key == Key::Password => {
                let first = Zeroizing::new(line.to_vec());
                self.at = At::Again { question: number, back, first };
                return;
            }
            _ => match self.read(question, text) {
                Ok(settings) => {
                    self.put(question, Some(settings));
                    if key == Key::Ssh {
                        self.at = At::More { question: number, back };
                        return;
                    }
                }
                Err(error) => {
                    say(out, &format!("  {error}"));
                    return;
                }
            },
        }
        self.go_on(number, back, out);
    }

    fn add_key(&mut self, text: &str, out: &mut Vec<u8>) {
        if let Err(error) = self.settings.add(Key::Ssh, text) {
            say(out, &format!("  {error}"));
        }
    }

    /// The settings that this answer alone makes.
    fn read(&self, question: Question, text: &str) -> Result<Settings, SettingError> {
        let mut settings = Settings::default();
        let key = question.key();
        match question {
            Question::Link(_) => {
                let name = self.port(question).map(Port::matching).unwrap_or_default();
                settings.add(key, &format!("{name},{text}"))?;
            }
            // A key has blanks in it.
            Question::Of(_) if key.row().most > 1 && key != Key::Ssh => {
                let items = text.split([',', ' ']).filter(|item| !item.is_empty());
                items.map(|item| settings.add(key, item)).collect::<Result<Vec<()>, _>>()?;
            }
            Question::Of(_) => settings.add(key, text)?,
        }
        Ok(settings)
    }

    fn put(&mut self, question: Question, answer: Option<Settings>) {
        let mut answer = answer.unwrap_or_default();
        match question {
            Question::Link(port) => {
                if let Some(place) = self.links.get_mut(port) {
                    *place = answer.links.pop();
                }
            }
            Question::Of(key) => {
                self.settings.clear(key);
                for text in answer.texts(key) {
                    // It was valid before.
                    let _ = self.settings.add(key, &text);
                }
            }
        }
    }

    /// The next question, or the last screen.
    fn go_on(&mut self, question: usize, back: bool, out: &mut Vec<u8>) {
        let next = question.saturating_add(1);
        if !back && next < self.questions.len() {
            self.at = At::Ask(next);
        } else {
            self.at = At::Review;
            self.show(out);
        }
    }

    fn review(&mut self, text: &str, out: &mut Vec<u8>) -> Option<End> {
        if text.eq_ignore_ascii_case("yes") {
            let mut settings = self.settings.clone();
            settings.links.extend(self.links.iter().flatten().cloned());
            match settings.check() {
                Ok(()) => return Some(End::Settings(Box::new(settings))),
                Err(error) => say(out, &format!("  {error}")),
            }
            return None;
        }
        let number = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match number.filter(|number| *number < self.questions.len()) {
            Some(number) => self.at = At::Change(number),
            None => self.show(out),
        }
        None
    }

    /// The last screen.
    fn show(&self, out: &mut Vec<u8>) {
        for (number, question) in (1..).zip(&self.questions) {
            say(out, &format!("{number:2} {} {}", self.label(*question), self.value(*question, false)));
        }
    }

    /// The question, or what else is awaited.
    fn ask(&self, out: &mut Vec<u8>) {
        let text = match &self.at {
            At::Ask(number) | At::Change(number) => match self.questions.get(*number) {
                Some(question) => self.prompt(*question),
                None => String::new(),
            },
            At::Again { .. } => "again: ".to_owned(),
            At::More { .. } => "one more [-]: ".to_owned(),
            At::Review => "number to change, yes to go on: ".to_owned(),
            At::Anew(_) if self.start.may_quit => "restart? yes, quit or Enter: ".to_owned(),
            At::Anew(_) => "restart? yes or Enter: ".to_owned(),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn prompt(&self, question: Question) -> String {
        let mut text = self.label(question);
        if let Some(port) = self.port(question) {
            let _ = write!(text, ", {}", port.words);
        }
        let _ = write!(text, " [{}]: ", self.value(question, true));
        text
    }

    fn label(&self, question: Question) -> String {
        self.port(question).map_or_else(|| words::label(question.key()).to_owned(), |port| port.name.to_string())
    }

    /// The link that is asked about.
    fn port(&self, question: Question) -> Option<&Port> {
        match question {
            Question::Link(port) => self.start.links.get(port),
            Question::Of(_) => None,
        }
    }

    /// The present answer; `short` where a line has to have room for more.
    fn value(&self, question: Question, short: bool) -> String {
        let texts = match question {
            Question::Link(port) => {
                let link = self.links.get(port).and_then(Option::as_ref);
                let alone = Settings { links: link.cloned().into_iter().collect(), ..Settings::default() };
                alone.texts(Key::Link)
            }
            Question::Of(key) => self.settings.texts(key),
        };
        match (question, texts.as_slice()) {
            (_, []) => "-".to_owned(),
            (Question::Of(Key::Password), _) => "set".to_owned(),
            (Question::Of(Key::Ssh), keys) if short => {
                format!("{} key{}", keys.len(), if keys.len() == 1 { "" } else { "s" })
            }
            (Question::Of(Key::Ssh), _) => {
                self.settings.ssh.iter().map(|key| key.short()).collect::<Vec<_>>().join(", ")
            }
            // The link stands before it.
            (Question::Link(_), [link, ..]) => {
                let items = link.split_once(',').map_or("no address", |(_, items)| items);
                items.to_owned()
            }
            (_, texts) => texts.iter().map(|text| text.as_str()).collect::<Vec<_>>().join(" "),
        }
    }
}

impl Question {
    fn key(self) -> Key {
        match self {
            Question::Of(key) => key,
            Question::Link(_) => Key::Link,
        }
    }
}

impl Port {
    /// What the setting matches the link by.
    fn matching(&self) -> String {
        self.mac.as_ref().map_or_else(|| self.name.to_string(), ToString::to_string)
    }

    fn is(&self, link: &Link) -> bool {
        match &link.kind {
            LinkKind::Physical(Match::Mac(mac)) => self.mac.as_ref() == Some(mac),
            LinkKind::Physical(Match::Name(name)) => self.name == *name,
            _ => false,
        }
    }
}

/// Sorts the links of the defaults to those of the machine; a link that is not there is asked for, too. Without any, links with a cable
/// begin with DHCP and router advertisements.
fn beginning(start: &mut Start) -> Vec<Option<Link>> {
    let mut given = std::mem::take(&mut start.defaults.links);
    let none = given.is_empty();
    let mut links = Vec::new();
    for port in &start.links {
        let found = given.iter().position(|link| port.is(link)).map(|place| given.remove(place));
        let automatic =
            || Settings::from_words([("link", format!("{},dhcp4,slaac", port.matching()).as_str())].into_iter());
        links.push(match found {
            None if none && port.carrier => automatic().ok().and_then(|mut settings| settings.links.pop()),
            found => found,
        });
    }
    for link in &given {
        let (name, mac) = match &link.kind {
            LinkKind::Physical(Match::Name(name)) => (Some(name.clone()), None),
            LinkKind::Physical(Match::Mac(mac)) => (InterfaceName::try_from("link").ok(), Some(mac.clone())),
            _ => (None, None),
        };
        let Some(name) = name else { continue };
        let words = mac.as_ref().map_or("not there".to_owned(), |mac| format!("{mac}, not there"));
        start.links.push(Port { name, mac, words, carrier: false });
        links.push(Some(link.clone()));
    }
    // For a restart.
    start.defaults.links = links.iter().flatten().cloned().collect();
    links
}

#[cfg(test)]
mod tests;
