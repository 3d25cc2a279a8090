//! Telnet as a byte pipe (RFC 854, 855, 856, 858): turns bytes from the wire into data and answers, and data into bytes for
//! the wire. Pure: no sockets. Asks for BINARY both ways and accepts the server's ECHO and SGA; refuses all other options.

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SGA: u8 = 3;

/// The client's end of a connection.
#[derive(Clone, Debug)]
pub struct Telnet {
    state: State,
    /// Which options the server uses, and which this end uses. Answers are sent only for changes (RFC 854: no loops).
    theirs: [bool; 256],
    ours: [bool; 256],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Data,
    /// After a carriage return. If the line is not binary, a NUL that follows belongs to it.
    Return,
    Command,
    Option(u8),
    /// Inside a subnegotiation, which is skipped.
    Sub,
    SubCommand,
}

impl Telnet {
    /// A new connection, and the bytes to send first.
    pub fn new() -> (Telnet, Vec<u8>) {
        let mut telnet = Telnet { state: State::Data, theirs: [false; 256], ours: [false; 256] };
        // Counted as agreed already, so that the server's consent needs no answer.
        telnet.set(true, BINARY, true);
        telnet.set(false, BINARY, true);
        telnet.set(true, SGA, true);
        (telnet, vec![IAC, DO, BINARY, IAC, WILL, BINARY, IAC, DO, SGA])
    }

    fn is(&self, theirs: bool, option: u8) -> bool {
        let table = if theirs { &self.theirs } else { &self.ours };
        table.get(usize::from(option)).copied().unwrap_or(false)
    }

    fn set(&mut self, theirs: bool, option: u8, on: bool) {
        let table = if theirs { &mut self.theirs } else { &mut self.ours };
        if let Some(slot) = table.get_mut(usize::from(option)) {
            *slot = on;
        }
    }

    /// Takes bytes from the wire. Appends data to `data` and answers to `answer`.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>, answer: &mut Vec<u8>) {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (State::Data | State::Return, IAC) => State::Command,
                (State::Return, 0) if !self.is(true, BINARY) => State::Data,
                (State::Data | State::Return, other) => {
                    data.push(other);
                    if other == b'\r' { State::Return } else { State::Data }
                }
                (State::Command, IAC) => {
                    data.push(IAC);
                    State::Data
                }
                (State::Command, verb @ (WILL | WONT | DO | DONT)) => State::Option(verb),
                (State::Command, SB) => State::Sub,
                // NOP, AYT and the like are ignored.
                (State::Command, _) => State::Data,
                (State::Option(verb), option) => {
                    self.agree(verb, option, answer);
                    State::Data
                }
                (State::Sub, IAC) => State::SubCommand,
                (State::Sub, _) => State::Sub,
                (State::SubCommand, SE) => State::Data,
                (State::SubCommand, _) => State::Sub,
            };
        }
    }

    fn agree(&mut self, verb: u8, option: u8, answer: &mut Vec<u8>) {
        let (theirs, on) = match verb {
            WILL => (true, true),
            WONT => (true, false),
            DO => (false, true),
            _ => (false, false),
        };
        let wanted = if theirs { matches!(option, BINARY | SGA | ECHO) } else { matches!(option, BINARY | SGA) };
        let becomes = on && wanted;
        let was = self.is(theirs, option);
        // A refusal answers every request; consent is sent once.
        if was == becomes && (wanted || !on) {
            return;
        }
        self.set(theirs, option, becomes);
        let verb = match (theirs, becomes) {
            (true, true) => DO,
            (true, false) => DONT,
            (false, true) => WILL,
            (false, false) => WONT,
        };
        answer.extend([IAC, verb, option]);
    }

    /// Escapes data for the wire.
    pub fn send(&self, data: &[u8], wire: &mut Vec<u8>) {
        for byte in data {
            wire.push(*byte);
            match *byte {
                IAC => wire.push(IAC),
                // RFC 854, "The NVT printer": a bare carriage return is followed by NUL.
                b'\r' if !self.is(false, BINARY) => wire.push(0),
                _ => {}
            }
        }
    }
}
