//! TCP. What is known of a caller: its address, which is no proof of anything.

use std::io;

use tokio::net::{TcpListener, TcpStream};

use super::Arrival;
use crate::admission::Facts;

pub(super) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Arrival)> {
    let (stream, peer) = listener.accept().await?;
    // Frames are written whole; Nagle's algorithm would only delay them. Ignored: an error is that of the next write.
    let _ = stream.set_nodelay(true);
    let address = peer.ip().to_canonical();
    let from = format!("tcp:{}", std::net::SocketAddr::new(address, peer.port()));
    Ok((stream, Arrival { from, peer: address.to_string(), facts: Facts::default(), patient: false }))
}
