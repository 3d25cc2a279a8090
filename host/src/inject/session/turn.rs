//! A line that waits until its node may be switched on. Nothing of the protocol is said or believed meanwhile: what
//! matters comes from a node that was switched on.

use std::pin::pin;

use imprint::line::{Host, Nonce, Shape, Wire};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::Session;
use crate::inject::power::Turn;
use crate::inject::transport::Line;

impl<'a> Session<'a> {
    /// Waits for the turn of this node. The line is read all the while: one that nobody reads stalls, and one that breaks
    /// must be open again before the power is switched. The window begins anew, since no HELLO can come before.
    pub(super) async fn turn(&mut self, line: &mut Line) -> Result<Turn<'a>, String> {
        let shared = self.shared;
        let mut turn = pin!(shared.turns.turn());
        tokio::select! {
            biased;
            turn = &mut turn => return Ok(turn),
            () = std::future::ready(()) => self.tell("waiting", &format!("for its turn: {}", shared.turns.pace())),
        }
        // It tells frames from the console, and answers nobody.
        let mut deaf =
            Wire::new(Host::new(Nonce([0; 8]), false, Shape::default()), self.job.line.baud()).keeping_text();
        let mut buffer = [0; 2048];
        let ended = loop {
            tokio::select! {
                turn = &mut turn => break Ok(turn),
                read = line.read(&mut buffer) => match read {
                    Ok(0) => break Err(super::CLOSED.to_owned()),
                    Ok(count) => {
                        deaf.push(buffer.get(..count).unwrap_or_default(), shared.now());
                        drop(deaf.poll(shared.now()));
                        let _ = self.keep(&deaf.text());
                    }
                    Err(error) => break Err(error.to_string()),
                },
            }
        };
        self.deadline = Instant::now() + shared.config.window;
        ended
    }
}
