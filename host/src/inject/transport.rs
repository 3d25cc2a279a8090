//! The transports of a line: a device, a socket, a telnet server or a command. Carries bytes only; knows nothing of the
//! line protocol.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use pty_process::{Pty, Size};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Child;
use tokio::time::timeout;
use tokio_serial::{SerialPortBuilderExt, SerialStream};

use super::command::{RAW, SHELL, Script};
use super::telnet::Telnet;

/// A line, as the user has given it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LineSpec {
    /// `/dev/ttyUSB0[,115200]`
    Device(PathBuf, u32),
    /// `unix:PATH`
    Unix(PathBuf),
    /// `tcp:HOST:PORT`
    Tcp(String),
    /// `telnet:HOST:PORT`
    Telnet(String),
    /// `exec:COMMAND`
    Exec(Script),
    /// A line that is not a device, with its speed: `unix:PATH,9600`, `tcp:HOST:PORT,9600`, `telnet:HOST:PORT,9600`, or the
    /// speed behind the first word, as in `exec,9600:COMMAND`. The speed only informs the protocol; this end sets no speed.
    Paced(Box<LineSpec>, u32),
    /// Any line, with the columns of a terminal on the way: `telnet:HOST:PORT,columns=80`, or behind the first word, as in
    /// `exec,columns=80:COMMAND`. No frame is longer than this.
    Narrow(Box<LineSpec>, u8),
}

/// An open line.
pub enum Line {
    /// A serial device.
    Device(Box<SerialStream>),
    /// A Unix socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
    /// A TCP connection to a telnet server.
    Telnet(Box<Telneted>),
    /// A command with a pseudo-terminal of its own. Closing the line ends the command.
    Exec(Box<Pty>, Box<Child>),
}

/// A telnet connection with its codec and buffers.
pub struct Telneted {
    stream: TcpStream,
    codec: Telnet,
    data: Vec<u8>,
    wire: Vec<u8>,
}

/// Why a line cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {why}; {what}")]
pub struct LineError {
    line: String,
    what: &'static str,
    /// The system's error. The message contains it, so it is not a `source`: the chain would print it twice.
    why: io::Error,
}

/// Nothing is read while more bytes than this wait to be written: a peer that sends requests and reads no answers must not
/// exhaust the memory.
pub(super) const WAITING: usize = 64 * 1024;
const DEFAULT_BAUD: u32 = 115_200;
/// The mark before a line's number of columns.
const COLUMNS: &str = ",columns=";
/// The narrowest line that the shortest frames fit (imprint::line::host::NARROWEST); and the longest frame with a column to
/// spare.
const COLUMNS_LEAST: u8 = 62;
const COLUMNS_MOST: u8 = 252;
/// Columns of a command's terminal. Programs that break lines at the terminal's width then do not break a frame of 251
/// characters. screen(1) allows at most this width.
const WIDE: u16 = 1000;
const OPEN: Duration = Duration::from_secs(10);

impl FromStr for LineSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<LineSpec, String> {
        match narrow(text)? {
            Some((line, columns)) => Ok(LineSpec::Narrow(Box::new(of_any_width(&line)?), columns)),
            None => of_any_width(text),
        }
    }
}

fn of_any_width(text: &str) -> Result<LineSpec, String> {
    let line = match (paced(text)?, text.split_once(':')) {
        (Some((kind, rest, baud)), _) => of_kind(kind, rest)?.map(|line| LineSpec::Paced(Box::new(line), baud)),
        (None, _) if text.starts_with('/') => Some(match text.rsplit_once(',') {
            None => LineSpec::Device(text.into(), DEFAULT_BAUD),
            Some((path, digits)) => LineSpec::Device(path.into(), baud(digits)?),
        }),
        (None, Some((kind, rest))) => of_kind(kind, rest)?,
        (None, None) => None,
    };
    // Not the whole text: the rest may be a command with a password.
    line.ok_or_else(|| {
        format!(
            "\"{}\" is not a kind of line; want /dev/ttyUSB0[,115200], unix:PATH[,BAUD], tcp:HOST:PORT[,BAUD], \
             telnet:HOST:PORT[,BAUD] or exec[,BAUD]:COMMAND; with a terminal of 80 columns on the way ,columns=80 \
             where BAUD is, or after it",
            imprint::shown::Printable::given(text.split([':', ' ', '=']).next().unwrap_or_default())
        )
    })
}

/// A line that is not a device. `None`: the kind is unknown, or the place is missing.
fn of_kind(kind: &str, rest: &str) -> Result<Option<LineSpec>, String> {
    let host_port = || match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(rest.to_owned())
        }
        _ => Err(format!("\"{rest}\" is not HOST:PORT")),
    };
    Ok(match kind {
        "unix" if !rest.is_empty() => Some(LineSpec::Unix(rest.into())),
        "tcp" => Some(LineSpec::Tcp(host_port()?)),
        "telnet" => Some(LineSpec::Telnet(host_port()?)),
        "exec" if !rest.trim().is_empty() => Some(LineSpec::Exec(rest.parse()?)),
        _ => None,
    })
}

fn baud(digits: &str) -> Result<u32, String> {
    match digits.parse() {
        Ok(baud @ 50..=4_000_000) => Ok(baud),
        _ => Err(format!("\"{digits}\" is not a speed; want bits a second, like 115200")),
    }
}

/// Kind, place and speed of a line that is not a device, if the text has a speed: behind the kind, or at the end. A command
/// may itself end in a comma and a number, so its speed comes behind the kind only.
fn paced(text: &str) -> Result<Option<(&str, &str, u32)>, String> {
    let Some((kind, rest)) = text.split_once(':') else { return Ok(None) };
    if let Some((kind @ ("unix" | "tcp" | "telnet" | "exec"), digits)) = kind.split_once(',') {
        return Ok(Some((kind, rest, baud(digits)?)));
    }
    match rest.rsplit_once(',') {
        Some((place, digits)) if matches!(kind, "unix" | "tcp" | "telnet") && is_number(digits) => {
            Ok(Some((kind, place, baud(digits)?)))
        }
        _ => Ok(None),
    }
}

/// The text without its columns, and the columns, if it has them: in the place of the speed, or behind the speed. For a
/// command, behind the kind only.
fn narrow(text: &str) -> Result<Option<(String, u8)>, String> {
    let columns = |digits: &str| match digits.parse() {
        Ok(columns @ COLUMNS_LEAST..=COLUMNS_MOST) => Ok(columns),
        _ => Err(format!(
            "\"{digits}\" is not a number of columns for a line; want {COLUMNS_LEAST} to {COLUMNS_MOST}, or leave it \
             out"
        )),
    };
    let (kind, rest) = text.split_once(':').filter(|_| !text.starts_with('/')).unwrap_or(("", text));
    if let Some((front, digits)) = kind.split_once(COLUMNS) {
        return Ok(Some((format!("{front}:{rest}"), columns(digits)?)));
    }
    match text.rsplit_once(COLUMNS) {
        Some((line, digits)) if kind != "exec" && !kind.starts_with("exec,") => {
            Ok(Some((line.to_owned(), columns(digits)?)))
        }
        _ => Ok(None),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Shows only the program's name of a command: its words and variables may hold a password.
impl fmt::Display for LineSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineSpec::Device(path, baud) => write!(f, "{},{baud}", path.display()),
            LineSpec::Unix(path) => write!(f, "unix:{}", path.display()),
            LineSpec::Tcp(address) => write!(f, "tcp:{address}"),
            LineSpec::Telnet(address) => write!(f, "telnet:{address}"),
            LineSpec::Exec(command) => match command.program() {
                Some(program) => write!(f, "exec:{program} …"),
                None => f.write_str("exec:…"),
            },
            LineSpec::Paced(line, baud) => write!(f, "{line},{baud}"),
            LineSpec::Narrow(line, columns) => write!(f, "{line}{COLUMNS}{columns}"),
        }
    }
}

impl LineSpec {
    /// Whether both are the same line, so that only one can be open.
    pub fn is_same(&self, other: &LineSpec) -> bool {
        match (self, other) {
            // Speed and columns do not matter.
            (LineSpec::Paced(line, _), other) | (other, LineSpec::Paced(line, _)) => other.is_same(line),
            (LineSpec::Narrow(line, _), other) | (other, LineSpec::Narrow(line, _)) => other.is_same(line),
            (LineSpec::Device(path, _), LineSpec::Device(other, _)) => path == other,
            _ => self == other,
        }
    }

    /// The command, if the line is one.
    pub fn script(&self) -> Option<&Script> {
        match self {
            LineSpec::Exec(script) => Some(script),
            LineSpec::Paced(line, _) | LineSpec::Narrow(line, _) => line.script(),
            _ => None,
        }
    }

    pub(super) fn script_mut(&mut self) -> Option<&mut Script> {
        match self {
            LineSpec::Exec(script) => Some(script),
            LineSpec::Paced(line, _) | LineSpec::Narrow(line, _) => line.script_mut(),
            _ => None,
        }
    }

    /// Bits a second, if this end sets or knows them.
    pub fn baud(&self) -> Option<u32> {
        match self {
            LineSpec::Device(_, baud) | LineSpec::Paced(_, baud) => Some(*baud),
            LineSpec::Narrow(line, _) => line.baud(),
            _ => None,
        }
    }

    /// Columns of a terminal on the way, if the user gave them.
    pub fn columns(&self) -> Option<usize> {
        match self {
            LineSpec::Narrow(_, columns) => Some(usize::from(*columns)),
            LineSpec::Paced(line, _) => line.columns(),
            _ => None,
        }
    }

    /// Opens the line.
    pub async fn open(&self) -> Result<Line, LineError> {
        if let LineSpec::Paced(line, _) | LineSpec::Narrow(line, _) = self {
            return Box::pin(line.open()).await;
        }
        let failed = |what| move |source: io::Error| LineError { line: self.to_string(), what, why: source };
        match self {
            LineSpec::Device(path, baud) => {
                let stream = tokio_serial::new(path.to_string_lossy(), *baud).open_native_async();
                let stream = stream.map_err(io::Error::from);
                Ok(Line::Device(Box::new(stream.map_err(failed("check the path, and that nobody else uses it"))?)))
            }
            LineSpec::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Ok(Line::Unix(stream.map_err(failed("start the virtual machine, or give its serial socket"))?))
            }
            LineSpec::Tcp(address) => connect(address).await.map(Line::Tcp).map_err(failed("check host and port")),
            LineSpec::Telnet(address) => {
                let stream = connect(address).await.map_err(failed("check host and port"))?;
                let (codec, wire) = Telnet::new();
                Ok(Line::Telnet(Box::new(Telneted { stream, codec, data: Vec::new(), wire })))
            }
            LineSpec::Exec(command) => {
                let failed = failed("starting it on a terminal of its own");
                let start = || -> Result<(Pty, Child), pty_process::Error> {
                    let (pty, pts) = pty_process::open()?;
                    pty.resize(Size::new(24, WIDE))?;
                    let shell = pty_process::Command::new(SHELL).args(RAW).envs(command.environment());
                    let child = shell.kill_on_drop(true).spawn(pts)?;
                    Ok((pty, child))
                };
                let (pty, child) = start().map_err(|error| failed(io::Error::other(error)))?;
                Ok(Line::Exec(Box::new(pty), Box::new(child)))
            }
            // Handled above.
            LineSpec::Paced(line, _) | LineSpec::Narrow(line, _) => Box::pin(line.open()).await,
        }
    }
}

/// Translates EIO, which a pseudo-terminal reports when its other end is closed (drivers/tty/n_tty.c: `TTY_OTHER_CLOSED`).
fn ended(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO) => io::Error::other("the command ended"),
        _ => error,
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream =
        timeout(OPEN, TcpStream::connect(address)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Device(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Line::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Line::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Line::Telnet(telnet) => telnet.poll_read(cx, buf),
            Line::Exec(pty, _) => Pin::new(pty.as_mut()).poll_read(cx, buf).map_err(ended),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Line::Device(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Line::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Line::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Line::Telnet(telnet) => telnet.poll_write(cx, bytes),
            Line::Exec(pty, _) => Pin::new(pty.as_mut()).poll_write(cx, bytes).map_err(ended),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Device(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Line::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Line::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Line::Telnet(telnet) => telnet.flush(cx),
            Line::Exec(pty, _) => Pin::new(pty.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Telneted {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.data.is_empty() {
            if self.wire.len() > WAITING {
                match self.flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                }
            }
            let mut bytes = [0; 2048];
            let mut some = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut some) {
                Poll::Ready(Ok(())) if some.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            self.codec.receive(some.filled(), &mut self.data, &mut self.wire);
            // Answers that cannot be written now go out with the next write.
            if let Poll::Ready(Err(error)) = self.flush(cx) {
                return Poll::Ready(Err(error));
            }
        }
        let count = self.data.len().min(buf.remaining());
        buf.put_slice(self.data.get(..count).unwrap_or_default());
        self.data.drain(..count);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        self.codec.send(bytes, &mut self.wire);
        match self.flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wire.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.wire) {
                Poll::Ready(Ok(count)) => drop(self.wire.drain(..count.min(self.wire.len()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn lines_as_people_write_them() {
        for (text, shown) in [
            ("/dev/ttyUSB0", "/dev/ttyUSB0,115200"),
            ("/dev/ttyS1,9600", "/dev/ttyS1,9600"),
            ("unix:/run/vm/serial", "unix:/run/vm/serial"),
            ("tcp:[::1]:9001", "tcp:[::1]:9001"),
            ("telnet:console.example:7001", "telnet:console.example:7001"),
            ("exec:ipmitool -P secret sol activate", "exec:ipmitool …"),
            ("exec: ~/bin/sol node1", "exec:~/bin/sol …"),
            ("exec:IPMI_PASSWORD=secret LANG=C ipmitool -E sol activate", "exec:ipmitool …"),
            ("exec:IPMI_PASSWORD=secret", "exec:…"),
            ("exec:IPMI_PASSWORD='se cret' ipmitool -E sol activate", "exec:…"),
            ("exec:IPMI_PASSWORD=$(echo secret) ipmitool -E sol activate", "exec:…"),
            ("exec:IPMI_PASSWORD=secret;ipmitool -E sol activate", "exec:…"),
            ("exec:(IPMI_PASSWORD=secret ipmitool -E sol activate)", "exec:…"),
        ] {
            assert_eq!(text.parse::<LineSpec>().unwrap().to_string(), shown);
        }
        for bad in [
            "ttyS0",
            "/dev/ttyS0,fast",
            "/dev/ttyS0,1",
            "tcp:host",
            "tcp:host:0",
            "unix:",
            "exec: ",
            "ssh:x",
            "tcp:host:1,49",
            "tcp:host:1,fast",
            "tcp:host:1,",
            "unix:,9600",
            "unix:/a,4000001",
            "unix,fast:/a",
            "unix,9600:",
            "exec,:true",
            "ssh,9600:x",
        ] {
            assert!(bad.parse::<LineSpec>().is_err(), "{bad}");
        }
        let mistyped = "exce:IPMI_PASSWORD=secret ipmitool".parse::<LineSpec>().unwrap_err();
        assert!(
            mistyped.starts_with("\"exce\" is not a kind of line; want ") && !mistyped.contains("secret"),
            "{mistyped}"
        );
    }

    /// Every kind of line can have a speed. No part of a place or command is mistaken for a speed.
    #[test]
    fn speeds_of_lines() {
        for (text, line, baud) in [
            ("/dev/ttyS1,9600", LineSpec::Device("/dev/ttyS1".into(), 9600), Some(9600)),
            ("unix:/run/a,9600", LineSpec::Unix("/run/a".into()), Some(9600)),
            ("unix:/run/a,b", LineSpec::Unix("/run/a,b".into()), None),
            ("unix,9600:/run/a,b", LineSpec::Unix("/run/a,b".into()), Some(9600)),
            ("tcp:[::1]:9001,19200", LineSpec::Tcp("[::1]:9001".to_owned()), Some(19200)),
            ("tcp,19200:bmc:9001", LineSpec::Tcp("bmc:9001".to_owned()), Some(19200)),
            ("telnet:bmc:7001,38400", LineSpec::Telnet("bmc:7001".to_owned()), Some(38400)),
            ("exec:sol -o a,9600", LineSpec::Exec("sol -o a,9600".parse().unwrap()), None),
            ("exec,9600:sol -o a,115200", LineSpec::Exec("sol -o a,115200".parse().unwrap()), Some(9600)),
        ] {
            let parsed: LineSpec = text.parse().unwrap();
            assert_eq!(parsed.baud(), baud, "{text}");
            assert!(parsed.is_same(&line) && line.is_same(&parsed), "{text}");
            let inner = if let LineSpec::Paced(inner, _) = parsed { *inner } else { parsed };
            assert_eq!(inner, line, "{text}");
        }
        let twice: LineSpec = "unix:/run/a,9600".parse().unwrap();
        assert!(twice.is_same(&"unix:/run/a,115200".parse().unwrap()));
        // For a path that ends like a speed, the speed comes behind the kind.
        let path: LineSpec = "unix,9600:/run/a,115200".parse().unwrap();
        assert_eq!(path, LineSpec::Paced(Box::new(LineSpec::Unix("/run/a,115200".into())), 9600));
    }

    /// Every kind of line can have columns, with a speed or without. No part of a command is mistaken for columns.
    #[test]
    fn columns_of_lines() {
        for (text, shown, columns, baud) in [
            ("/dev/ttyS1,columns=80", "/dev/ttyS1,115200,columns=80", Some(80), Some(115_200)),
            ("/dev/ttyS1,9600,columns=132", "/dev/ttyS1,9600,columns=132", Some(132), Some(9600)),
            ("unix:/run/a,columns=80", "unix:/run/a,columns=80", Some(80), None),
            ("unix:/run/a,9600,columns=80", "unix:/run/a,9600,columns=80", Some(80), Some(9600)),
            ("unix,columns=80:/run/a,columns=", "unix:/run/a,columns=,columns=80", Some(80), None),
            ("tcp:[::1]:9001,columns=80", "tcp:[::1]:9001,columns=80", Some(80), None),
            ("telnet,9600,columns=80:bmc:7001", "telnet:bmc:7001,9600,columns=80", Some(80), Some(9600)),
            ("exec,columns=80:sol -o a,columns=90", "exec:sol …,columns=80", Some(80), None),
            ("exec,9600,columns=62:sol", "exec:sol …,9600,columns=62", Some(62), Some(9600)),
            ("exec:sol -o a,columns=80", "exec:sol …", None, None),
            ("exec,9600:sol -o a,columns=80", "exec:sol …,9600", None, Some(9600)),
        ] {
            let line: LineSpec = text.parse().unwrap();
            assert_eq!((line.to_string().as_str(), line.columns(), line.baud()), (shown, columns, baud), "{text}");
        }
        let narrow: LineSpec = "unix:/run/a,9600,columns=80".parse().unwrap();
        assert!(narrow.is_same(&"unix:/run/a".parse().unwrap()));
        let mut command: LineSpec = "exec,9600,columns=80:sol".parse().unwrap();
        assert!(command.script().is_some() && command.script_mut().is_some());
        for bad in [
            "/dev/ttyS1,columns=61",
            "unix:/a,columns=253",
            "unix:/a,columns=",
            "exec,columns=80,9600:x",
            "tcp:a:1,columns=8O",
        ] {
            assert!(bad.parse::<LineSpec>().unwrap_err().contains("want 62 to 252"), "{bad}");
        }
    }

    /// Programs like ssh(1) and screen(1) read the terminal's size and pass it on.
    #[tokio::test]
    async fn the_terminal_of_a_command_is_wide() {
        let line: LineSpec = "exec:stty size; sleep 100".parse().unwrap();
        let mut line = line.open().await.unwrap();
        let (mut said, mut buffer) = (Vec::new(), [0; 64]);
        while !said.contains(&b'\n') {
            let count = line.read(&mut buffer).await.unwrap();
            said.extend(&buffer[..count]);
        }
        assert_eq!(String::from_utf8(said).unwrap().trim_end(), "24 1000");
    }

    /// Attack: a telnet server asks for options endlessly and reads no answers.
    #[tokio::test]
    async fn a_telnet_server_that_only_asks() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            // IAC DO 99, and IAC WILL 99: RFC 854
            let questions = [255, 253, 99, 255, 251, 99].repeat(1000);
            while server.write_all(&questions).await.is_ok() && count.fetch_add(1, Ordering::Relaxed) < 10_000 {}
            std::future::pending::<()>().await;
        });
        let (codec, wire) = Telnet::new();
        let mut line = Line::Telnet(Box::new(Telneted { stream, codec, data: Vec::new(), wire }));
        let mut byte = [0];
        // None of its bytes are data.
        assert!(timeout(Duration::from_secs(3), line.read(&mut byte)).await.is_err());
        let Line::Telnet(telnet) = line else { panic!("telnet") };
        assert!(telnet.wire.len() < 2 * WAITING, "{} bytes, {asked:?} times asked", telnet.wire.len());
    }
}
