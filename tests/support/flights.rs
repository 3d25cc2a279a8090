//! A TCP relay to a server. Counts connections and their round trips. Never changes the bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::listening::Listening;

/// The relay. Stops when it is dropped.
pub struct Way {
    listening: Listening,
    to: Arc<Mutex<Option<SocketAddr>>>,
    connections: Arc<Mutex<Vec<Arc<Mutex<Flights>>>>>,
}

/// One connection.
#[derive(Clone, Copy, Default)]
struct Flights {
    /// Whether the client sent last.
    asked: bool,
    /// How often the server sent after the client.
    answered: usize,
}

impl Way {
    /// Listens on 127.0.0.1. The server is set later, with [`Way::leads_to`].
    pub fn new() -> Way {
        let to: Arc<Mutex<Option<SocketAddr>>> = Arc::new(Mutex::new(None));
        let connections: Arc<Mutex<Vec<Arc<Mutex<Flights>>>>> = Arc::default();
        let (target, counted) = (Arc::clone(&to), Arc::clone(&connections));
        let listening = Listening::at(IpAddr::V4(Ipv4Addr::LOCALHOST), move |_, client| {
            let target = target.lock().unwrap().expect("a server to lead to");
            let server = TcpStream::connect(target).unwrap();
            let flights = Arc::new(Mutex::new(Flights::default()));
            counted.lock().unwrap().push(Arc::clone(&flights));
            carry(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&flights), true);
            carry(server, client, flights, false);
        });
        Way { listening, to, connections }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// Sets the server for connections from now on.
    pub fn leads_to(&self, server: SocketAddr) {
        *self.to.lock().unwrap() = Some(server);
    }

    /// The number of round trips of each connection so far, TCP's handshake included.
    pub fn round_trips(&self) -> Vec<usize> {
        self.connections.lock().unwrap().iter().map(|flights| 1 + flights.lock().unwrap().answered).collect()
    }
}

impl Default for Way {
    fn default() -> Way {
        Way::new()
    }
}

/// One direction. It ends with its connection.
fn carry(mut from: TcpStream, mut to: TcpStream, flights: Arc<Mutex<Flights>>, client: bool) {
    std::thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut flights = flights.lock().unwrap();
            if client {
                flights.asked = true;
            } else if std::mem::take(&mut flights.asked) {
                flights.answered += 1;
            }
            drop(flights);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
