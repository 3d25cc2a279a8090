//! A TCP relay to a server. Counts connections and their round trips. Never changes the bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The relay. Stops when it is dropped.
pub struct Way {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    connections: Arc<Mutex<Vec<Arc<Mutex<Flights>>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (to, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (target, stopped, counted) = (Arc::clone(&to), Arc::clone(&stop), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (client, target): (_, Option<SocketAddr>) = (client.unwrap(), *target.lock().unwrap());
                let server = TcpStream::connect(target.expect("a server to lead to")).unwrap();
                let flights = Arc::new(Mutex::new(Flights::default()));
                counted.lock().unwrap().push(Arc::clone(&flights));
                carry(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&flights), true);
                carry(server, client, flights, false);
            }
        });
        Way { address, to, connections, stop, thread: Some(thread) }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
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

impl Drop for Way {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the way to the server panicked");
        }
    }
}

/// Relays one direction until the connection ends.
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
